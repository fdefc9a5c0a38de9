"""`k2d calibrate`: what each threshold would keep."""

from __future__ import annotations

import argparse
from pathlib import Path

from k2d_hf.files.folders import check_writable
from k2d_hf.pipeline.command import Command, part_of_run, place
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console
from k2d_hf.validation.calibration import THRESHOLD_METRICS


class Calibrate(Command):
    """Validated chunks to curves over the threshold."""

    name = "calibrate"
    summary = "See what each threshold would keep, and which to take; nothing is transcribed again."

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, references and metric."""
        parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate, or a run")
        references = (
            "JSONL manifest with audio and segments (start, end, text), or a folder with subtitles, for the recall"
        )
        parser.add_argument("--references", type=place, metavar="FILE", help=references)
        metric = "distance whose threshold is recommended; all are compared (default: composite)"
        shown = "|".join(THRESHOLD_METRICS)
        parser.add_argument("--metric", default="composite", choices=THRESHOLD_METRICS, metavar=shown, help=metric)
        parser.add_argument("--output", type=Path, metavar="DIR", help="folder of calibration.json, .png and .svg")

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d calibrate`."""
        from k2d_hf.validation.calibrate import calibrate
        from k2d_hf.validation.calibration_report import render_calibration

        check_writable(arguments.output)
        validated = part_of_run(arguments.validated, "validated")
        console = Console()
        with console.warnings():
            calibration = calibrate(validated, arguments.references, metric=arguments.metric, output=arguments.output)
        console.line(render_calibration(calibration, console.screen))
