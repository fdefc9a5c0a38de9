"""Stage 2 on disk: chunks to the same chunks with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.data.chunk_files import kept_of
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.models import Checkpoint
from k2d_hf.pipeline.recipe import ValidateSettings
from k2d_hf.pipeline.stages.files import shards_of_stage
from k2d_hf.terminal.console import Stage, minutes
from k2d_hf.terminal.progress import length_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def validate(
    chunks: Dataset | IterableDataset,
    auxiliary: Checkpoint,
    settings: ValidateSettings,
    stage: Stage,
    *,
    language: str | None,
    output: str | Path,
    resume: str | Path,
) -> str:
    """Chunks to the same chunks with distance and verdict in `output`.

    The auxiliary's transcripts are kept in the folder `resume`, shard by shard, for a run that is interrupted or has
    another verdict.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.validation.auxiliary import validate_labels
    from k2d_hf.validation.kept_share import ValidationReport

    report = ValidationReport()
    stage.start(length_of(chunks), "chunks")
    validated = validate_labels(
        chunks,
        [str(auxiliary.path), auxiliary.name],
        language=language,
        shards_dir=shards_of_stage(resume, "validate", auxiliary, settings, language),
        report=report,
        on_progress=stage.advance,
        **vars(settings),
    )
    write_rows(validated, output)
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.most_common())
    kept, seconds = kept_of(validated)
    if not kept:
        advice = f"look at the column drop_reason in {output}"
        if any(reason.startswith("distance") for reason in report.dropped):
            advice = (
                f"raise validate.threshold (now {settings.threshold:g}), or look at the column distance in {output}"
            )
        raise K2DError(f"every one of {len(validated)} chunks was dropped ({dropped}); {advice}")
    if warning := report.warning():
        stage.console.warn(warning)
    result = f"kept {kept} ({100 * kept / len(validated):.0f}%, {minutes(seconds)})"
    return result + (f"  dropped: {dropped}" if dropped else "")
