"""`k2d calibrate`: what each threshold would keep."""

from __future__ import annotations

import argparse
from pathlib import Path

from k2d_hf.errors import prefixed
from k2d_hf.files.folders import check_writable
from k2d_hf.files.settings import add_options, given_options, hints_of, read_settings
from k2d_hf.pipeline.command import Command, part_of_run, place, validation_of_run
from k2d_hf.scoring.phonemes import phones_by
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console
from k2d_hf.validation.calibration import THRESHOLD_METRICS
from k2d_hf.validation.distance import AUXILIARIES_BY, MEDIAN
from k2d_hf.validation.settings import ValidateSettings

COMPARED = ("espeak_language", "normalise_by")  # settings that decide how two transcripts are compared


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
        metric = "distance whose threshold is recommended; all are compared (default: the run's, else composite)"
        shown = "|".join(THRESHOLD_METRICS)
        parser.add_argument("--metric", choices=THRESHOLD_METRICS, metavar=shown, help=metric)
        by = "distance of several auxiliaries, as of validate.auxiliaries_by (default: the run's, else median)"
        shown = "|".join(AUXILIARIES_BY)
        parser.add_argument("--auxiliaries-by", choices=AUXILIARIES_BY, metavar=shown, help=by)
        group = parser.add_argument_group("settings of validation, by which stored transcripts are compared anew")
        add_options(group, ValidateSettings, skip=[name for name in hints_of(ValidateSettings) if name not in COMPARED])
        parser.add_argument("--output", type=Path, metavar="DIR", help="folder of calibration.json, .png and .svg")

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d calibrate`."""
        from k2d_hf.validation.calibrate import calibrate
        from k2d_hf.validation.calibration_report import render_calibration

        check_writable(arguments.output)
        given = given_options(
            arguments, ValidateSettings, but=[name for name in vars(arguments) if name not in COMPARED]
        )
        own = validation_of_run(arguments.validated, "metric", "auxiliaries_by", *COMPARED)
        same = {name: own[name] for name in COMPARED if name in own}
        compared = read_settings(ValidateSettings, {**same, **given}, where=self.name) if given else None
        if compared is not None:
            with prefixed(f"{self.name}: "):
                phones_by(compared.espeak_language)  # which may be missing, before chunks are read
        validated = part_of_run(arguments.validated, "validated")
        metric = own["metric"] if own.get("metric") in THRESHOLD_METRICS else "composite"
        console = Console()
        with console.warnings():
            calibration = calibrate(
                validated, arguments.references, metric=arguments.metric or metric, output=arguments.output,
                compared=compared, auxiliaries_by=arguments.auxiliaries_by or own.get("auxiliaries_by", MEDIAN),
            )  # fmt: skip
        console.line(render_calibration(calibration, console.screen))
