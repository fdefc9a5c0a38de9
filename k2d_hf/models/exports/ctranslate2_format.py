"""CTranslate2, which faster-whisper reads; the way back is `models/conversion.py`.

The module is not called `ctranslate2`: beside a package of that name it would shadow it wherever the folder itself is
on the path.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from k2d_hf.models.exporting import ExportFormat
from k2d_hf.models.generation import complete_generation_config
from k2d_hf.models.processors import load_tokenizer


def export_ctranslate2(checkpoint_dir: str | Path, output_dir: str | Path, *, quantization: str | None = None) -> Path:
    """Write the CTranslate2 folder of a transformers Whisper checkpoint, complete for `faster_whisper.WhisperModel`.

    Args:
        checkpoint_dir: folder of the checkpoint.
        output_dir: folder to write; it must be empty or not exist.
        quantization: number format of the weights (int8, int8_float16, int16, float16, bfloat16, float32, ...); None
            keeps the checkpoint's own.

    Raises:
        K2DError: if ctranslate2 is not installed, the number format is unknown, or the output folder holds something.
    """
    return FORMAT.export(checkpoint_dir, output_dir, quantization=quantization)


def _fill(checkpoint: Path, folder: Path, quantization: str | None) -> None:
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperFeatureExtractor, WhisperTokenizer

    class Converter(TransformersConverter):
        """It takes from the generation config what old checkpoints do not have there."""

        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            return complete_generation_config(super().load_model(*args, **kwargs), partial(load_tokenizer, checkpoint))

    # `force` deletes what is in the folder, which its maker has just made, empty.
    Converter(str(checkpoint)).convert(str(folder), quantization=quantization, force=True)
    # faster-whisper reads these two names only, whichever way the checkpoint spells them.
    WhisperTokenizer.from_pretrained(checkpoint).backend_tokenizer.save(str(folder / "tokenizer.json"))
    WhisperFeatureExtractor.from_pretrained(checkpoint).save_pretrained(folder)


FORMAT = ExportFormat(
    "ctranslate2",
    title="CTranslate2",
    reader="faster-whisper",
    opened_with="faster_whisper.WhisperModel(DIR)",
    fill=_fill,
    quantizations=("int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32"),
    module="ctranslate2",
    extra="fast",
)
