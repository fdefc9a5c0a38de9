"""Evaluation: teacher and student, before and after, on long recordings with references."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.recording_rows import part_fields
from k2d_hf.data.settings import EvaluationDataSettings
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.long_form import recording_names
from k2d_hf.evaluation.sets import UNNAMED, EvaluationSet, file_of_sets, load_set
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.evaluation.ways import FASTER_WHISPER, PIPELINE, SETTINGS, is_measured, text_difference, way_figures
from k2d_hf.files.folders import check_writable
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key, key_of
from k2d_hf.files.settings import check_section_names, deciding, given_options, read_mapping, read_settings
from k2d_hf.files.storage import write_atomic
from k2d_hf.formatting import counted, short_name
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import ONE_BY_ONE, Throughput, decoding_seconds
from k2d_hf.pipeline.recipe import Recipe, checked_set
from k2d_hf.pipeline.run_state import Job, RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import evaluation_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from k2d_hf.evaluation.evaluate import Evaluation


STUDENT = "student"  # as a model's name: the one whose card shows ways of use

logger = logging.getLogger(__name__)


class Evaluate(Stage, command.Command):
    """Models and long recordings with references to error rates and speeds (K2D, section 4)."""

    name = "evaluate"
    summary = "Measure models side by side on long recordings with references."
    output = "evaluation.json"
    runs_model = True
    of_stage_alone = ("evaluation.json", "evaluation_transcripts.jsonl")

    def reason_absent(self, recipe: Recipe) -> str | None:
        """Recordings with references."""
        return None if recipe.evaluation_sets else "evaluation data"

    def depends(self, run: RunState) -> list[Any]:
        """Settings, test sets by name and content, all models, and the ways of use that the card will show."""
        settings = [deciding(run.recipe.evaluate), ways_of_use(run.recipe), run.recipe.language]
        sets = [
            [name, one.language, one.normaliser, list(one.recordings), files_key(one.recordings["recording"])]
            for name, one in run.evaluation.items()
        ]
        folders = (run.original.path, run.teacher.path, run.folder / "student-before", run.folder / "student")
        return [*settings, sets, [weights_of(folder) for folder in folders], run.ran("distil")]

    def run(self, run: RunState, job: Job) -> str:
        """Write figures and transcripts."""
        settings = run.recipe.evaluate
        models = {"teacher": run.original}
        if run.original.path != run.teacher.path:
            models["adapted"] = run.teacher
        for folder in ("student-before", "student") if settings.before else ("student",):
            path = run.folder / folder
            models[folder.replace("-", "_")] = Checkpoint(path, name=str(path), origin="local")
        ways, most = ways_of_use(run.recipe), settings.way_recordings
        figures = evaluate(models, run.evaluation, settings, job, ways=ways, way_recordings=most)
        rates = [
            f"{name} MER {100 * one['teacher']['mer']:.1f}% -> {100 * one['student']['mer']:.1f}%".lstrip()
            for name, one in figures.items()
        ]
        return f"{measured_over(len(models), run.evaluation)}  {', '.join(rates)}"

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all recordings with all models."""
        teacher, student, settings = plan.teacher.shape, plan.student, plan.recipe.evaluate
        if teacher is None or student is None:
            return None
        models = [teacher, student]
        models += [student] if settings.before else []
        models += [teacher] if settings.adapted_from is not None else []
        seconds = 0.0
        for data in plan.evaluation.values():
            if data.seconds is None:
                return None
            once = sum(decoding_seconds(machine, one, data.seconds, beam_size=settings.beam_size) for one in models)
            count = data.recordings or 1
            seconds += once * settings.passes(count) / count * (ONE_BY_ONE if settings.batch_size == 1 else 1.0)
        return seconds

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Recordings, and the MER of teacher and student."""
        return evaluation_facts(evaluation)

    def add_arguments(self, parser: CommandParser) -> None:
        """Models, data and settings."""
        parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, run, Hub id or wheels:...")
        data = (
            "recordings with references, as for k2d label; repeatable as NAME=DATA, for several test sets, where DATA "
            "may be settings of the set, such as '{source: dev.jsonl, language: en}'"
        )
        parser.add_argument("--data", required=True, action="append", metavar="DATA", help=data)
        output = "file of the figures; transcripts go beside it"
        parser.add_argument("--output", type=Path, metavar="FILE.json", help=output)
        command.add_language(parser, "language, such as zh or Chinese (default: each model's guess)")
        command.add_data(parser, EvaluationDataSettings, skip=["streaming", "language", "benchmark_task"])
        command.add_settings(parser, EvaluateSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d evaluate`."""
        from k2d_hf.evaluation.table import render_sets

        settings = command.settings_of(arguments, EvaluateSettings, runs_model=True)
        language = checked_language(arguments.language)
        check_writable(arguments.output, file=True)
        sets = {}
        for name, data in sets_of(arguments, language).items():
            with prefixed(f"{name}: " if name else ""):
                sets[name] = load_set(data, language)
        models: dict[str, Checkpoint] = {}
        for source in dict.fromkeys(arguments.models):
            checkpoint = command.model_of([source])
            models[source if checkpoint.name in models else checkpoint.name] = checkpoint
        figures: dict[str, Any] = {}

        def work(job: Job) -> str:
            figures.update(evaluate(models, sets, settings, job))
            over = measured_over(len(models), sets)
            return f"{over} -> {arguments.output}" if arguments.output else over

        command.perform(arguments, work, language=language, lock=False)
        console = Console()
        console.line("\n" + render_sets(figures, console.screen))


