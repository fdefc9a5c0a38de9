"""Stage 2 on disk: chunks to the same chunks with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.console import Stage, minutes
from k2d_hf.errors import K2DError
from k2d_hf.folders import write_folder
from k2d_hf.recipe import ValidateSettings
from k2d_hf.stages.files import journal_of, kept_of

if TYPE_CHECKING:
    from datasets import Dataset


def validate(
    chunks: Dataset,
    auxiliary: Checkpoint,
    settings: ValidateSettings,
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    resume: Path,
) -> str:
    """Chunks to the same chunks with distance and verdict in `output`.

    The auxiliary's transcripts are kept in the folder `resume`, for a run that is interrupted or has another verdict.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.validation.auxiliary import drop_counts, validate_labels

    stage.start(len(chunks), "chunks")
    validated = validate_labels(
        chunks,
        str(auxiliary.path),
        language=language,
        journal=journal_of(resume, "validate", auxiliary, settings, language),
        on_progress=stage.advance,
        **vars(settings),
    )
    write_folder(output, lambda folder: validated.save_to_disk(str(folder)), replace=True)
    reasons = drop_counts(validated).most_common()
    dropped = ", ".join(f"{count} {reason}" for reason, count in reasons)
    kept, seconds = kept_of(validated)
    if not kept:
        raise K2DError(
            f"every one of {len(validated)} chunks was dropped ({dropped}); raise validate.threshold "
            f"(now {settings.threshold:g}), or look at the column distance in {output}"
        )
    result = f"kept {kept} ({100 * kept / len(validated):.0f}%, {minutes(seconds)})"
    return result + (f"  dropped: {dropped}" if dropped else "")
