"""The commands of `k2d`: the whole run, the stages of the method, and what is done with their results."""

from __future__ import annotations

from k2d_hf.pipeline.command import Command
from k2d_hf.pipeline.commands.calibrate import Calibrate
from k2d_hf.pipeline.commands.compare import Compare
from k2d_hf.pipeline.commands.export import Export
from k2d_hf.pipeline.commands.import_ctranslate2 import ImportCTranslate2
from k2d_hf.pipeline.commands.report import Report
from k2d_hf.pipeline.commands.run import Run
from k2d_hf.pipeline.commands.transcribe import Transcribe
from k2d_hf.pipeline.stages import stages


def commands() -> list[Command]:
    """All commands, in the order of help."""
    of_stages = [stage for stage in stages() if isinstance(stage, Command)]
    return [Run(), *of_stages, Calibrate(), Compare(), Report(), Transcribe(), Export(), ImportCTranslate2()]
