"""`k2d export`: a student for another engine."""

from __future__ import annotations

import argparse

from k2d_hf.pipeline.command import Command, add_folder, check_new_folder, model_of, perform
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import ProgressLine


class Export(Command):
    """A checkpoint to the format of another engine."""

    name = "export"
    summary = "Turn a student into the format of another engine: CTranslate2, which faster-whisper reads."

    def add_arguments(self, parser: CommandParser) -> None:
        """Student and format."""
        student = "folder, run, Hub id or wheels:...; any Whisper will do"
        parser.add_argument("student", metavar="STUDENT", help=student)
        parser.add_argument("--to", required=True, choices=["ctranslate2"], metavar="ctranslate2", help="the format")
        add_folder(parser, "folder for faster_whisper.WhisperModel(DIR)")
        types = "int8, int8_float16, int16, float16, bfloat16, float32 (default: that of the student)"
        parser.add_argument("--quantization", metavar="FORMAT", help=f"number format of the weights: {types}")

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d export`."""
        from k2d_hf.models.conversion import export_ctranslate2

        check_new_folder(arguments.output)
        student = model_of([arguments.student])

        def work(progress: ProgressLine) -> str:
            path = export_ctranslate2(student.path, arguments.output, quantization=arguments.quantization)
            return f"{student.name} -> {path}"

        perform(arguments, work, lock=False)
