"""The report on disk: the folder of a run to one page; at the end of a run it never fails the run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from k2d_hf.console import Console, Stage
from k2d_hf.errors import K2DError
from k2d_hf.recipe import ReportSettings
from k2d_hf.wording import message_of


def report(directory: Path, settings: ReportSettings, stage: Stage, *, references: Path | None, output: Path) -> str:
    """The report of a run in the file `output`; with `references`, a manifest, it tells the recall of bad labels."""
    from k2d_hf.reporting.report import write_report

    written = write_report(
        directory,
        references=references,
        output=output,
        megabytes=settings.megabytes,
        on_start=partial(stage.start, unit="clips"),
        on_progress=stage.advance,
    )
    for note in written.notes:
        stage.console.warn(note)
    return f"{output}, {written.bytes / 1e6:.1f} MB, {written.clips} clips"


def report_run(directory: Path, settings: ReportSettings, console: Console) -> None:
    """The same at the end of a run, where there is something new to tell; whatever stops it is one line."""
    if not settings.enabled:
        return
    output = directory / "report.html"
    stage = console.stage("report")
    try:
        if not output.exists() or output.stat().st_mtime_ns < (directory / "stages.json").stat().st_mtime_ns:
            report(directory, settings, stage, references=None, output=output)
    except Exception as error:  # the run is done, and all that it promises is there
        console.warn(f"no report: {error if isinstance(error, K2DError) else message_of(error)}")
        return
    finally:
        stage.close()
    console.line(f"Look:      {output}")
