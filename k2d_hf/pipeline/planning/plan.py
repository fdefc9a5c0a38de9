"""The plan of a run: stages, sizes, steps, disk and hours, from a recipe and what is on this disk."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from k2d_hf.data.chunk_files import kept_of, load_chunks
from k2d_hf.distillation.rehearsal import on_any_machine
from k2d_hf.errors import K2DError
from k2d_hf.models.inspect import KnownModel, look_at
from k2d_hf.models.shapes import WhisperShape
from k2d_hf.pipeline.planning.data_facts import DataFacts, check_references, look_at_data
from k2d_hf.pipeline.planning.throughput import (
    CHUNK_SPEECH,
    GPU,
    LABEL_TOKENS,
    ONE_BY_ONE,
    Throughput,
    cores,
    decoder_operations,
    decoding_seconds,
    encoder_operations,
    training_operations,
)
from k2d_hf.pipeline.preflight import (
    check_adapters,
    check_languages,
    check_models,
    recipe_lacks,
    student_shape,
    training_lacks,
)
from k2d_hf.pipeline.recipe import TEACHER, Recipe
from k2d_hf.pipeline.run import finished_stages, planned_stages
from k2d_hf.pipeline.stages.distillation import training_arguments
from k2d_hf.validation.kept_share import PAPER_KEPT

SUPPOSED_SPEECH = 1000 * 3600.0  # seconds, where there are no recordings to count
FLOAT32, FLOAT16 = 4, 2  # bytes
SHARE_OF_DISK = 0.5  # of what is free, at most, for encoder states


@dataclass(frozen=True)
class PlannedStage:
    """A stage: its line of result if it is up to date, else the seconds that it takes on each machine."""

    name: str
    finished: str | None
    seconds: tuple[float, ...] | None  # None where it takes no time to speak of, or none that can be told
    supposed: bool = False  # for a thousand hours of speech, as the recordings are not here


@dataclass(frozen=True)
class Plan:
    """Everything that the dry run shows; None where something is not known."""

    recipe: Recipe
    recordings: DataFacts
    evaluation: DataFacts | None
    teacher: KnownModel
    auxiliary: KnownModel
    student: WhisperShape | None
    trained: int | None
    chunks: int | None
    kept: int | None
    counted: bool  # chunks and kept were counted, not estimated
    batch: int
    steps: int | None
    epochs: float | None
    disk: dict[str, float] = field(default_factory=dict)
    free: float = 0.0
    covered: tuple[float, float] | None = None  # seconds of recordings in chunks, and in all, where that was counted
    machines: tuple[Throughput, ...] = ()
    stages: tuple[PlannedStage, ...] = ()
    lacks: tuple[str, ...] = ()  # what the settings need and this machine does not have


def plan_run(recipe: Recipe, *, from_stage: str | None = None) -> Plan:
    """Look at what a recipe names, and plan its run; no weights are loaded, nothing is written.

    Args:
        recipe: what to do, read with `elsewhere`.
        from_stage: this stage and those after it would run again in any case.

    Raises:
        K2DError: for a stage that the recipe does not have, models of which nothing is known, layers that the teacher
            does not have, settings that no machine can run, or data that will not do.
    """
    planned = planned_stages(recipe, from_stage)
    lacks = [*recipe_lacks(recipe), *training_lacks(recipe.distil, "distil.")]
    check_references(recipe)
    teacher = _party("teacher", recipe.teacher)
    auxiliary = _auxiliary(recipe, teacher)
    recordings = look_at_data(recipe.recordings)
    evaluation = None if recipe.evaluation is None else look_at_data(recipe.evaluation)
    finished: dict[str, str] = {}
    if teacher.checkpoint and auxiliary.checkpoint and (recipe.directory / "stages.json").exists():
        finished = finished_stages(recipe, teacher.checkpoint, auxiliary.checkpoint)
    for name in planned[planned.index(from_stage) :] if from_stage else ():
        finished.pop(name, None)
    chunks, kept = _chunks(recipe, recordings, finished)
    arguments = training_arguments(on_any_machine(recipe.distil), Path("unused"), resume=Path("unused"), language=None)
    batch = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    steps, epochs = _steps(arguments, batch, kept)
    student = student_shape(teacher.shape, recipe)
    check_adapters(recipe.distil, student, "distil.")
    if teacher.checkpoint and auxiliary.checkpoint:
        check_models(recipe, teacher.checkpoint, auxiliary.checkpoint)
        check_languages(recipe, teacher.checkpoint, auxiliary.checkpoint)
    plan = Plan(
        recipe, recordings, evaluation, teacher, auxiliary, student, _trained(arguments, recipe, student),
        chunks, kept, "validate" in finished, batch, steps, epochs,
        covered=_covered(recipe.directory) if "label" in finished else None,
        free=float(shutil.disk_usage(_existing(recipe.directory)).free),
        machines=(cores(os.cpu_count() or 1), GPU), lacks=tuple(lacks),
    )  # fmt: skip
    plan = replace(plan, disk=_disk(plan, arguments))
    return replace(plan, stages=_stages(plan, arguments, finished))


def _party(party: str, sources: str | list[str]) -> KnownModel:
    try:
        return look_at(sources)
    except K2DError as error:
        raise K2DError(f"{party}: {error}") from None


def _auxiliary(recipe: Recipe, teacher: KnownModel) -> KnownModel:
    """As a run finds it: the teacher where nothing before it is to be had, which a name alone is not."""
    sources = [recipe.auxiliary] if isinstance(recipe.auxiliary, str) else list(recipe.auxiliary)
    if TEACHER not in sources:
        return _party("auxiliary", sources)
    for source in sources[: sources.index(TEACHER)]:
        try:
            found = look_at(source)
        except K2DError:
            continue
        if found.available:
            return found
    return teacher


def _chunks(recipe: Recipe, recordings: DataFacts, finished: dict[str, str]) -> tuple[int | None, int | None]:
    if "validate" in finished:
        validated = load_chunks(recipe.directory / "validated")
        return len(validated), kept_of(validated)[0]
    chunks = None if recordings.seconds is None else max(1, round(recordings.seconds / CHUNK_SPEECH))
    if "label" in finished:
        chunks = len(load_chunks(recipe.directory / "chunks"))
    return chunks, None if chunks is None else max(1, round(chunks * PAPER_KEPT[recipe.validate.metric]))


def _covered(directory: Path) -> tuple[float, float] | None:
    """What labelling noted; None where a version that did not has done it."""
    try:
        figures = json.loads((directory / "labelling.json").read_text(encoding="utf-8"))
        return float(figures["seconds_in_chunks"]), float(figures["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _steps(arguments: Any, batch: int, kept: int | None) -> tuple[int | None, float | None]:
    if arguments.max_steps > 0:
        return arguments.max_steps, None if kept is None else arguments.max_steps * batch / kept
    if kept is None:
        return None, arguments.num_train_epochs
    return math.ceil(arguments.num_train_epochs * math.ceil(kept / batch)), arguments.num_train_epochs


def _trained(arguments: Any, recipe: Recipe, student: WhisperShape | None) -> int | None:
    if student is None or recipe.distil.get("peft"):
        return None
    count = student.decoder_parameters if arguments.freeze_encoder else student.parameters
    return count - (student.vocab_size * student.d_model if arguments.freeze_embeddings else 0)


def _has_targets(plan: Plan, arguments: Any) -> bool:
    enabled = plan.recipe.targets.enabled
    worth = bool(arguments.kl_weight or arguments.auxiliary_weight) and (plan.epochs or 0) > 1
    worth = worth and not arguments.encoder_weight
    return worth if enabled is None else enabled


def _forms(arguments: Any) -> int:
    """In how many forms a label can come: with timestamps or plain, with a prompt or without."""
    return (2 if 0 < arguments.timestamp_probability < 1 else 1) * (2 if arguments.previous_text_probability else 1)


def _shares_encoder(plan: Plan, arguments: Any) -> bool:
    return bool(arguments.freeze_encoder) and plan.recipe.student.encoder_layers is None


def _keeps_states(plan: Plan, arguments: Any) -> float:
    """Bytes of the encoder states that are kept; 0 where none are."""
    wanted = arguments.keep_encoder_states and _shares_encoder(plan, arguments) and not arguments.auxiliary_weight
    if not wanted or plan.kept is None or plan.student is None or (plan.epochs or 0) <= 1:
        return 0.0
    needed = float(plan.kept * plan.student.frames * plan.student.d_model * FLOAT16)
    return needed if needed <= SHARE_OF_DISK * plan.free else 0.0


def _disk(plan: Plan, arguments: Any) -> dict[str, float]:
    """Bytes by what they are for."""
    disk: dict[str, float] = {}
    for model in dict.fromkeys((plan.teacher.name, plan.auxiliary.name)):
        party = plan.teacher if model == plan.teacher.name else plan.auxiliary
        if party.checkpoint is None and party.shape is not None:
            disk[f"{model} (cache)"] = party.shape.parameters * FLOAT32
    if plan.student is not None:
        size = plan.student.parameters * FLOAT32
        disk["student, before and after"] = 2.0 * size
        if str(arguments.save_strategy) not in ("no", "SaveStrategy.NO"):
            one = size + 2 * FLOAT32 * (plan.trained or 0)  # Adam's two moments
            disk["training checkpoints"] = float(one * ((arguments.save_total_limit or 2) + 1))
    if states := _keeps_states(plan, arguments):
        disk["encoder states"] = states
    if _has_targets(plan, arguments) and plan.kept is not None and plan.student is not None:
        settings = plan.recipe.targets
        position = plan.student.d_model * FLOAT16 if settings.kind == "hidden" else settings.k * (FLOAT32 + FLOAT16)
        disk["soft targets"] = float(plan.kept * _forms(arguments) * LABEL_TOKENS * position)
    return disk


def _stages(plan: Plan, arguments: Any, finished: dict[str, str]) -> tuple[PlannedStage, ...]:
    stages = []
    for name in planned_stages(plan.recipe):
        known = [_seconds(name, plan, arguments, machine) for machine in plan.machines]
        seconds = None if any(value is None for value in known) else tuple(value or 0.0 for value in known)
        supposed = plan.recordings.seconds is None and name in ("label", "validate")
        stages.append(PlannedStage(name, finished.get(name), seconds, supposed))
    return tuple(stages)


def _seconds(name: str, plan: Plan, arguments: Any, machine: Throughput) -> float | None:
    recipe, teacher, student, helper = plan.recipe, plan.teacher.shape, plan.student, plan.auxiliary.shape
    speech = plan.recordings.seconds if plan.recordings.seconds is not None else SUPPOSED_SPEECH
    if teacher is None or student is None:
        return None
    if name == "label":
        return decoding_seconds(machine, teacher, speech, beam_size=recipe.label.beam_size)
    if name == "validate" and helper is not None:
        return decoding_seconds(machine, helper, speech, beam_size=recipe.validate.beam_size)
    if name == "targets" and _has_targets(plan, arguments) and plan.kept is not None:
        once = encoder_operations(teacher) + _forms(arguments) * decoder_operations(teacher)
        return plan.kept * once / machine.operations
    if name == "distil" and plan.steps is not None:
        return _training(plan, arguments, student, teacher) / machine.operations
    if name == "evaluate" and plan.evaluation is not None and plan.evaluation.seconds is not None:
        models = [teacher, student, student] if recipe.evaluate.before else [teacher, student]
        beams = recipe.evaluate.beam_size
        once = sum(decoding_seconds(machine, model, plan.evaluation.seconds, beam_size=beams) for model in models)
        count = plan.evaluation.recordings or 1
        passes = recipe.evaluate.passes(count) / count
        return once * passes * (ONE_BY_ONE if recipe.evaluate.batch_size == 1 else 1.0)
    return None


def _training(plan: Plan, arguments: Any, student: WhisperShape, teacher: WhisperShape) -> float:
    """Operations of the whole training."""
    stored = _has_targets(plan, arguments)
    states = bool(_keeps_states(plan, arguments))
    passes = 0.0 if states else 1.0
    if not stored and not _shares_encoder(plan, arguments):
        passes += encoder_operations(teacher) / encoder_operations(student)
    chunk = training_operations(
        student, None if stored else teacher, encoder_passes=passes, encoder_trains=not arguments.freeze_encoder
    )
    if arguments.auxiliary_weight and not stored and plan.auxiliary.shape is not None:
        chunk += encoder_operations(plan.auxiliary.shape) + decoder_operations(plan.auxiliary.shape)
    once = (plan.kept or 0) * encoder_operations(student) if states and not stored else 0.0
    return (plan.steps or 0) * plan.batch * chunk + once


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
