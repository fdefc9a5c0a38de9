"""The report of a run: its folder to one page. No stage, as it never fails the run, yet skipped like one."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from k2d_hf.errors import K2DError
from k2d_hf.files.resuming import key_of
from k2d_hf.files.settings import deciding
from k2d_hf.files.storage import file_key
from k2d_hf.formatting import error_message
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.pipeline.stages import stages
from k2d_hf.reporting.report import write_report
from k2d_hf.reporting.settings import ReportSettings
from k2d_hf.terminal.console import Console, ProgressLine
from k2d_hf.validation.calibrate import write_calibration
from k2d_hf.version import __version__


def report(
    folder: Path,
    settings: ReportSettings,
    progress: ProgressLine,
    *,
    output: Path,
    references: str | Path | None = None,
    calibration: bool = False,
) -> str:
    """The report of a run in the file `output`; returns its line of result.

    The recall of bad labels is told with the manifest `references`, or without by that of the run's recipe. With
    `calibration`, what each threshold would keep is written into the run's folder.
    """
    written = write_report(
        folder,
        stages=stages(),
        references=references,
        output=output,
        megabytes=settings.megabytes,
        student=settings.student,
        on_start=partial(progress.start, unit="texts and clips"),
        on_progress=progress.advance,
    )
    for note in written.notes:
        progress.console.warn(note)
    if calibration and written.calibration is not None:
        with suppress(K2DError):  # without matplotlib, which the report notes
            write_calibration(written.calibration, folder)
    return f"{written.path}, {written.bytes / 1e6:.1f} MB, {written.clips} clips"


def report_run(run: RunState) -> None:
    """The report at the end of a run, unless it is up to date or switched off."""
    settings = run.recipe.report
    if not settings.enabled:
        return
    output = run.folder / "report.html"
    references = None if run.recipe.references is None else file_key(run.recipe.references)
    key = key_of(__version__, "report", [deciding(settings), references, run.ran(*run.planned)])
    if run.record.line_of("report", key) is None or not output.exists():
        started = time.perf_counter()
        line = report_or_warn(run.folder, settings, run.console)
        if line is None:
            return
        run.record.remember("report", key, line, time.perf_counter() - started)
    run.console.line(f"Look:      {output}")


def report_or_warn(folder: Path, settings: ReportSettings, console: Console) -> str | None:
    """The report with its calibration beside it; whatever stops it is one line, and None."""
    progress = console.progress("report")
    try:
        return report(folder, settings, progress, output=folder / "report.html", calibration=True)
    except Exception as error:  # the run is done, and all that it promises is there
        console.warn(f"no report: {error if isinstance(error, K2DError) else error_message(error)}")
        return None
    finally:
        progress.close()