def ways_of_use(recipe: Recipe) -> list[str]:
    """The ways of use that the student's card will show, each measured with the evaluation."""
    return [PIPELINE, FASTER_WHISPER] if recipe.hub.adds_ctranslate2 else [PIPELINE]


def sets_of(arguments: argparse.Namespace, language: str | None) -> dict[str, EvaluationDataSettings]:
    """The test sets of a command line, by name; options go for all of them, a set's own settings before them.

    Raises:
        K2DError: for sets without names, or with one that is taken or cannot be a file's, and for wrong settings.
    """
    where, given = arguments.command, given_options(arguments, EvaluationDataSettings, but=["language"])
    sections: dict[str, Any] = {}
    for text in arguments.data:
        name, source = _named_source(text)
        if name in sections or (sections and UNNAMED in (name, *sections)):
            fault = f"{name} is named twice" if name else "several sets need a name each: --data NAME=DATA"
            raise K2DError(f"{where}: --data {short_name(text)}: {fault}")
        sections[name] = {**given, **(source if isinstance(source, Mapping) else {"source": source})}
    check_section_names(filter(None, sections), EvaluationDataSettings, where=where, key="--data")
    sets = {}
    for name, section in sections.items():
        key = f"--data {name}" if name else ""
        data = read_settings(EvaluationDataSettings, section, where=where, section=key)
        sets[name] = checked_set(data, language, f"{where}: {key or '--data'}")
    return sets


def _named_source(text: str) -> tuple[str, Any]:
    """Name and source, or settings, of `NAME=DATA`; what is there as a file, or an address, has no name."""
    name, equals, source = text.partition("=")
    if not equals or "/" in name or text.startswith("{") or os.path.exists(text):
        name, source = UNNAMED, text
    return name, read_mapping(source, f"--data {short_name(text)}") if source.startswith("{") else source


