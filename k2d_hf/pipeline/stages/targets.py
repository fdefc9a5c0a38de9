"""Stage 3, where chunks are seen more than once: the teacher's soft targets are stored, so that it runs once."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k2d_hf.data.chunk_files import kept_of, load_chunks
from k2d_hf.distillation.settings import (
    TRAINING_ALONE,
    DistillationSettings,
    chunks_in_epoch,
    deciding_targets,
    keeps_teacher,
)
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.files.resuming import key_of, unfinished
from k2d_hf.files.settings import add_options, deciding, given_options
from k2d_hf.models import load_whisper
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.processors import load_processor
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoder_operations, encoder_operations
from k2d_hf.pipeline.recipe import Recipe, read_distil
from k2d_hf.pipeline.run_state import Job, RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.training import add_unvalidated, training_arguments, training_chunks
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import kept_chunks
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.version import __version__


class Targets(Stage, command.Command):
    """Chunks to the same chunks with soft targets (K2D, stage 3)."""

    name = "targets"
    summary = (
        "Store the teacher's hidden states (or its top tokens) for each label, so that k2d distil needs no teacher."
    )
    output = "targets"
    runs_model = True

    def lacks(self, recipe: Recipe) -> list[str]:
        """Nothing where there are to be none."""
        return [] if recipe.targets.enabled is False else super().lacks(recipe)

    def depends(self, run: RunState) -> list[Any]:
        """Settings, chunks, the models; of the student what it has of the teacher."""
        recipe = run.recipe
        wanted = [deciding(recipe.targets), deciding_targets(recipe.distil), reason_to_skip_targets(run) is None]
        labels = run.ran("validate", *(["mix"] if recipe.sources else []))
        encoder = [recipe.student.encoder_layers, recipe.student.encoder_neurons]
        models = [weights_of(run.teacher.path), encoder, auxiliary_in_loss(run)]
        return [wanted, recipe.language, models, labels]

    def run(self, run: RunState, job: Job) -> str:
        """Write the chunks with soft targets, or an empty folder where there are to be none."""
        shutil.rmtree(job.output, ignore_errors=True)
        if reason := reason_to_skip_targets(run):
            job.output.mkdir()
            return f"none: {reason}"
        models = run.folder / "student-before", run.teacher, run.auxiliary
        return targets(run.folder / run.recipe.labels, *models, run.recipe.targets, run.recipe.distil, job)

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of one forward pass of the teacher over each chunk, in each form of its label."""
        teacher = plan.teacher.shape
        if teacher is None or plan.student is None or plan.learned is None or not plan.has_targets:
            return None
        once = encoder_operations(teacher) + plan.forms_of_label * decoder_operations(teacher)
        return plan.learned * once / machine.operations

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """The chunks that were kept."""
        return kept_chunks(chunks), ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, models, settings, and those of the training to come."""
        parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate, or a run")
        command.add_model(parser, "--student", help="output of k2d student, or a run: ")
        command.add_model(parser, "--teacher")
        command.add_model(parser, "--auxiliary", required=False, help="only with auxiliary_weight above 0: ")
        add_unvalidated(parser)
        command.add_folder(parser, "folder of the same chunks with soft targets")
        command.add_settings(parser, TargetsSettings)
        group = parser.add_argument_group("settings of the training to come, the same as for k2d distil")
        add_options(group, DistillationSettings, skip=TRAINING_ALONE)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d targets`."""
        settings = command.settings_of(arguments, TargetsSettings, runs_model=True)
        training = read_distil(given_options(arguments, DistillationSettings), where=arguments.command)
        if "encoder_states_dir" not in training:
            training["keep_encoder_states"] = False  # what this command has to resume is gone when it is done
        command.check_output(arguments.output, resumes=True)
        validated = training_chunks(arguments, "mixed", "validated")
        teacher, untrained = command.model_of(arguments.teacher), command.model_of(arguments.student, "student-before")
        auxiliary = command.model_of(arguments.auxiliary) if arguments.auxiliary else None
        models = untrained.path, teacher, auxiliary
        command.perform(arguments, lambda job: targets(validated, *models, settings, training, job))


def auxiliary_in_loss(run: RunState) -> str | None:
    """Identity of the auxiliary, where the loss has a KL from it."""
    return weights_of(run.auxiliary.path) if run.recipe.distil.get("auxiliary_weight") else None


def reason_to_skip_targets(run: RunState) -> str | None:
    """Why soft targets are not to be written; None if they are."""
    if run.recipe.targets.enabled is not None:
        return None if run.recipe.targets.enabled else "targets.enabled is false"
    from k2d_hf.distillation.targets.encoder_states import epochs_of

    arguments = training_arguments(run.recipe.distil, run.resume / "unused", resume=run.resume, language=None)
    if not arguments.kl_weight and not arguments.auxiliary_weight:
        return "the loss has no KL"
    if setting := keeps_teacher(run.recipe.distil):
        return f"{setting} keeps the teacher in memory"
    kept, _ = kept_of(load_chunks(run.folder / "validated"))
    counts: dict[Any, int] = {None: kept, **{name: len(chunks) for name, (chunks, _) in run.labelled.items()}}
    in_epoch = sum(chunks_in_epoch(counts, run.recipe.training.get("shares")).values())
    return None if epochs_of(arguments, in_epoch) > 1 else "no chunk is seen twice"


def targets(
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint,
    auxiliary: Checkpoint | None,
    settings: TargetsSettings,
    training: Mapping[str, Any],
    job: Job,
) -> str:
    """The chunks of `validated` with soft targets, for the training that `training` describes.

    Where the student will share the teacher's frozen encoder, the encoder's states are kept for it.
    """
    from k2d_hf.distillation.batches.collator import default_collator
    from k2d_hf.distillation.loss.losses import check_vocabulary
    from k2d_hf.distillation.models import same_weights
    from k2d_hf.distillation.targets.encoder_states import lack_of_disk
    from k2d_hf.distillation.targets.targets import write_soft_targets
    from k2d_hf.distillation.targets.writer import TargetWriter
    from k2d_hf.files.arrow import join_files

    started = time.perf_counter()
    chunks = load_chunks(validated)
    arguments = training_arguments(training, job.resume / "unused", resume=job.resume, language=job.language)
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
    job.progress.start(len(chunks), "chunks")
    in_loss = auxiliary if auxiliary is not None and arguments.auxiliary_weight else None
    models = [checkpoint_fingerprint(one.path) for one in (teacher, in_loss) if one is not None]

    def place(depends: Mapping[str, Any]) -> Path:
        return unfinished(job.resume, "targets", key_of(__version__, models, depends))

    writer = TargetWriter(
        model,
        collator,
        settings,
        auxiliary=str(in_loss.path) if in_loss is not None else None,
        temperature=arguments.temperature,
        encoder_states_dir=states,
        on_progress=job.progress.advance,
    )
    files, features = write_soft_targets(chunks, writer, place)
    join_files(files, features, job.output)
    size = sum(file.stat().st_size for file in job.output.rglob("*") if file.is_file())
    kept = ", encoder states kept" if states else ""
    stored = "hidden states" if settings.kind == "hidden" else f"{settings.k} tokens a position"
    return f"{stored}, {size / 1e6:.0f} MB ({time.perf_counter() - started:.0f} s{kept})"
