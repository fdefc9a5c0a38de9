"""Stage 3, where chunks are seen more than once: the teacher's soft targets are stored, so that it runs once."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.distillation.settings import TRAINING_ALONE, DistillationSettings, deciding_targets, keeps_teacher
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.files.resuming import key_of, unfinished
from k2d_hf.files.settings import add_options, deciding, given_options
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.pipeline.command import (
    Command,
    add_folder,
    add_model,
    add_settings,
    beside,
    check_output,
    model_of,
    perform,
    settings_of,
)
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoder_operations, encoder_operations
from k2d_hf.pipeline.recipe import Recipe, read_distil
from k2d_hf.pipeline.run_state import RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.training import add_unvalidated, training_arguments, training_chunks
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import ProgressLine
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from k2d_hf.reporting.chunks import ChunkTable


class Targets(Stage, Command):
    """Chunks to the same chunks with soft targets (K2D, stage 3)."""

    name = "targets"
    summary = (
        "Store the teacher's hidden states (or its top tokens) for each label, so that k2d distil needs no teacher."
    )
    output = "targets"

    def lacks(self, recipe: Recipe) -> list[str]:
        """As the device has it."""
        return [] if recipe.targets.enabled is False else lacks_of(recipe.targets, "targets.")

    def depends(self, run: RunState) -> list[Any]:
        """Settings, chunks, the models; of the student what it has of the teacher."""
        recipe = run.recipe
        wanted = [deciding(recipe.targets), deciding_targets(recipe.distil), reason_to_skip_targets(run) is None]
        models = [weights_of(run.teacher.path), recipe.student.encoder_layers, auxiliary_in_loss(run)]
        return [wanted, recipe.language, models, run.ran("validate")]

    def run(self, run: RunState, progress: ProgressLine) -> str:
        """Write the chunks with soft targets, or an empty folder where there are to be none."""
        output = run.folder / self.output
        shutil.rmtree(output, ignore_errors=True)
        if reason := reason_to_skip_targets(run):
            output.mkdir()
            return f"none: {reason}"
        return targets(
            run.folder / "validated",
            run.folder / "student-before",
            run.teacher,
            run.auxiliary,
            run.recipe.targets,
            run.recipe.distil,
            progress,
            language=run.recipe.language,
            output=output,
            resume=run.resume,
        )

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of one forward pass of the teacher over each chunk, in each form of its label."""
        teacher = plan.teacher.shape
        if teacher is None or plan.student is None or plan.kept is None or not plan.has_targets:
            return None
        once = encoder_operations(teacher) + plan.forms_of_label * decoder_operations(teacher)
        return plan.kept * once / machine.operations

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """The chunks that were kept."""
        from k2d_hf.reporting.stage_facts import kept_chunks

        return kept_chunks(chunks), ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, models, settings, and those of the training to come."""
        parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate, or a run")
        add_model(parser, "--student", help="output of k2d student, or a run: ")
        add_model(parser, "--teacher")
        add_model(parser, "--auxiliary", required=False, help="only with auxiliary_weight above 0: ")
        add_unvalidated(parser)
        add_folder(parser, "folder of the same chunks with soft targets")
        add_settings(parser, TargetsSettings)
        group = parser.add_argument_group("settings of the training to come, the same as for k2d distil")
        add_options(group, DistillationSettings, skip=TRAINING_ALONE)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d targets`."""
        settings = settings_of(arguments, TargetsSettings, runs_model=True)
        training = read_distil(given_options(arguments, DistillationSettings), where=arguments.command)
        if "encoder_states_dir" not in training:
            training["keep_encoder_states"] = False  # what this command has to resume is gone when it is done
        output = arguments.output
        check_output(output)
        validated = training_chunks(arguments, "validated")
        teacher, untrained = model_of(arguments.teacher), model_of(arguments.student, "student-before")
        auxiliary = model_of(arguments.auxiliary) if arguments.auxiliary else None
        perform(
            arguments,
            lambda progress: targets(
                validated,
                untrained.path,
                teacher,
                auxiliary,
                settings,
                training,
                progress,
                language=None,
                output=output,
                resume=beside(output, "resume"),
            ),
        )


