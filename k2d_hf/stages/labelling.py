"""Stage 1 on disk: recordings to chunks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.console import Stage, minutes
from k2d_hf.errors import K2DError
from k2d_hf.folders import write_folder
from k2d_hf.recipe import LabelSettings
from k2d_hf.stages.files import journal_of, write_lines

if TYPE_CHECKING:
    from datasets import Dataset


def label(
    recordings: Dataset,
    teacher: Checkpoint,
    settings: LabelSettings,
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    resume: Path,
    skipped: Path,
) -> str:
    """Recordings to chunks in `output`; what was skipped or left out goes to the file `skipped`.

    The teacher's transcripts are kept in the folder `resume`, for a run that is interrupted.

    Raises:
        K2DError: if every recording was skipped.
    """
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings

    report = LabellingReport()
    started = time.perf_counter()
    stage.start(len(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            str(teacher.path),
            language=language,
            journal=journal_of(resume, "label", teacher, settings, language),
            report=report,
            on_progress=stage.advance,
            **vars(settings),
        )
    except K2DError as error:
        raise K2DError(f"{error}; see {skipped}" if report.skipped else str(error)) from error
    finally:
        write_lines(skipped, [*report.skipped, *report.left_out])
    write_folder(output, lambda folder: chunks.save_to_disk(str(folder)), replace=True)
    result = f"{minutes(report.seconds)} -> {len(chunks)} chunks ({time.perf_counter() - started:.0f} s"
    result += f", {len(report.skipped)} skipped"
    if report.left_out:
        lost = sum(span["end"] - span["start"] for span in report.left_out)
        result += f", {len(report.left_out)} spans of {lost:.1f} s left out"
    if report.skipped or report.left_out:
        result += f", see {skipped}"
    return result + ")"
