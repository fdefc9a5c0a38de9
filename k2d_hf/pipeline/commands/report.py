"""`k2d report`: a page on a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from k2d_hf.files.folders import check_writable
from k2d_hf.files.settings import add_options, given_options, read_settings
from k2d_hf.pipeline.command import Command, perform, place, run_around
from k2d_hf.reporting.settings import ReportSettings
from k2d_hf.terminal.command_parser import CommandParser


class Report(Command):
    """The folder of a run to one page."""

    name = "report"
    summary = "Write a run's report: one page with tables, plots, players and transcripts, which needs no network."

    def add_arguments(self, parser: CommandParser) -> None:
        """Run, references and settings."""
        parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
        references = (
            "JSONL manifest with audio and segments (start, end, text), shown, and for the recall of bad labels "
            "(default: references of the run's recipe)"
        )
        parser.add_argument("--references", type=place, metavar="FILE", help=references)
        output = "file of the page (default: report.html in RUN)"
        parser.add_argument("--output", type=Path, metavar="FILE.html", help=output)
        add_options(parser.add_argument_group("settings"), ReportSettings, skip=["enabled"])

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d report`."""
        from k2d_hf.pipeline.report import report

        settings = read_settings(ReportSettings, given_options(arguments, ReportSettings), where=arguments.command)
        folder = run_around(arguments.run)
        output = arguments.output or folder / "report.html"
        if folder.is_dir():
            check_writable(output, file=True)
        files = {"output": output, "references": arguments.references}
        perform(arguments, lambda job: report(folder, settings, job.progress, **files), lock=False)