def evaluate(
    models: Mapping[str, Checkpoint],
    sets: Mapping[str, EvaluationSet],
    settings: EvaluateSettings,
    job: Job,
    *,
    ways: Sequence[str] = (),
    way_recordings: int | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Evaluate models on test sets, one after the other; figures go to the output, transcripts to a file beside it.

    What each model gave on a set is kept, so that the same weights on the same recordings, decoded alike, are not
    scored again where only the student, or another set, is new. Speed is that of one measurement: where one model has
    to be timed on a set, all are.

    Args:
        models: by what they are in the method: teacher, student, ...
        sets: by name, one without a name as `UNNAMED`.
        settings: how they are decoded.
        job: whose output is the file of the figures, or None.
        ways: ways of use (`k2d_hf.evaluation.ways`) in which the student is measured, too, on the first set, unless
            that is how all models are. Its figures there have them under `ways`.
        way_recordings: how many recordings, the first that were evaluated, that is done on; None is all.

    Returns:
        Figures by set and model, in the order given.
    """
    passes = sum(settings.passes(len(one.recordings)) for one in sets.values())
    job.progress.start(len(models) * passes, "transcripts")
    settings = EvaluateSettings(**{field.name: getattr(settings, field.name) for field in fields(EvaluateSettings)})
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    transcripts: list[dict[str, Any]] = []
    used: set[str] = set()
    for name, one in sets.items():
        measurement = _Measurement(one, settings, job, used)
        figures[name] = {}
        for model, evaluated in measurement.measure(models).items():
            scored = evaluated.scored_by(one.normaliser)
            figures[name][model] = {**scored.figures(), "model": models[model].name}
            of_set = {"set": name} if name else {}
            transcripts += [{**of_set, "model": model, **transcript} for transcript in evaluated.transcripts]
            if model == STUDENT and len(figures) == 1:
                measured = measurement.measure_ways(models[model], evaluated, ways, way_recordings)
                figures[name][model]["ways"] = measured
    _forget_others(job, used)
    if job.output is not None:
        write_json(job.output, file_of_sets(figures))
        write_lines(job.output.with_name(job.output.stem + "_transcripts.jsonl"), transcripts)
    return figures


class _Measurement:
    """Measures models on a set: what they wrote before is not asked for again, speeds are of one measurement.

    Names of the files that keep what was measured are added to `used`.
    """

    def __init__(self, chosen: EvaluationSet, settings: EvaluateSettings, job: Job, used: set[str]) -> None:
        self.recordings, self.language = chosen.recordings, chosen.language
        self.settings = settings
        self.job = job
        self.input = [list(self.recordings), files_key(self.recordings["recording"])]
        self.used = used

    def measure(self, models: Mapping[str, Checkpoint]) -> dict[str, Evaluation]:
        """Models on all recordings, their speeds from one measurement."""
        from k2d_hf.evaluation.evaluate import evaluate_models
        from k2d_hf.evaluation.timing import timed_together

        files = {name: self._file(checkpoint, self.settings) for name, checkpoint in models.items()}
        known = {name: found for name, file in files.items() if (found := self._kept(file)) is not None}
        count, advance = len(self.recordings), self.job.progress.advance
        passes = self.settings.passes(count)
        if known.keys() == models.keys() and timed_together(one.figures() for one in known.values()):
            for name in models:
                advance(passes, name)
            return known
        for name in known:
            advance(passes - self.settings.timed(count), name)
        evaluated = evaluate_models(
            {name: str(checkpoint.path) for name, checkpoint in models.items()},
            self.recordings,
            self.settings,
            language=self.language,
            known=known,
            on_progress=advance,
        )
        return {name: self._keep(files[name], replace(one, model=models[name].name)) for name, one in evaluated.items()}

    def measure_ways(
        self, student: Checkpoint, proper: Evaluation, ways: Sequence[str], most: int | None
    ) -> dict[str, dict[str, Any]]:
        """Figures of the ways of use of the student, timed by themselves on the first recordings.

        A way that this machine has no engine for is left out, and named.
        """
        found: dict[str, dict[str, Any]] = {}
        transcripts = proper.transcripts[:most]
        once = replace(self.settings, batch_size=1, speed_runs=1, speed_recordings=None)
        for way, decoding in SETTINGS.items():
            if is_measured(way, proper.figures(), batch_size=self.settings.batch_size):
                found[way] = way_figures(proper.figures())
            elif way in ways and most != 0:
                options: dict[str, Any] = {"dtype": "auto", **decoding}
                self.job.progress.advance(0, f"{STUDENT} with {way}")
                try:
                    measured = self._measure_alone(student, replace(once, **options), transcripts)
                except K2DError as error:
                    logger.warning("the student was not measured with %s: %s", way, error)
                    continue
                differs = text_difference(measured.transcripts, transcripts)
                found[way] = way_figures(measured.figures(), differs=differs)
        return found

    def _measure_alone(
        self, checkpoint: Checkpoint, settings: EvaluateSettings, transcripts: Sequence[Mapping[str, Any]]
    ) -> Evaluation:
        """A model on the recordings, or spans of them, that these transcripts are of; they are not counted."""
        from k2d_hf.evaluation.evaluate import evaluate_model

        only = [{"recording": transcript["recording"], **part_fields(transcript)} for transcript in transcripts]
        file = self._file(checkpoint, settings, only)
        if (kept := self._kept(file)) is not None:
            return kept
        rows = zip(recording_names(self.recordings["recording"]), self.recordings, strict=True)
        named = [{"recording": name, **part_fields(row)} for name, row in rows]
        evaluated = evaluate_model(
            str(checkpoint.path),
            self.recordings.select([at for at, row in enumerate(named) if row in only]),
            name=checkpoint.name,
            language=self.language,
            on_progress=lambda count: None,
            settings=settings,
        )
        return self._keep(file, evaluated)

    def _file(self, checkpoint: Checkpoint, settings: EvaluateSettings, *parts: Any) -> str:
        """The name of the file that keeps what a model gave."""
        inputs = [self.language, vars(settings), self.input, *parts]
        name = f"evaluate-{key_of(__version__, checkpoint_fingerprint(checkpoint.path), *inputs)}.json"
        self.used.add(name)
        return name

    def _kept(self, file: str) -> Evaluation | None:
        """What was measured before; None where that is not there, or cannot be read."""
        from k2d_hf.evaluation.evaluate import Evaluation

        if self.job.resume is None:
            return None
        try:
            measured = json.loads((self.job.resume / file).read_text(encoding="utf-8"))
            return Evaluation(**measured["figures"], transcripts=measured["transcripts"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _keep(self, file: str, evaluated: Evaluation) -> Evaluation:
        if self.job.resume is not None:
            measured = {"figures": evaluated.figures(), "transcripts": evaluated.transcripts}
            write_atomic(str(self.job.resume / file), json.dumps(measured).encode())
        return evaluated


def _forget_others(job: Job, used: Collection[str]) -> None:
    """Take away what earlier evaluations left and this one had no use for."""
    for path in [] if job.resume is None else list(job.resume.glob("evaluate-*.json")):
        if path.name not in used:
            path.unlink(missing_ok=True)


def measured_over(models: int, sets: Mapping[str, EvaluationSet]) -> str:
    """What the transcripts of an evaluation are of: `3 models, 1 recording`, `3 models, 2 sets, 40 recordings`."""
    parts = [counted(models, "model")] + ([] if list(sets) == [UNNAMED] else [counted(len(sets), "set")])
    return ", ".join([*parts, counted(sum(len(one.recordings) for one in sets.values()), "recording")])
