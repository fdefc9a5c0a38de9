"""`k2d run --dry-run`: the plan of a run, from a recipe and what is on this disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from k2d_hf.data.chunk_files import kept_of, load_chunks
from k2d_hf.distillation.rehearsal import on_any_machine
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.inspect import ModelInfo, inspect_model
from k2d_hf.pipeline.planning.data_facts import DataFacts, check_references, count_given, inspect_data
from k2d_hf.pipeline.planning.plan import Plan, PlannedStage
from k2d_hf.pipeline.planning.throughput import CHUNK_SPEECH, GPU, cores
from k2d_hf.pipeline.preflight import (
    check_adapters,
    check_auxiliaries,
    check_languages,
    check_models,
    check_prompts,
    lost_parts,
    student_shape,
    training_lacks,
)
from k2d_hf.pipeline.prepare import find_data, recipe_lacks
from k2d_hf.pipeline.recipe import TEACHER, Recipe
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.pipeline.stages import planned_stages
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.stages.student import init_sources
from k2d_hf.pipeline.training import training_arguments
from k2d_hf.terminal.console import Console
from k2d_hf.validation.distance import PAPER_KEPT


def plan_run(recipe: Recipe, *, from_stage: str | None = None) -> Plan:
    """Read what a recipe names, and plan its run; no weights are loaded, nothing is written.

    Args:
        recipe: what to do, read with `elsewhere`.
        from_stage: this stage and those after it would run again in any case.

    Raises:
        K2DError: for a stage that the recipe does not have, models of which nothing is known, layers that the teacher
            does not have, settings that no machine can run, or data that will not do.
    """
    planned = planned_stages(recipe, from_stage)
    names = [stage.name for stage in planned]
    lacks = [*recipe_lacks(recipe), *training_lacks(recipe.distil, "distil.")]
    check_references(recipe)
    with prefixed("teacher: "):
        teacher = inspect_model(recipe.teacher)
    auxiliary = _auxiliary(recipe.auxiliary, teacher, "auxiliary")
    more = tuple(_auxiliary(one, teacher, "more_auxiliaries") for one in recipe.more_auxiliaries)
    sources = init_sources(recipe)
    with prefixed("student.init: "):
        origin = teacher if sources is None else inspect_model(sources)
    with prefixed("evaluate.adapted_from: "):
        original = teacher if recipe.evaluate.adapted_from is None else inspect_model(recipe.evaluate.adapted_from)
    recordings = inspect_data(recipe.recordings)
    given = count_given(recipe)
    evaluation = {name: inspect_data(data) for name, data in recipe.evaluation_sets.items()}
    named = (teacher, auxiliary, origin, original, *more)
    models = [model.checkpoint for model in named if model.checkpoint is not None]
    here = len(models) == len(named)  # and not known by their names alone
    finished = _finished_stages(recipe, planned, models) if here else {}
    for name in names[names.index(from_stage) :] if from_stage else ():
        finished.pop(name, None)
    chunks, kept = _chunks(recipe, recordings, finished)
    student = student_shape(origin.shape, recipe)
    check_adapters(recipe.distil, student, "distil.")
    warnings = lost_parts(origin.shape, recipe)
    if here:
        check_models(recipe, *models[:3])
        check_auxiliaries([models[1], *models[4:]])
    if teacher.checkpoint:
        check_prompts(recipe, teacher.checkpoint)
    if teacher.checkpoint and auxiliary.checkpoint:
        others = [model.checkpoint for model in more if model.checkpoint is not None]
        check_languages(recipe, teacher.checkpoint, auxiliary.checkpoint, *others)
    unused, directory = Path("unused"), recipe.directory
    existing = next(folder for folder in (directory, *directory.resolve().parents) if folder.exists())
    plan = Plan(
        recipe, training_arguments(on_any_machine(recipe.distil), unused, resume=unused, language=None),
        recordings, evaluation, teacher, auxiliary, origin, student, chunks, kept, "validate" in finished, more,
        given, original=original,
        free=float(shutil.disk_usage(existing).free),
        covered=_covered(directory) if "label" in finished else None,
        machines=(cores(os.cpu_count() or 1), GPU), lacks=tuple(lacks),
        warnings=tuple(warnings),
    )  # fmt: skip
    stages = []
    for stage in planned:
        known = [stage.seconds(plan, machine) for machine in plan.machines]
        seconds = None if None in known else tuple(value or 0.0 for value in known)
        supposed = recordings.seconds is None and stage.grows_with_speech
        stages.append(PlannedStage(stage.name, finished.get(stage.name), seconds, supposed))
    return replace(plan, stages=tuple(stages))


def _auxiliary(named: str | Sequence[str], teacher: ModelInfo, key: str) -> ModelInfo:
    """As a run finds it: the teacher where nothing before it is to be had, which a name alone is not."""
    sources = [named] if isinstance(named, str) else list(named)
    if TEACHER not in sources:
        with prefixed(f"{key}: "):
            return inspect_model(sources)
    before = sources[: sources.index(TEACHER)]
    with suppress(K2DError):
        if before and (found := inspect_model(before)).available:
            return found
    return teacher


def _finished_stages(recipe: Recipe, planned: Sequence[Stage], models: Sequence[Checkpoint]) -> dict[str, str]:
    """The stages that a run with these models would find up to date, with their lines of result."""
    finished: dict[str, str] = {}
    if not (recipe.directory / "stages.json").exists():
        return finished
    run = RunState(recipe, [stage.name for stage in planned], Console(silent=True))
    run.teacher, run.auxiliary, run.origin, run.original, *run.more_auxiliaries = models
    try:
        find_data(run)
    except K2DError:
        return finished
    for stage in planned:
        line = None
        with suppress(K2DError):  # what it reads is to be made first
            line = stage.line(run)
        if line is None:
            run.record.suppose_again(stage.name)
        else:
            finished[stage.name] = line
    return finished


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
