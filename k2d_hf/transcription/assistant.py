"""Assisted decoding: a student guesses some tokens, its teacher checks them in one pass, so the text is the teacher's.

The student hears with its teacher's encoder, which runs once (Leviathan et al. 2023, arXiv 2211.17192; for Whisper and
a distilled student Gandhi et al. 2023, arXiv 2311.00430, section 6).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.files.json_files import read_json
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.checkpoint import weight_files

if TYPE_CHECKING:
    from transformers import WhisperForCausalLM, WhisperForConditionalGeneration

ENCODER = "model.encoder."
# In a config: what both must have alike, and what it is called in an error.
_ALIKE = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "num_mel_bins": "mel bins",
    "encoder_layers": "encoder layers",
    "encoder_ffn_dim": "encoder neurons",
}


def check_assistant(assistant: str, checkpoint: str | Path) -> Path:
    """The folder of an assistant (path, Hub id or adapter) whose config goes with that of a model's checkpoint.

    Raises:
        K2DError: for one that is nowhere to be found, or of another vocabulary, width or encoder.
    """
    with prefixed("assistant: "):
        folder = resolve_checkpoint(assistant).path
    own, models = read_json(folder / "config.json"), read_json(Path(checkpoint) / "config.json")
    for key, name in _ALIKE.items():
        if own.get(key) != models.get(key):
            raise K2DError(
                f"assistant {assistant}: its {name} ({own.get(key)}) is not that of the model ({models.get(key)}); "
                "give a student of this model"
            )
    return folder


def load_assistant(
    assistant: str, checkpoint: str | Path, model: WhisperForConditionalGeneration
) -> WhisperForCausalLM:
    """The decoder of an assistant, where and in the number format that its loaded `model` is.

    Raises:
        K2DError: as `check_assistant`, and for one whose encoder has other weights than the model's.
    """
    from transformers import WhisperForCausalLM

    folder = check_assistant(assistant, checkpoint)
    if not _has_encoder_of(folder, model):
        raise K2DError(
            f"assistant {assistant}: its encoder is not that of the model; give a student that was distilled from it "
            "with the encoder as it was (freeze_encoder)"
        )

    class Decoder(WhisperForCausalLM):
        """As transformers has it, but for the report on load that the encoder's weights are not of it."""

        _keys_to_ignore_on_load_unexpected = [ENCODER]  # noqa: RUF012

    decoder: Any = Decoder.from_pretrained(folder, dtype=model.dtype, use_safetensors=True)
    decoder.generation_config.num_beams = 1  # a student carries those that it was evaluated with
    decoder.generation_config.max_length = None  # each guess says how long it may be, and both would be a warning
    return decoder.to(model.device).eval()


def _has_encoder_of(folder: Path, model: WhisperForConditionalGeneration) -> bool:
    """Whether a checkpoint's encoder has the model's weights, in the model's number format."""
    import torch
    from safetensors import safe_open

    weights = model.state_dict()
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no mapping
                if name.startswith(ENCODER):
                    own = weights.get(name)
                    if own is None or not torch.equal(stored.get_tensor(name).to(own.device, own.dtype), own):
                        return False
    return True
