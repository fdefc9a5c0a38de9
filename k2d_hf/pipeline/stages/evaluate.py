"""Evaluation: teacher and student, before and after, on long recordings with references."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.recording_rows import part_fields
from k2d_hf.data.settings import EvaluationDataSettings
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.long_form import check_measurable, load_long_form, recording_names
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.evaluation.ways import FASTER_WHISPER, PIPELINE, SETTINGS, is_measured, text_difference, way_figures
from k2d_hf.files.folders import check_writable
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key, key_of
from k2d_hf.files.settings import deciding, given_options, read_settings
from k2d_hf.files.storage import write_atomic
from k2d_hf.formatting import counted
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import ONE_BY_ONE, Throughput, decoding_seconds
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState, weights_of
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import evaluation_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

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
        return "evaluation data" if recipe.evaluation is None else None

    def depends(self, run: RunState) -> list[Any]:
        """Settings, recordings by content, all models, and the ways of use that the card will show."""
        assert run.evaluation is not None
        settings = [deciding(run.recipe.evaluate), ways_of_use(run.recipe), run.recipe.language]
        recordings = [list(run.evaluation), files_key(run.evaluation["recording"])]
        folders = (run.teacher.path, run.folder / "student-before", run.folder / "student")
        return [*settings, recordings, [weights_of(folder) for folder in folders], run.ran("distil")]

    def run(self, run: RunState, job: Job) -> str:
        """Write figures and transcripts."""
        assert run.evaluation is not None
        settings = run.recipe.evaluate
        models = {"teacher": run.teacher}
        for folder in ("student-before", "student") if settings.before else ("student",):
            path = run.folder / folder
            models[folder.replace("-", "_")] = Checkpoint(path, name=str(path), origin="local")
        ways, most = ways_of_use(run.recipe), settings.way_recordings
        figures = evaluate(models, run.evaluation, settings, job, ways=ways, way_recordings=most)
        over = measured_over(len(models), len(run.evaluation))
        return f"{over}  MER {100 * figures['teacher']['mer']:.1f}% -> {100 * figures['student']['mer']:.1f}%"

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all recordings with all models."""
        teacher, student, data = plan.teacher.shape, plan.student, plan.evaluation
        if teacher is None or student is None or data is None or data.seconds is None:
            return None
        settings = plan.recipe.evaluate
        models = [teacher, student, student] if settings.before else [teacher, student]
        once = sum(decoding_seconds(machine, model, data.seconds, beam_size=settings.beam_size) for model in models)
        count = data.recordings or 1
        return once * settings.passes(count) / count * (ONE_BY_ONE if settings.batch_size == 1 else 1.0)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Recordings, and the MER of teacher and student."""
        return evaluation_facts(evaluation)

    def add_arguments(self, parser: CommandParser) -> None:
        """Models, data and settings."""
        parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, run, Hub id or wheels:...")
        data = "recordings with references, as for k2d label"
        parser.add_argument("--data", required=True, metavar="DATA", help=data)
        output = "file of the figures; transcripts go beside it"
        parser.add_argument("--output", type=Path, metavar="FILE.json", help=output)
        command.add_language(parser, "language, such as zh or Chinese (default: each model's guess)")
        command.add_data(parser, EvaluationDataSettings, skip=["streaming"])
        command.add_settings(parser, EvaluateSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d evaluate`."""
        from k2d_hf.evaluation.table import render_table

        settings = command.settings_of(arguments, EvaluateSettings, runs_model=True)
        language = checked_language(arguments.language)
        check_writable(arguments.output, file=True)
        given = {"source": arguments.data, **given_options(arguments, EvaluationDataSettings)}
        data = read_settings(EvaluationDataSettings, given, where=arguments.command)
        recordings = load_long_form(**{name: value for name, value in vars(data).items() if name != "streaming"})
        check_measurable(recordings)
        models: dict[str, Checkpoint] = {}
        for source in dict.fromkeys(arguments.models):
            checkpoint = command.model_of([source])
            models[source if checkpoint.name in models else checkpoint.name] = checkpoint
        figures: dict[str, Any] = {}

        def work(job: Job) -> str:
            figures.update(evaluate(models, recordings, settings, job))
            over = measured_over(len(models), len(recordings))
            return f"{over} -> {arguments.output}" if arguments.output else over

        command.perform(arguments, work, language=language, lock=False)
        console = Console()
        console.line("\n" + render_table(figures, console.screen))


