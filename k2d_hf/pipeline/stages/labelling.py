"""Stage 1 on disk: recordings to chunks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.models import Checkpoint
from k2d_hf.pipeline.recipe import LabelSettings
from k2d_hf.pipeline.stages.files import shards_of_stage
from k2d_hf.terminal.console import Stage, minutes
from k2d_hf.terminal.progress import length_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


def label(
    recordings: Dataset | IterableDataset,
    teacher: Checkpoint,
    settings: LabelSettings,
    stage: Stage,
    *,
    language: str | None,
    output: str | Path,
    resume: str | Path,
    skipped: str | Path,
    figures: Path | None = None,
) -> str:
    """Recordings to chunks in `output`; what was skipped, left out or passed over goes to the file `skipped`.

    The teacher's transcripts are kept in the folder `resume`, shard by shard, for a run that is interrupted.
    Counts go to the JSON file `figures`, for reports and cards.

    Raises:
        K2DError: if every recording was skipped.
    """
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings

    report = LabellingReport()
    started = time.perf_counter()
    stage.start(length_of(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            [str(teacher.path), teacher.name],  # by its name where a machine of a cluster has it elsewhere
            language=language,
            shards_dir=shards_of_stage(resume, "label", teacher, settings, language),
            report=report,
            on_progress=stage.advance,
            **vars(settings),
        )
    except K2DError as error:
        raise K2DError(f"{error}; see {skipped}" if report.skipped else str(error)) from error
    finally:
        write_lines(skipped, [*report.skipped, *report.left_out, *report.passed_over])
    write_rows(chunks, output)
    if figures is not None:
        write_json(figures, {"chunks": len(chunks), **report.figures()})
    took = f"{time.perf_counter() - started:.0f} s"
    details = [took, f"{len(report.skipped)} skipped", f"{minutes(report.seconds_in_chunks)} covered"]
    if report.seconds_without_text:
        details.append(f"{minutes(report.seconds_without_text)} of it without text")
    if report.left_out:
        lost = sum(span["end"] - span["start"] for span in report.left_out)
        details.append(f"{len(report.left_out)} spans of {lost:.1f} s left out")
    if report.seconds_passed_over:
        details.append(f"{minutes(report.seconds_passed_over)} passed over")
    if report.skipped or report.left_out or report.passed_over:
        details.append(f"see {skipped}")
    return f"{minutes(report.seconds)} -> {len(chunks)} chunks ({', '.join(details)})"
