"""Stage 3, its end: the student learns from labels and soft targets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.distillation.settings import AGREEMENT, DistillationSettings, deciding_training, keeps_teacher
from k2d_hf.files.folders import write_folder
from k2d_hf.files.json_files import write_json
from k2d_hf.files.processes import is_main_process, process_count
from k2d_hf.files.resuming import discard, folder_key, key_of, unfinished
from k2d_hf.files.settings import assign, given_options
from k2d_hf.models import load_whisper
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.inspect import inspect_model
from k2d_hf.models.processors import load_processor
from k2d_hf.models.student_folder import save_student
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoder_operations, encoder_operations, training_operations
from k2d_hf.pipeline.preflight import check_adapters, training_lacks
from k2d_hf.pipeline.recipe import read_distil
from k2d_hf.pipeline.run_state import Job, RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.stages.targets import auxiliary_in_loss, reason_to_skip_targets
from k2d_hf.pipeline.training import (
    add_trainer_options,
    add_unvalidated,
    peft_config,
    training_arguments,
    training_chunks,
)
from k2d_hf.publishing.card_names import has_id, public_name
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import read_json, training_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding
from k2d_hf.version import __version__


class Distil(Stage, command.Command):
    """Untrained student and chunks to a trained student (K2D, stage 3)."""

    name = "distil"
    summary = "Train a student on the chunks that validation kept."
    output = "student/model.safetensors"

    def check(self, run: RunState) -> None:
        """Rehearse training on a tiny model."""
        command.check_machine(training_lacks(run.recipe.distil, "distil."))

    def depends(self, run: RunState) -> list[Any]:
        """Settings, the student before, the chunks and their targets, the auxiliary where the loss has it."""
        settings = [deciding_training(run.recipe.training), run.recipe.language]
        labels = ["validate", *(["mix"] if run.recipe.sources else [])]
        models = [auxiliary_in_loss(run), weights_of(run.folder / "student-before")]
        return [*settings, models, run.ran("student", *labels, "targets")]

    def run(self, run: RunState, job: Job) -> str:
        """Write the trained student."""
        stored = reason_to_skip_targets(run) is None and not keeps_teacher(run.recipe.distil)
        return distil(
            run.folder / ("targets" if stored else run.recipe.labels),
            run.folder / "student-before",
            None if stored else run.teacher,
            None if stored else run.auxiliary,
            run.recipe.training,
            replace(job, output=run.folder / "student"),
            embedding_of=run.teacher if stored and not run.recipe.student.has_teachers_embedding else None,
        )

    def settle(self, run: RunState) -> None:
        """Drop checkpoints, which were good for a crash; have the student decode as this recipe evaluates it."""
        discard(run.resume, self.name)
        carry_decoding(run.folder / "student", run.recipe.decoding)

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of all steps, and of the encoder's pass where its states are kept."""
        student, teacher, auxiliary = plan.student, plan.teacher.shape, plan.auxiliary.shape
        if student is None or teacher is None or plan.steps is None:
            return None
        arguments, stored, states = plan.arguments, plan.has_targets, plan.encoder_states > 0
        passes = 0.0 if states else 1.0
        if not stored and not plan.shares_encoder:
            passes += encoder_operations(teacher) / encoder_operations(student)
        chunk = training_operations(
            student, None if stored else teacher, encoder_passes=passes, encoder_trains=not arguments.freeze_encoder
        )
        if arguments.auxiliary_weight and not stored and auxiliary is not None:
            chunk += encoder_operations(auxiliary) + decoder_operations(auxiliary)
        once = (plan.learned or 0) * encoder_operations(student) if states and not stored else 0.0
        return (plan.steps * plan.batch * chunk + once) / machine.operations

    def noted_seconds(self, folder: Path) -> float | None:
        """As the trainer noted it."""
        return read_json(folder / "student" / "training_facts.json", {}).get("seconds")

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Chunks and steps."""
        return training_facts(folder, chunks)

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, models and settings, the Trainer's among them."""
        parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate or k2d targets, or a run")
        command.add_model(parser, "--student", help="output of k2d student, or a run: ")
        command.add_model(parser, "--teacher", required=False, help="not needed with soft targets: ")
        command.add_model(parser, "--auxiliary", required=False, help="only with auxiliary_weight above 0: ")
        add_unvalidated(parser)
        command.add_folder(parser, "folder of the student's checkpoint, with processor and generation config")
        command.add_settings(parser, DistillationSettings)
        parser.more_options = add_trainer_options
        parser.epilog = (
            "Every field of transformers' Seq2SeqTrainingArguments is an option too, such as --max-steps 1000 "
            "--learning-rate 1e-4 --per-device-train-batch-size 8 (underscores will do), and a name for --set; "
            "--set peft.r=16 trains adapters (LoRA)."
        )

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d distil`."""
        from k2d_hf.distillation.arguments import K2DTrainingArguments

        where = f"{arguments.command}: "
        given = assign(given_options(arguments, K2DTrainingArguments), arguments.sets)
        settings = read_distil(given, where=arguments.command)
        if process_count() == 1:  # of several, all find the same, and the first step is near
            command.check_machine(training_lacks(settings, where))
        command.check_output(arguments.output, resumes=True)
        validated = training_chunks(arguments, *([] if arguments.teacher else ["targets"]), "mixed", "validated")
        if settings.get("token_weighting") == AGREEMENT:
            settings = {**command.validation_of_run(validated, "espeak_language"), **settings}
        untrained = command.model_of(arguments.student, "student-before")
        check_adapters(settings, inspect_model(str(untrained.path)).shape, where)
        teacher = command.model_of(arguments.teacher) if arguments.teacher else None
        auxiliary = command.model_of(arguments.auxiliary) if arguments.auxiliary else None
        models = untrained.path, teacher, auxiliary
        command.perform(arguments, lambda job: distil(validated, *models, settings, job))


def distil(
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint | None,
    auxiliary: Checkpoint | None,
    settings: Mapping[str, Any],
    job: Job,
    *,
    embedding_of: Checkpoint | None = None,
) -> str:
    """Train the student of `student_dir` on the chunks kept in `validated`; the output is a complete checkpoint.

    Without a teacher (or an auxiliary that the loss needs) the chunks must hold soft targets. Where these are hidden
    states and the student does not begin with the teacher's embedding, `embedding_of` is the teacher all the same.

    A run that was interrupted goes on from the last complete checkpoint. These stay, and so do encoder states: until
    the caller has noted that the stage is done, it may be run again.
    Of several processes (torchrun) each trains its share, and the first writes.
    """
    from transformers import PrinterCallback

    from k2d_hf.distillation.batches.mixing import described_source
    from k2d_hf.distillation.checkpoints import room_for
    from k2d_hf.distillation.measures import TrainingProgress
    from k2d_hf.distillation.models import output_embedding
    from k2d_hf.distillation.sharding import gather_student
    from k2d_hf.distillation.trainer import K2DTrainer
    from k2d_hf.publishing.card_rendering import render_card

    chunks = load_chunks(validated)
    models = [checkpoint_fingerprint(path) for path in (student_dir, teacher.path if teacher else None) if path]
    in_loss = auxiliary if settings.get("auxiliary_weight") else None
    models += [checkpoint_fingerprint(in_loss.path)] if in_loss is not None else []
    key = key_of(__version__, models, job.language, deciding_training(settings), folder_key(validated))
    checkpoints = unfinished(job.resume, "distil", key)
    arguments = training_arguments(settings, checkpoints, resume=job.resume, language=job.language)
    training = TrainingProgress(job.progress)
    processor = load_processor(student_dir)
    trainer = K2DTrainer(
        str(student_dir),
        arguments,
        teacher_model=str(teacher.path) if teacher is not None else None,
        auxiliary_model=str(in_loss.path) if in_loss is not None else None,
        teacher_embedding=None if embedding_of is None else output_embedding(load_whisper(embedding_of.path)).detach(),
        train_dataset=chunks,
        processing_class=processor,
        peft_config=peft_config(settings.get("peft")),
        callbacks=[training],
    )
    trainer.on_encoder_states = training.count_encoder_states
    trainer.remove_callback(PrinterCallback)  # the bar and the log of training show what it prints
    trainer.train(resume_from_checkpoint=trainer.last_complete_checkpoint())
    card: Any = trainer.card.card_data()
    card.adapters_alone = False  # they are merged below
    if teacher is not None:
        card.teacher, card.base_model = public_name(teacher), teacher.name if has_id(teacher) else None
    trained = gather_student(trainer.model, trainer.accelerator)

    def write(folder: Path) -> None:
        merged = trained.merge_and_unload() if settings.get("peft") else trained
        save_student(merged, processor, folder)
        carry_decoding(folder, NOT_EVALUATED, replace=False)
        write_json(folder / "training_log.json", trainer.state.log_history)
        write_json(folder / "training_facts.json", asdict(card.training))
        render_card(card).save(folder / "README.md")

    if is_main_process():
        with room_for(job.output, sum(weights.numel() * weights.element_size() for weights in trained.parameters())):
            write_folder(job.output, write, replace=True)
    trainer.accelerator.end_training()  # else threads of a group of processes now and then abort the program's end
    shared = "encoder shared with the teacher" if trainer.shares_encoder else "encoder of its own"
    shared = "soft targets, no teacher in memory" if trainer.stored else shared
    mixed = [] if trainer.mixture is None else map(described_source, trainer.mixture.facts())
    return "  ".join([training.summary(), shared, *(["; ".join(mixed)] if trainer.mixture is not None else [])])
