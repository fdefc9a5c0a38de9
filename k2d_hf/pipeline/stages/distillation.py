"""Stage 3 on disk: teacher to student, chunks to soft targets, both to a trained student."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import kept_of, load_chunks
from k2d_hf.distillation.settings import deciding_training
from k2d_hf.evaluation.table import millions
from k2d_hf.files.arrow import join_files
from k2d_hf.files.folders import write_folder
from k2d_hf.files.json_files import write_json
from k2d_hf.files.processes import is_main_process
from k2d_hf.files.resuming import folder_key, key_of, unfinished
from k2d_hf.models import Checkpoint, load_whisper
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.processors import load_processor
from k2d_hf.models.student_folder import save_student
from k2d_hf.pipeline.recipe import StudentSettings, TargetsSettings
from k2d_hf.terminal.console import Stage
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from k2d_hf.distillation.arguments import K2DTrainingArguments


def student(teacher: Checkpoint, settings: StudentSettings, *, language: str | None, output: Path) -> str:
    """The untrained student, with its processor, in `output`."""

    from k2d_hf.models.parts import layer_indices
    from k2d_hf.models.student import create_student

    model = load_whisper(teacher.path)
    processor = load_processor(teacher.path)
    created = create_student(model, settings.decoder_layers, settings.encoder_layers, language=language)
    created.config.name_or_path = teacher.name

    write_folder(output, lambda folder: save_student(created, processor, folder), replace=True)
    total = model.config.decoder_layers
    kept = ",".join(map(str, layer_indices(settings.decoder_layers, total)))
    sizes = f"{millions(model.num_parameters())} -> {millions(created.num_parameters())} parameters"
    return f"decoder layers {kept} of {total}; {sizes}"


def targets(
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint,
    auxiliary: Checkpoint | None,
    settings: TargetsSettings,
    training: Mapping[str, Any],
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    resume: Path,
) -> str:
    """The chunks of `validated` with soft targets in `output`, for the training that `training` describes.

    Where the student will share the teacher's frozen encoder, the encoder's states are kept in the folder `resume`.
    """

    from k2d_hf.distillation.batches.collator import default_collator
    from k2d_hf.distillation.loss.losses import check_vocabulary
    from k2d_hf.distillation.models import same_weights
    from k2d_hf.distillation.targets.encoder_states import lack_of_disk
    from k2d_hf.distillation.targets.targets import write_soft_targets

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
    stage.start(len(chunks), "chunks")
    helps = auxiliary if auxiliary is not None and arguments.auxiliary_weight else None
    parties = [checkpoint_fingerprint(party.path) for party in (teacher, helps) if party is not None]
    options = {name: value for name, value in vars(settings).items() if name != "enabled"}

    def place(depends: Mapping[str, Any]) -> Path:
        return unfinished(resume, "targets", key_of(__version__, parties, depends))

    files, features = write_soft_targets(
        chunks,
        model,
        collator,
        auxiliary=str(helps.path) if helps is not None else None,
        temperature=arguments.temperature,
        encoder_states_dir=states,
        place=place,
        on_progress=stage.advance,
        **options,
    )
    join_files(files, features, output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    kept = ", encoder states kept" if states else ""
    stored = "hidden states" if settings.kind == "hidden" else f"{settings.k} tokens a position"
    return f"{stored}, {size / 1e6:.0f} MB ({time.perf_counter() - started:.0f} s{kept})"


def worth_targets(validated: Path, training: Mapping[str, Any], *, resume: Path) -> str | None:
    """Why soft targets are not worth writing; None if they are."""
    from k2d_hf.distillation.targets.encoder_cache import epochs_of

    arguments = training_arguments(training, resume / "unused", resume=resume, language=None)
    if not arguments.kl_weight and not arguments.auxiliary_weight:
        return "the loss has no KL"
    if arguments.encoder_weight:
        return "encoder_weight keeps the teacher in memory"
    kept, _ = kept_of(load_chunks(validated))
    return None if epochs_of(arguments, kept) > 1 else "no chunk is seen twice"


def distil(
    validated: Path,
    student_dir: Path,
    teacher: Checkpoint | None,
    auxiliary: Checkpoint | None,
    settings: Mapping[str, Any],
    stage: Stage,
    *,
    language: str | None,
    output: Path,
    resume: Path,
) -> str:
    """Train the student of `student_dir` on the chunks kept in `validated`; `output` becomes a complete checkpoint.

    Without a teacher (or an auxiliary that the loss needs) the chunks must hold soft targets.

    Training checkpoints and encoder states go to the folder `resume`; a run that was interrupted goes on from the last
    checkpoint that is whole. They stay there: until the caller has noted that the stage is done, it may be run again.
    Of several processes (torchrun) each trains its share, and the first writes.
    """
    from transformers import PrinterCallback

    from k2d_hf.distillation.checkpoints import room_for
    from k2d_hf.distillation.progress import TrainingProgress
    from k2d_hf.distillation.sharding import gather_student
    from k2d_hf.distillation.trainer import K2DTrainer
    from k2d_hf.publishing.card_names import has_id, public_name
    from k2d_hf.publishing.card_rendering import render_card

    chunks = load_chunks(validated)
    parties = [checkpoint_fingerprint(path) for path in (student_dir, teacher.path if teacher else None) if path]
    helps = auxiliary if settings.get("auxiliary_weight") else None
    parties += [checkpoint_fingerprint(helps.path)] if helps is not None else []
    key = key_of(__version__, parties, language, deciding_training(settings), folder_key(validated))
    checkpoints = unfinished(resume, "distil", key)
    arguments = training_arguments(settings, checkpoints, resume=resume, language=language)
    progress = TrainingProgress(stage)
    processor = load_processor(student_dir)
    trainer = K2DTrainer(
        str(student_dir),
        arguments,
        teacher_model=str(teacher.path) if teacher is not None else None,
        auxiliary_model=str(helps.path) if helps is not None else None,
        train_dataset=chunks,
        processing_class=processor,
        peft_config=peft_config(settings.get("peft")),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)  # the bar and the log of training show what it prints
    trainer.train(resume_from_checkpoint=trainer.last_whole_checkpoint())
    card: Any = trainer.card.card_data()
    card.adapters_alone = False  # they are merged below
    if teacher is not None:
        card.teacher, card.base_model = public_name(teacher), teacher.name if has_id(teacher) else None
    trained = gather_student(trainer.model, trainer.accelerator)

    def write(folder: Path) -> None:
        whole = trained.merge_and_unload() if settings.get("peft") else trained
        save_student(whole, processor, folder)
        carry_decoding(folder, NOT_EVALUATED, replace=False)
        write_json(folder / "training_log.json", trainer.state.log_history)
        write_json(folder / "training_facts.json", asdict(card.training))
        render_card(card).save(folder / "README.md")

    if is_main_process():
        with room_for(output, sum(weights.numel() * weights.element_size() for weights in trained.parameters())):
            write_folder(output, write, replace=True)
    shared = "encoder shared with the teacher" if trainer.shares_encoder else "encoder of its own"
    shared = "soft targets, no teacher in memory" if trainer.stored else shared
    return f"{progress.summary()}  {shared}"


def training_arguments(
    settings: Mapping[str, Any], checkpoints: Path, *, resume: Path, language: str | None
) -> K2DTrainingArguments:
    """The Trainer's settings: ours where the recipe has none."""
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    given = {name: value for name, value in settings.items() if name != "peft"}
    defaults = {
        "report_to": "none",
        "save_total_limit": 2,  # one that is whole stays while the next is written
        "logging_steps": 10,
        "logging_first_step": True,
        "disable_tqdm": True,
        "encoder_states_dir": str(resume / "encoder-states"),
    }
    return K2DTrainingArguments(output_dir=str(checkpoints), **{**defaults, "language": language, **given})


def peft_config(settings: Mapping[str, Any] | None) -> Any:
    """The adapters that a recipe's `distil.peft` asks for; None without."""
    if not settings:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"target_modules": ["q_proj", "v_proj"], **settings})
