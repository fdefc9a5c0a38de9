"""`k2d run`: the stages of a recipe in order, each skipped where nothing that it depends on has changed."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Sequence
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.sets import figures_of_sets
from k2d_hf.evaluation.table import render_sets
from k2d_hf.files.folders import check_writable, locked
from k2d_hf.files.json_files import write_json
from k2d_hf.files.resuming import discard
from k2d_hf.pipeline.prepare import look_ahead, prepare
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.report import report_run
from k2d_hf.pipeline.rounds import compare_labels, label_quality, rounds_of
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.pipeline.stages import planned_stages, stages
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.terminal.console import Console, ProgressLine, minutes, peak_memory
from k2d_hf.validation.calibrate import kept_speech


def run_recipe(recipe: Recipe, *, from_stage: str | None = None, console: Console | None = None) -> dict[str, Any]:
    """Run every stage of a recipe whose inputs, settings or package version have changed, in each of its rounds.

    Args:
        recipe: what to do.
        from_stage: this stage and those after it run again in any case, from scratch, in every round.
        console: where progress is shown.

    Returns:
        The figures of the evaluation, as in `evaluation.json`; empty without evaluation data.

    Raises:
        K2DError: for anything that the user can mend, among it a run directory that another process uses.
    """
    rounds, console = rounds_of(recipe), console or Console()
    planned_stages(rounds[-1], from_stage)  # which every stage that may be named is one of
    figures: dict[str, Any] = {}
    for number, each in enumerate(rounds, start=1):
        if len(rounds) > 1:
            console.line(f"Round {number} of {len(rounds)}, in {each.directory}")
        figures = _run_round(each, rounds[number:], from_stage, console)
    if len(rounds) > 1 and recipe.references is not None:
        qualities = [label_quality(each.directory / "validated", recipe.references) for each in rounds]
        write_json(recipe.directory / "rounds.json", qualities)
        console.line("\n".join(compare_labels(qualities)))
    return figures


def _run_round(recipe: Recipe, later: Sequence[Recipe], from_stage: str | None, console: Console) -> dict[str, Any]:
    """One round, under the lock of its folder and with its log; those after it are checked before its work."""
    from_stage = from_stage if from_stage in [stage.name for stage in planned_stages(recipe)] else None
    planned = planned_stages(recipe, from_stage)
    folder = recipe.directory
    check_writable(folder)
    with locked(folder):
        folder.mkdir(parents=True, exist_ok=True)
        console.log = folder / "log.txt"
        with console.warnings():
            try:
                return _run(recipe, later, planned, from_stage, console)
            except KeyboardInterrupt:
                console.note("stopped by the user")
                raise
            except K2DError as error:
                console.note(f"k2d: {error}")
                raise
            except Exception:
                console.note(traceback.format_exc())
                raise


def _run(
    recipe: Recipe, later: Sequence[Recipe], planned: Sequence[Stage], from_stage: str | None, console: Console
) -> dict[str, Any]:
    started = time.perf_counter()
    run = RunState(recipe, [stage.name for stage in planned], console)
    if prepare(run, planned, from_stage):
        for each in later:
            look_ahead(each, recipe.teacher, console)
    recipe.write(run.folder / "recipe.yaml")
    _forget(run, from_stage)
    for position, stage in enumerate(planned, start=1):
        _run_stage(stage, run, console.progress(stage.name, position=f"[{position}/{len(planned)}]"))
    figures = _show(run)
    report_run(run)
    took = time.perf_counter() - started
    spent = f"{took:.0f} s" if took < 60 else minutes(took)
    console.line(f"\n{spent}, at most {peak_memory():.1f} GB of memory")
    return figures


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
            for path in (run.folder / name for name in stage.of_stage_alone):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)


def _run_stage(stage: Stage, run: RunState, progress: ProgressLine) -> None:
    line = stage.line(run)
    if line is not None:
        progress.finish(f"up to date: {line}")
    else:
        key = stage.key(run)
        run.record.forget([stage.name])
        started = time.perf_counter()
        try:
            line = stage.run(run, Job(progress, run.folder / stage.output, run.resume, run.recipe.language))
        finally:
            progress.close()
        run.record.remember(stage.name, key, line, time.perf_counter() - started)
        progress.finish(line)
    stage.settle(run)


def _show(run: RunState) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if run.evaluation:
        figures = json.loads((run.folder / "evaluation.json").read_text(encoding="utf-8"))
        run.console.line("\n" + render_sets(figures_of_sets(figures), run.console.screen))
    if run.recipe.validate.unit == "segment" and run.recipe.references is not None:
        _show_labels(run, run.recipe.references)
    student = run.folder / "student"
    run.console.line(
        "\nLoad it:   from transformers import pipeline\n"
        f'           asr = pipeline("automatic-speech-recognition", model="{student}")\n'
        f"           # with all arguments, and what was measured with them: {student / 'README.md'}"
    )
    return figures


def _show_labels(run: RunState, references: str) -> None:
    """What judging segments kept, against references; what these lack is no reason to fail."""
    settings = run.recipe.validate
    try:
        how = settings.metric, settings.threshold, settings.auxiliaries_by
        line = kept_speech(run.folder / "validated", references, *how)
    except K2DError as error:
        run.console.warn(str(error))
    else:
        run.console.line(f"\nLabels:    {line}")