def auxiliary_in_loss(run: RunState) -> str | None:
    """Identity of the auxiliary, where the loss has a KL from it."""
    return weights_of(run.auxiliary.path) if run.recipe.distil.get("auxiliary_weight") else None


def reason_to_skip_targets(run: RunState) -> str | None:
    """Why soft targets are not to be written; None if they are."""
    if run.recipe.targets.enabled is not None:
        return None if run.recipe.targets.enabled else "targets.enabled is false"
    from k2d_hf.data.chunk_files import kept_of, load_chunks
    from k2d_hf.distillation.targets.encoder_states import epochs_of

    arguments = training_arguments(run.recipe.distil, run.resume / "unused", resume=run.resume, language=None)
    if not arguments.kl_weight and not arguments.auxiliary_weight:
        return "the loss has no KL"
    if setting := keeps_teacher(run.recipe.distil):
        return f"{setting} keeps the teacher in memory"
    kept, _ = kept_of(load_chunks(run.folder / "validated"))
    return None if epochs_of(arguments, kept) > 1 else "no chunk is seen twice"


def targets(
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint,
    auxiliary: Checkpoint | None,
    settings: TargetsSettings,
    training: Mapping[str, Any],
    progress: ProgressLine,
    *,
    language: str | None,
    output: Path,
    resume: Path,
) -> str:
    """The chunks of `validated` with soft targets in `output`, for the training that `training` describes.

    Where the student will share the teacher's frozen encoder, the encoder's states are kept in the folder `resume`.
    """
    from k2d_hf.data.chunk_files import load_chunks
    from k2d_hf.distillation.batches.collator import default_collator
    from k2d_hf.distillation.loss.losses import check_vocabulary
    from k2d_hf.distillation.models import same_weights
    from k2d_hf.distillation.targets.encoder_states import lack_of_disk
    from k2d_hf.distillation.targets.targets import write_soft_targets
    from k2d_hf.distillation.targets.writer import TargetWriter
    from k2d_hf.files.arrow import join_files
    from k2d_hf.models import load_whisper
    from k2d_hf.models.processors import load_processor

    started = time.perf_counter()
    chunks = load_chunks(validated)
    arguments = training_arguments(training, resume / "unused", resume=resume, language=language)
    untrained, model = load_whisper(student_dir), load_whisper(teacher.path)
    check_vocabulary("teacher", model.config.vocab_size, untrained.config.vocab_size)
    collator = default_collator(load_processor(student_dir), arguments, untrained)
    states: str | None = None
    if (
        arguments.keep_encoder_states
        and arguments.freeze_encoder
        and same_weights(untrained.model.encoder, model.model.encoder)
        and not lack_of_disk(len(chunks), model.config, Path(str(arguments.encoder_states_dir)))
    ):
        states = arguments.encoder_states_dir
    del untrained
    progress.start(len(chunks), "chunks")
    in_loss = auxiliary if auxiliary is not None and arguments.auxiliary_weight else None
    models = [checkpoint_fingerprint(one.path) for one in (teacher, in_loss) if one is not None]

    def place(depends: Mapping[str, Any]) -> Path:
        return unfinished(resume, "targets", key_of(__version__, models, depends))

    writer = TargetWriter(
        model,
        collator,
        settings,
        auxiliary=str(in_loss.path) if in_loss is not None else None,
        temperature=arguments.temperature,
        encoder_states_dir=states,
        on_progress=progress.advance,
    )
    files, features = write_soft_targets(chunks, writer, place)
    join_files(files, features, output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    kept = ", encoder states kept" if states else ""
    stored = "hidden states" if settings.kind == "hidden" else f"{settings.k} tokens a position"
    return f"{stored}, {size / 1e6:.0f} MB ({time.perf_counter() - started:.0f} s{kept})"
