"""What stages read and write: chunks, journals, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint
from k2d_hf.errors import K2DError
from k2d_hf.labelling.transcribers import check_engine
from k2d_hf.recipe import LabelSettings, ValidateSettings
from k2d_hf.resuming import key_of, unfinished
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

# Settings that decide what becomes of a transcript, not the transcript: when they change, no model runs again.
NOT_HEARD = ("max_duration", "metric", "threshold", "normalise_by", "batch_size", "device")
COUNTED_AT_ONCE = 10_000  # rows; a whole column may have millions


def load_chunks(path: str | Path) -> Dataset:
    """A data set of chunks written by `k2d label` or `k2d validate`.

    Raises:
        K2DError: if there is none.
    """
    from datasets import load_from_disk

    try:
        return load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError) as error:
        raise K2DError(f"{path}: no data set of chunks: {str(error).splitlines()[0]}; `k2d label` writes one") from None


def kept_of(validated: Dataset) -> tuple[int, float]:
    """How many chunks are kept, and their seconds."""
    count, seconds = 0, 0.0
    for batch in validated.select_columns(["keep", "duration"]).iter(batch_size=COUNTED_AT_ONCE):
        durations = [duration for duration, keep in zip(batch["duration"], batch["keep"], strict=True) if keep]
        count += len(durations)
        seconds += sum(durations)
    return count, seconds


def local_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint that a stage wrote."""
    return Checkpoint(path=path, name=str(path), origin="local")


def journal_of(
    resume: Path, stage: str, model: Checkpoint, settings: LabelSettings | ValidateSettings, language: str | None
) -> Path:
    """The journal of transcripts for this model and these settings; the files are the journal's own keys."""
    decides = {name: value for name, value in vars(settings).items() if name not in NOT_HEARD}
    key = key_of(__version__, checkpoint_fingerprint(model.path), check_engine(settings.engine), decides, language)
    return unfinished(resume, stage, key)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that people can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a line; without rows there is no file."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
