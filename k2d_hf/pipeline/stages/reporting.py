"""The report on disk: the folder of a run to one page; at the end of a run it never fails the run."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.errors import K2DError
from k2d_hf.formatting import message_of
from k2d_hf.pipeline.recipe import ReportSettings
from k2d_hf.terminal.console import Console, Stage
from k2d_hf.validation.calibrate import write_calibration

if TYPE_CHECKING:
    from k2d_hf.reporting.report import WrittenReport


def report(
    directory: Path, settings: ReportSettings, stage: Stage, *, references: str | Path | None, output: Path
) -> str:
    """The report of a run in the file `output`; with `references`, a manifest, it tells the recall of bad labels.

    Without, those of the run's recipe are taken.
    """
    return _told(_write(directory, settings, stage, references, output))


def report_run(directory: Path, settings: ReportSettings, console: Console) -> str | None:
    """The same at the end of a run, with its calibration beside it; whatever stops it is one line, and None."""
    stage = console.stage("report")
    try:
        written = _write(directory, settings, stage, None, directory / "report.html")
        if written.calibration is not None:
            with suppress(K2DError):  # without matplotlib, as the report has said
                write_calibration(written.calibration, directory)
        return _told(written)
    except Exception as error:  # the run is done, and all that it promises is there
        console.warn(f"no report: {error if isinstance(error, K2DError) else message_of(error)}")
        return None
    finally:
        stage.close()


def _write(
    directory: Path, settings: ReportSettings, stage: Stage, references: str | Path | None, output: Path
) -> WrittenReport:
    from k2d_hf.reporting.report import write_report

    written = write_report(
        directory,
        references=references,
        output=output,
        megabytes=settings.megabytes,
        student=settings.student,
        on_start=partial(stage.start, unit="texts and clips"),
        on_progress=stage.advance,
    )
    for note in written.notes:
        stage.console.warn(note)
    return written


def _told(written: WrittenReport) -> str:
    return f"{written.path}, {written.bytes / 1e6:.1f} MB, {written.clips} clips"
