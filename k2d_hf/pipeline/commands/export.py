"""`k2d export`: a student for another engine."""

from __future__ import annotations

import argparse

from k2d_hf.models.exporting import export_formats
from k2d_hf.pipeline.command import Command, add_folder, check_output, model_of, perform
from k2d_hf.pipeline.run_state import Job
from k2d_hf.terminal.command_parser import CommandParser

_READ_BY = ", ".join(f"{one.title}, which {one.reader} reads" for one in export_formats().values())


class Export(Command):
    """A checkpoint to the format of another engine."""

    name = "export"
    summary = f"Turn a student into the format of another engine: {_READ_BY}."

    def add_arguments(self, parser: CommandParser) -> None:
        """Student and format."""
        formats = export_formats()
        student = "folder, run, Hub id or wheels:...; any Whisper will do"
        parser.add_argument("student", metavar="STUDENT", help=student)
        parser.add_argument("--to", required=True, choices=list(formats), metavar="|".join(formats), help="the format")
        add_folder(parser, "folder for " + ", ".join(one.opened_with for one in formats.values()))
        types = [f"of {name} {', '.join(one.quantizations)}" for name, one in formats.items() if one.quantizations]
        defaults = [
            "that of the student",
            *(f"of {name} {one.unquantized}" for name, one in formats.items() if one.unquantized),
        ]
        quantization = f"number format of the weights, {'; '.join(types)} (default: {', '.join(defaults)})"
        parser.add_argument("--quantization", metavar="FORMAT", help=quantization)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d export`."""
        check_output(arguments.output)
        student = model_of([arguments.student])

        def work(job: Job) -> str:
            chosen = export_formats()[arguments.to]
            path = chosen.export(student.path, job.output, quantization=arguments.quantization)
            return f"{student.name} -> {path}"

        perform(arguments, work, lock=False)
