"""`k2d run`: the stages of a recipe in order, each skipped where nothing that it depends on has changed."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from typing import Any

from k2d_hf.data.references import references_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import render_table
from k2d_hf.files.folders import check_writable, locked
from k2d_hf.files.resuming import discard
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.hub import ensure_hub_state
from k2d_hf.pipeline import preflight
from k2d_hf.pipeline.command import check_machine
from k2d_hf.pipeline.recipe import TEACHER, Recipe
from k2d_hf.pipeline.report import report_run
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.pipeline.stages import planned_stages, stages
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.pipeline.stages.student import init_sources
from k2d_hf.terminal.console import Console, minutes, peak_memory

ORIGINS = {"hub": "Hub", "hub cache": "Hub's cache", "wheels": "installed wheels", "adapter": "an adapter"}


def run_recipe(recipe: Recipe, *, from_stage: str | None = None, console: Console | None = None) -> dict[str, Any]:
    """Run every stage of a recipe whose inputs, settings or package version have changed.

    Args:
        recipe: what to do.
        from_stage: this stage and those after it run again in any case, from scratch.
        console: where progress is shown.

    Returns:
        The figures of the evaluation, as in `evaluation.json`; empty without evaluation data.

    Raises:
        K2DError: for anything that the user can mend, among it a run directory that another process uses.
    """
    planned = planned_stages(recipe, from_stage)
    folder = recipe.directory
    check_writable(folder)
    with locked(folder):
        folder.mkdir(parents=True, exist_ok=True)
        console = console or Console()
        console.log = folder / "log.txt"
        with console.warnings():
            try:
                return _run(recipe, planned, from_stage, console)
            except KeyboardInterrupt:
                console.note("stopped by the user")
                raise
            except K2DError as error:
                console.note(f"k2d: {error}")
                raise
            except Exception:
                console.note(traceback.format_exc())
                raise


def _run(recipe: Recipe, planned: Sequence[Stage], from_stage: str | None, console: Console) -> dict[str, Any]:
    started = time.perf_counter()
    run = RunState(recipe, [stage.name for stage in planned], console)
    hub = _prepare(run, planned, from_stage)
    recipe.write(run.folder / "recipe.yaml")
    _announce(run, hub)
    _forget(run, from_stage)
    for position, stage in enumerate(planned, start=1):
        _run_stage(stage, run, f"[{position}/{len(planned)}]")
    figures = _show(run)
    report_run(run)
    took = time.perf_counter() - started
    spent = f"{took:.0f} s" if took < 60 else minutes(took)
    console.line(f"\n{spent}, at most {peak_memory():.1f} GB of memory")
    return figures


def _prepare(run: RunState, planned: Sequence[Stage], from_stage: str | None) -> str:
    """Check settings, find data and models, and check what would stop a stage hours later; the state of the Hub."""
    recipe = run.recipe
    check_machine(recipe_lacks(recipe))
    _find_data(run)
    if recipe.references is not None:
        references_of(recipe.references, run.recordings["recording"])  # which the report reads, hours later
    hub = ensure_hub_state()
    run.teacher = _resolve("teacher", recipe.teacher)
    run.auxiliary = _auxiliary(run)
    run.origin = _origin(run)
    preflight.check_models(recipe, run.teacher, run.auxiliary, run.origin)
    if from_stage is not None or any(run.line(stage) is None for stage in planned):
        preflight.check_languages(recipe, run.teacher, run.auxiliary)
        for stage in planned:
            stage.check(run)
    return hub


def recipe_lacks(recipe: Recipe) -> list[str]:
    """Check the settings of every stage, by themselves: neither data nor models are read.

    Returns:
        What this machine lacks for them, a line each; what another may have, such as a GPU.

    Raises:
        K2DError: for a setting that would stop a stage on any machine, or a package that is not installed.
    """
    if recipe.recordings.streaming:
        raise K2DError(
            "recordings.streaming: k2d run reads every recording to know what has changed; leave it out, or use the "
            "commands of the stages (k2d label --streaming)"
        )
    check_writable(recipe.directory)
    return [lack for stage in planned_stages(recipe) for lack in stage.lacks(recipe)]


def finished_stages(recipe: Recipe, teacher: Checkpoint, auxiliary: Checkpoint, origin: Checkpoint) -> dict[str, str]:
    """The stages that a run would find up to date, with their lines of result; nothing is written.

    Args:
        recipe: what to do.
        teacher: the checkpoint that it would take.
        auxiliary: likewise.
        origin: likewise, of the student's layers.
    """
    planned = planned_stages(recipe)
    run = RunState(recipe, [stage.name for stage in planned], Console(silent=True))
    run.teacher, run.auxiliary, run.origin = teacher, auxiliary, origin
    finished: dict[str, str] = {}
    try:
        _find_data(run)
    except K2DError:
        return finished
    for stage in planned:
        try:
            line = run.line(stage)
        except K2DError:  # what it reads is to be made first
            line = None
        if line is None:
            run.record.suppose_again(stage.name)
        else:
            finished[stage.name] = line
    return finished


def _find_data(run: RunState) -> None:
    run.recordings = preflight.recordings_of(run.recipe.recordings)
    data = run.recipe.evaluation
    run.evaluation = None if data is None else preflight.measured_recordings(data)


def _resolve(role: str, sources: str | list[str]) -> Checkpoint:
    try:
        return resolve_checkpoint(sources)
    except K2DError as error:
        raise K2DError(f"{role}: {error}") from error


def _origin(run: RunState) -> Checkpoint:
    """The model that the student is made of; of a run it is the student."""
    sources = init_sources(run.recipe)
    return run.teacher if sources is None else _resolve("student.init", sources)


def _auxiliary(run: RunState) -> Checkpoint:
    """The first auxiliary that answers, among them, where it is named, the teacher itself."""
    named = run.recipe.auxiliary
    sources = [named] if isinstance(named, str) else list(named)
    if TEACHER not in sources:
        return _resolve("auxiliary", sources)
    before = sources[: sources.index(TEACHER)]
    try:
        return resolve_checkpoint(before) if before else run.teacher
    except K2DError as error:
        run.console.note(f"auxiliary: {error}")
        return run.teacher


def _announce(run: RunState, hub: str) -> None:
    teacher, auxiliary, count = run.teacher, run.auxiliary, len(run.recordings)
    checks = f"auxiliary {auxiliary.name}"
    if auxiliary.path == teacher.path:
        checks = "auxiliary: the same checkpoint, decoding each chunk from scratch"
    run.console.line(
        f"K2D {run.recipe.name}: {count} recording{'s' if count != 1 else ''}, "
        f"teacher {teacher.name} (from {ORIGINS.get(teacher.origin, teacher.origin)}, {hub}), {checks}"
    )
    if auxiliary.path == teacher.path:
        run.console.line("    (it catches loops and drift that come from context, not errors that both make)")


def _forget(run: RunState, from_stage: str | None) -> None:
    """Take away what is to be made again, and what a stage left that the recipe has no more."""
    if from_stage is not None:
        again = run.planned[run.planned.index(from_stage) :]
        run.record.forget(again)
        for name in again:
            discard(run.resume, name)
    for stage in stages():
        if stage.name not in run.planned and stage.of_stage_alone and run.record.run_of(stage.name) is not None:
            run.record.forget([stage.name])
            for name in stage.of_stage_alone:
                (run.folder / name).unlink(missing_ok=True)


def _run_stage(stage: Stage, run: RunState, position: str) -> None:
    progress = run.console.progress(stage.name, position=position)
    line = run.line(stage)
    if line is not None:
        progress.finish(f"up to date: {line}")
    else:
        key = run.key(stage)
        run.record.forget([stage.name])
        started = time.perf_counter()
        try:
            line = stage.run(run, progress)
        finally:
            progress.close()
        run.record.remember(stage.name, key, line, time.perf_counter() - started)
        progress.finish(line)
    stage.settle(run)


def _show(run: RunState) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if run.evaluation is not None:
        figures = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
        run.console.line("\n" + render_table(figures, run.console.screen))
    student = run.folder / "student"
    run.console.line(
        "\nLoad it:   from transformers import pipeline\n"
        f'           asr = pipeline("automatic-speech-recognition", model="{student}")\n'
        f"           # with all arguments, and what was measured with them: {student / 'README.md'}"
    )
    return figures