def ways_of_use(recipe: Recipe) -> list[str]:
    """The ways of use that the student's card will show, each measured with the evaluation."""
    return [PIPELINE, FASTER_WHISPER] if recipe.hub.adds_ctranslate2 else [PIPELINE]


def evaluate(
    models: Mapping[str, Checkpoint],
    recordings: Dataset,
    settings: EvaluateSettings,
    job: Job,
    *,
    ways: Sequence[str] = (),
    way_recordings: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate models one after the other; figures go to the output, transcripts to a file beside it.

    What each model gave is kept, so that the same weights on the same recordings, decoded alike, are not scored again
    where only the student is new. Speed is that of one measurement: where one model has to be timed, all are.

    Args:
        models: by what they are in the method: teacher, student, ...
        recordings: with references.
        settings: how they are decoded.
        job: whose output is the file of the figures, or None.
        ways: ways of use (`k2d_hf.evaluation.ways`) in which the student is measured, too, unless that is how all
            models are. Its figures have them under `ways`.
        way_recordings: how many recordings, the first that were evaluated, that is done on; None is all.

    Returns:
        Figures by name, in the order given.
    """
    job.progress.start(len(models) * settings.passes(len(recordings)), "transcripts")
    settings = EvaluateSettings(**{field.name: getattr(settings, field.name) for field in fields(EvaluateSettings)})
    measurement = _Measurement(recordings, settings, job)
    figures: dict[str, dict[str, Any]] = {}
    transcripts: list[dict[str, Any]] = []
    for name, evaluated in measurement.measure(models).items():
        figures[name] = {**evaluated.figures(), "model": models[name].name}
        transcripts += [{"model": name, **transcript} for transcript in evaluated.transcripts]
        if name == STUDENT:
            figures[name]["ways"] = measurement.measure_ways(models[name], evaluated, ways, way_recordings)
    measurement.forget_others()
    if job.output is not None:
        write_json(job.output, figures)
        write_lines(job.output.with_name(job.output.stem + "_transcripts.jsonl"), transcripts)
    return figures


class _Measurement:
    """Measures models on recordings: what they wrote before is not asked for again, speeds are of one measurement."""

    def __init__(self, recordings: Dataset, settings: EvaluateSettings, job: Job) -> None:
        self.recordings = recordings
        self.settings = settings
        self.job = job
        self.input = [list(recordings), files_key(recordings["recording"])]
        self.used: set[str] = set()

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
            language=self.job.language,
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
        """A model on the recordings, or spans of them, that these transcripts are of; no progress is shown."""
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
            language=self.job.language,
            on_progress=lambda count: None,
            settings=settings,
        )
        return self._keep(file, evaluated)

    def _file(self, checkpoint: Checkpoint, settings: EvaluateSettings, *parts: Any) -> str:
        """The name of the file that keeps what a model gave."""
        inputs = [self.job.language, vars(settings), self.input, *parts]
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

    def forget_others(self) -> None:
        """Take away what earlier evaluations left and this one had no use for."""
        for path in [] if self.job.resume is None else list(self.job.resume.glob("evaluate-*.json")):
            if path.name not in self.used:
                path.unlink(missing_ok=True)


def measured_over(models: int, recordings: int) -> str:
    """What the transcripts of an evaluation are of: `3 models, 1 recording`."""
    return f"{counted(models, 'model')}, {counted(recordings, 'recording')}"
