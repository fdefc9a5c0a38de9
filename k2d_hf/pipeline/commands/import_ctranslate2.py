"""`k2d import-ctranslate2`: a converted Whisper back to a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from k2d_hf.models.checkpoint import DTYPES
from k2d_hf.models.conversion import import_ctranslate2
from k2d_hf.pipeline.command import Command, add_folder, check_output, perform
from k2d_hf.pipeline.run_state import Job
from k2d_hf.terminal.command_parser import CommandParser


class ImportCTranslate2(Command):
    """A CTranslate2 folder to a checkpoint."""

    name = "import-ctranslate2"
    summary = "Turn a CTranslate2 (faster-whisper) Whisper into a transformers checkpoint."

    def add_arguments(self, parser: CommandParser) -> None:
        """Source and number format."""
        source = "folder with model.bin, tokenizer.json, config.json"
        parser.add_argument("source", type=Path, metavar="DIR", help=source)
        add_folder(parser, "folder of the checkpoint")
        text = "number format of the weights (default: float32)"
        parser.add_argument("--dtype", default="float32", metavar="|".join(DTYPES), help=text)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d import-ctranslate2`."""
        check_output(arguments.output)

        def work(job: Job) -> str:
            path = import_ctranslate2(arguments.source, job.output, dtype=arguments.dtype)
            return f"{arguments.source} -> {path}"

        perform(arguments, work, lock=False)
