"""`k2d run`: the stages of a recipe in order, each skipped where nothing that it depends on has changed."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from k2d_hf.data.references import references_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import render_table
from k2d_hf.files.folders import check_writable
from k2d_hf.files.lock import locked
from k2d_hf.files.resuming import discard
from k2d_hf.models import Checkpoint, resolve_checkpoint
from k2d_hf.models.hub import ensure_hub_state
from k2d_hf.pipeline import preflight, stages
from k2d_hf.pipeline.recipe import TEACHER, Recipe
from k2d_hf.pipeline.stage_keys import KnownRun
from k2d_hf.terminal.console import Console, Stage, minutes, peak_memory
from k2d_hf.transcription.decoding import carry_decoding
from k2d_hf.validation.judges import describe_validation

STAGES = ("label", "validate", "student", "targets", "distil", "evaluate", "card", "push")
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
    directory = recipe.directory
    check_writable(directory)
    with locked(directory):
        directory.mkdir(parents=True, exist_ok=True)
        console = console or Console()
        console.log = directory / "log.txt"
        with console.warnings():
            try:
                return _Run(recipe, directory, console, planned).go(from_stage)
            except KeyboardInterrupt:
                console.note("stopped by the user")
                raise
            except K2DError as error:
                console.note(f"k2d: {error}")
                raise
            except Exception:
                console.note(traceback.format_exc())
                raise


def planned_stages(recipe: Recipe, from_stage: str | None = None) -> list[str]:
    """The stages that a recipe has, in order.

    Raises:
        K2DError: if `from_stage` is none of them.
    """
    absent = {"evaluate": "evaluation data"} if recipe.evaluation is None else {}
    absent |= {"push": "hub.repo_id"} if recipe.hub.repo_id is None else {}
    planned = [name for name in STAGES if name not in absent]
    if from_stage is not None and from_stage not in planned:
        why = f"; without {absent[from_stage]} there is no such stage" if from_stage in absent else ""
        raise K2DError(f"--from {from_stage}: choose one of {', '.join(planned)}{why}")
    return planned


def finished_stages(recipe: Recipe, teacher: Checkpoint, auxiliary: Checkpoint) -> dict[str, str]:
    """The stages that a run would find up to date, with their lines of result; nothing is written.

    Args:
        recipe: what to do.
        teacher: the checkpoint that it would take.
        auxiliary: likewise.
    """
    run = _Run(recipe, recipe.directory, Console(silent=True), planned_stages(recipe))
    finished: dict[str, str] = {}
    run.teacher, run.auxiliary = teacher, auxiliary
    try:
        run.recordings = preflight.recordings_of(recipe.recordings)
        run.evaluation = None if recipe.evaluation is None else preflight.measured_recordings(recipe.evaluation)
    except K2DError:
        return finished
    for name in run.planned:
        try:
            line = run.line(name)
        except K2DError:  # what it looks at is to be made first
            line = None
        if line is None:
            run.record.suppose_again(name)
        else:
            finished[name] = line
    return finished


class _Run(KnownRun):
    """One run: what is on disk, what is known of it, and what is to do."""

    def __init__(self, recipe: Recipe, directory: Path, console: Console, planned: list[str]) -> None:
        super().__init__(recipe, directory, planned)
        self.console = console

    def go(self, from_stage: str | None) -> dict[str, Any]:
        started = time.perf_counter()
        recipe = self.recipe
        preflight.check_machine(preflight.recipe_lacks(recipe))
        self.recordings = preflight.recordings_of(recipe.recordings)
        self.evaluation = None if recipe.evaluation is None else preflight.measured_recordings(recipe.evaluation)
        if recipe.references is not None:
            references_of(recipe.references, self.recordings["recording"])  # which the report reads, hours later
        hub = ensure_hub_state()
        self.teacher = _resolve("teacher", recipe.teacher)
        self.auxiliary = self._auxiliary()
        preflight.check_models(recipe, self.teacher, self.auxiliary)
        if not self._is_finished(from_stage):
            preflight.check_machine(preflight.training_lacks(recipe.distil, "distil."))
            preflight.check_languages(recipe, self.teacher, self.auxiliary)
            if "push" in self.planned:
                stages.check_push(recipe.hub)
        recipe.write(self.directory / "recipe.yaml")
        self._announce(hub)
        if from_stage is not None:
            again = self.planned[self.planned.index(from_stage) :]
            self.record.forget(again)
            for name in again:
                discard(self.resume, name)
        if "evaluate" not in self.planned:
            self._forget_evaluation()
        for position, name in enumerate(self.planned, start=1):
            self._stage(name, f"[{position}/{len(self.planned)}]")
            if name == "distil":
                self._carry_decoding()
        figures = self._show()
        self._report()
        took = time.perf_counter() - started
        spent = f"{took:.0f} s" if took < 60 else minutes(took)
        self.console.line(f"\n{spent}, at most {peak_memory():.1f} GB of memory")
        return figures

    def _auxiliary(self) -> Checkpoint:
        """The first auxiliary that answers, among them, where it is named, the teacher itself."""
        sources = [self.recipe.auxiliary] if isinstance(self.recipe.auxiliary, str) else list(self.recipe.auxiliary)
        if TEACHER not in sources:
            return _resolve("auxiliary", sources)
        before = sources[: sources.index(TEACHER)]
        try:
            return resolve_checkpoint(before) if before else self.teacher
        except K2DError as error:
            self.console.note(f"auxiliary: {error}")
            return self.teacher

    def _is_finished(self, from_stage: str | None) -> bool:
        """Whether there is nothing left to do."""
        return from_stage is None and all(self.line(name) is not None for name in self.planned)

    def _announce(self, hub: str) -> None:
        teacher, auxiliary, count = self.teacher, self.auxiliary, len(self.recordings)
        checks = f"auxiliary {auxiliary.name}"
        if auxiliary.path == teacher.path:
            checks = "auxiliary: the same checkpoint, decoding each chunk from scratch"
        self.console.line(
            f"K2D {self.recipe.name}: {count} recording{'s' if count != 1 else ''}, "
            f"teacher {teacher.name} (from {ORIGINS.get(teacher.origin, teacher.origin)}, {hub}), {checks}"
        )
        if auxiliary.path == teacher.path:
            self.console.line("    (it catches loops and drift that come from context, not errors that both make)")

    def _stage(self, name: str, position: str) -> None:
        stage = self.console.stage(name, position=position)
        line = self.line(name)
        if line is not None:
            stage.finish(f"up to date: {line}")
            return
        key = self.key(name)
        self.record.forget([name])
        work: Callable[[Stage], str] = getattr(self, f"_{name}")
        started = time.perf_counter()
        try:
            line = work(stage)
        finally:
            stage.close()
        self.record.remember(name, key, line, time.perf_counter() - started)
        if name == "distil":
            discard(self.resume, name)  # checkpoints, which were good for a crash until here
        stage.finish(line)

    def _forget_evaluation(self) -> None:
        """Take away figures that a recipe without evaluation did not give: they are of another run of its stages."""
        if self.record.run_of("evaluate") is not None:
            self.record.forget(["evaluate"])
            for name in ("evaluation.json", "evaluation_transcripts.jsonl"):
                (self.directory / name).unlink(missing_ok=True)

    def _carry_decoding(self) -> None:
        """Have the student decode as this recipe evaluates it: settings that training does not depend on."""
        carry_decoding(self.directory / "student", self.recipe.decoding)

    def _label(self, stage: Stage) -> str:
        return stages.label(
            self.recordings,
            self.teacher,
            self.recipe.label,
            stage,
            language=self.recipe.language,
            output=self.directory / "chunks",
            resume=self.resume,
            skipped=self.directory / "skipped.jsonl",
            figures=self.directory / "labelling.json",
        )

    def _validate(self, stage: Stage) -> str:
        return stages.validate(
            stages.load_chunks(self.directory / "chunks"),
            self.auxiliary,
            self.recipe.validate,
            stage,
            language=self.recipe.language,
            output=self.directory / "validated",
            resume=self.resume,
        )

    def _student(self, stage: Stage) -> str:
        return stages.student(
            self.teacher, self.recipe.student, language=self.recipe.language, output=self.directory / "student-before"
        )

    def _targets(self, stage: Stage) -> str:
        shutil.rmtree(self.directory / "targets", ignore_errors=True)
        if not self.wants_targets():
            (self.directory / "targets").mkdir()
            why = stages.worth_targets(self.directory / "validated", self.recipe.distil, resume=self.resume)
            return f"none: {why or 'targets.enabled is false'}"
        return stages.targets(
            self.directory / "validated",
            self.directory / "student-before",
            self.teacher,
            self.auxiliary,
            self.recipe.targets,
            self.recipe.distil,
            stage,
            language=self.recipe.language,
            output=self.directory / "targets",
            resume=self.resume,
        )

    def _distil(self, stage: Stage) -> str:
        stored = self.wants_targets()
        return stages.distil(
            self.directory / ("targets" if stored else "validated"),
            self.directory / "student-before",
            None if stored and not self.recipe.distil.get("encoder_weight") else self.teacher,
            None if stored else self.auxiliary,
            self.recipe.distil,
            stage,
            language=self.recipe.language,
            output=self.directory / "student",
            resume=self.resume,
        )

    def _evaluate(self, stage: Stage) -> str:
        models = {"teacher": self.teacher}
        if self.recipe.evaluate.before:
            models["student_before"] = stages.local_checkpoint(self.directory / "student-before")
        models["student"] = stages.local_checkpoint(self.directory / "student")
        assert self.evaluation is not None
        figures = stages.evaluate(
            models,
            self.evaluation,
            self.recipe.evaluate,
            stage,
            language=self.recipe.language,
            output=self.directory / "evaluation.json",
            resume=self.resume,
            ways=self.ways(),
            way_recordings=self.recipe.evaluate.way_recordings,
        )
        over = stages.measured_over(len(models), len(self.evaluation))
        return f"{over}  MER {100 * figures['teacher']['mer']:.1f}% -> {100 * figures['student']['mer']:.1f}%"

    def _card(self, stage: Stage) -> str:
        from k2d_hf.pipeline.stages.card import write_card

        return str(write_card(self.directory, self.recipe, teacher=self.teacher, auxiliary=self.auxiliary))

    def _push(self, stage: Stage) -> str:
        from k2d_hf.publishing.card_names import public_name

        facts = {
            "teacher": public_name(self.teacher),
            "auxiliary": public_name(self.auxiliary),
            "validation": describe_validation(vars(self.recipe.validate)),
        }
        return stages.push(
            self.directory / "student",
            self.directory / "validated",
            self.recipe.hub,
            facts,
            stage,
            output=self.output("push"),
        )

    def _report(self) -> None:
        """The report is no stage, as it never fails the run, yet is skipped like one."""
        if not self.recipe.report.enabled:
            return
        output = self.directory / "report.html"
        key = self.key("report")
        if self.record.line_of("report", key) is None or not output.exists():
            started = time.perf_counter()
            line = stages.report_run(self.directory, self.recipe.report, self.console)
            if line is None:
                return
            self.record.remember("report", key, line, time.perf_counter() - started)
        self.console.line(f"Look:      {output}")

    def _show(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.evaluation is not None:
            figures = json.loads((self.directory / "evaluation.json").read_text(encoding="utf-8"))
            self.console.line("\n" + render_table(figures, self.console.screen))
        self.console.line(
            "\nLoad it:   from transformers import pipeline\n"
            f'           asr = pipeline("automatic-speech-recognition", model="{self.directory / "student"}")\n'
            f"           # with all arguments, and what was measured with them: {self.output('card')}"
        )
        return figures


def _resolve(party: str, sources: str | list[str]) -> Checkpoint:
    try:
        return resolve_checkpoint(sources)
    except K2DError as error:
        raise K2DError(f"{party}: {error}") from error
