"""Transcripts of the trained student for the chunks that a report shows; no stage of a run makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from k2d_hf.files.resuming import key_of, unfinished
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.reporting.facts import ChunkFact


def student_of(directory: Path) -> Path | None:
    """The folder of a run's student; None where it is not trained yet."""
    student = directory / "student"
    return student if any(student.glob("model*.safetensors")) else None


def student_transcripts(
    chunks: Sequence[ChunkFact],
    student: Path,
    *,
    language: str | None,
    resume: Path,
    on_progress: Callable[..., None] | None = None,
) -> list[ChunkFact]:
    """The same chunks with the student's transcripts, greedy and each from scratch, as the auxiliary's are.

    Args:
        chunks: to transcribe; one whose audio cannot be read keeps None.
        student: folder of its checkpoint.
        language: as the recipe has it.
        resume: folder of the transcripts, so that the next report of the same student makes none again.
        on_progress: called with the number of chunks done.

    Raises:
        K2DError: if the student cannot be loaded.
    """
    from datasets import Dataset

    from k2d_hf.validation.auxiliary import validate_labels

    if not chunks:
        return []
    rows = Dataset.from_list([{**chunk.source, "text": chunk.text} for chunk in chunks])
    rows = validate_labels(
        rows,
        str(student),
        metric="full",
        language=language,
        shards_dir=unfinished(resume, "report", key_of(checkpoint_fingerprint(student), language)),
        on_progress=on_progress or _no_progress,
    )
    return [replace(chunk, student_text=text) for chunk, text in zip(chunks, rows["auxiliary_text"], strict=True)]


def _no_progress(count: int, note: str = "") -> None:
    """Show nothing."""
