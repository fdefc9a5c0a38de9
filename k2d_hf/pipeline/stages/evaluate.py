"""Evaluation: teacher and student, before and after, on long recordings with references."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.settings import EvaluationDataSettings
from k2d_hf.errors import K2DError
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
from k2d_hf.pipeline.command import (
    Command,
    add_data,
    add_language,
    add_settings,
    language_of,
    model_of,
    perform,
    settings_of,
)
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import ONE_BY_ONE, Throughput, decoding_seconds
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import RunState, weights_of
from k2d_hf.pipeline.stages.files import local_checkpoint
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console, ProgressLine
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.evaluation.evaluate import Evaluation
    from k2d_hf.reporting.chunks import ChunkTable

STUDENT = "student"  # as a model's name: the one whose card shows ways of use

logger = logging.getLogger(__name__)


class Evaluate(Stage, Command):
    """Models and long recordings with references to error rates and speeds (K2D, section 4)."""

    name = "evaluate"
    summary = "Measure models side by side on long recordings with references."
    output = "evaluation.json"
    of_stage_alone = ("evaluation.json", "evaluation_transcripts.jsonl")

    def reason_absent(self, recipe: Recipe) -> str | None:
        """Recordings with references."""
        return "evaluation data" if recipe.evaluation is None else None

    def lacks(self, recipe: Recipe) -> list[str]:
        """As the engine has it."""
        return lacks_of(recipe.evaluate, "evaluate.")

    def depends(self, run: RunState) -> list[Any]:
        """Settings, recordings by content, all models, and the ways of use that the card will show."""
        assert run.evaluation is not None
        settings = [deciding(run.recipe.evaluate), ways_of_use(run.recipe), run.recipe.language]
        recordings = [list(run.evaluation), files_key(run.evaluation["recording"])]
        folders = (run.teacher.path, run.folder / "student-before", run.folder / "student")
        return [*settings, recordings, [weights_of(folder) for folder in folders], run.ran("distil")]

    def run(self, run: RunState, progress: ProgressLine) -> str:
        """Write figures and transcripts."""
        assert run.evaluation is not None
        settings = run.recipe.evaluate
        models = {"teacher": run.teacher}
        if settings.before:
            models["student_before"] = local_checkpoint(run.folder / "student-before")
        models["student"] = local_checkpoint(run.folder / "student")
        figures = evaluate(
            models,
            run.evaluation,
            settings,
            progress,
            language=run.recipe.language,
            output=run.folder / self.output,
            resume=run.resume,
            ways=ways_of_use(run.recipe),
            way_recordings=settings.way_recordings,
        )
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
        from k2d_hf.reporting.stage_facts import evaluation_facts

        return evaluation_facts(evaluation)

    def add_arguments(self, parser: CommandParser) -> None:
        """Models, data and settings."""
        parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, run, Hub id or wheels:...")
        data = "recordings with references, as for k2d label"
        parser.add_argument("--data", required=True, metavar="DATA", help=data)
        output = "file of the figures; transcripts go beside it"
        parser.add_argument("--output", type=Path, metavar="FILE.json", help=output)
        add_language(parser, "language, such as zh or Chinese (default: each model's guess)")
        add_data(parser, EvaluationDataSettings, skip=["streaming"])
        add_settings(parser, EvaluateSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d evaluate`."""
        from k2d_hf.evaluation.long_form import check_measurable, load_long_form
        from k2d_hf.evaluation.table import render_table

        settings, language = settings_of(arguments, EvaluateSettings, runs_model=True), language_of(arguments)
        check_writable(arguments.output, file=True)
        given = {"source": arguments.data, **given_options(arguments, EvaluationDataSettings)}
        data = read_settings(EvaluationDataSettings, given, where=arguments.command)
        recordings = load_long_form(**{name: value for name, value in vars(data).items() if name != "streaming"})
        check_measurable(recordings)
        models: dict[str, Checkpoint] = {}
        for source in dict.fromkeys(arguments.models):
            checkpoint = model_of([source])
            models[source if checkpoint.name in models else checkpoint.name] = checkpoint
        figures: dict[str, Any] = {}

        def work(progress: ProgressLine) -> str:
            figures.update(evaluate(models, recordings, settings, progress, language=language, output=arguments.output))
            over = measured_over(len(models), len(recordings))
            return f"{over} -> {arguments.output}" if arguments.output else over

        perform(arguments, work, lock=False)
        console = Console()
        console.line("\n" + render_table(figures, console.screen))


def ways_of_use(recipe: Recipe) -> list[str]:
    """The ways of use that the student's card will show, each measured with the evaluation."""
    return [PIPELINE, FASTER_WHISPER] if recipe.hub.adds_ctranslate2 else [PIPELINE]


def evaluate(
    models: Mapping[str, Checkpoint],
    recordings: Dataset,
    settings: EvaluateSettings,
    progress: ProgressLine,
    *,
    language: str | None,
    output: Path | None,
    resume: Path | None = None,
    ways: Sequence[str] = (),
    way_recordings: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Evaluate models one after the other; figures go to `output`, transcripts to a file beside it.

    Args:
        models: by what they are in the method: teacher, student, ...
        recordings: with references.
        settings: how they are decoded.
        progress: its bar.
        language: of all recordings.
        output: file of the figures.
        resume: folder that keeps what each model gave, so that the same weights on the same recordings, decoded alike,
            are not scored again where only the student is new. Speed is that of one measurement: where one model has to
            be timed, all are.
        ways: ways of use (`k2d_hf.evaluation.ways`) in which the student is measured, too, unless that is how all
            models are. Its figures have them under `ways`.
        way_recordings: how many recordings, the first that were evaluated, that is done on; None is all.

    Returns:
        Figures by name, in the order given.
    """
    measurement = _Evaluation(recordings, progress, language, resume)
    options = {field.name: getattr(settings, field.name) for field in fields(EvaluateSettings)}
    progress.start(len(models) * settings.passes(len(recordings)), "transcripts")
    figures: dict[str, dict[str, Any]] = {}
    transcripts: list[dict[str, Any]] = []
    for name, measured in measurement.measure_together(models, options).items():
        figures[name] = {**measured["figures"], "model": models[name].name}
        transcripts += [{"model": name, **transcript} for transcript in measured["transcripts"]]
        if name == STUDENT:
            figures[name]["ways"] = _ways(measurement, models[name], options, measured, ways, way_recordings)
    measurement.forget_others()
    if output is not None:
        write_json(output, figures)
        write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures


def _ways(
    measurement: _Evaluation,
    student: Checkpoint,
    options: Mapping[str, Any],
    proper: Mapping[str, Any],
    ways: Sequence[str],
    most: int | None,
) -> dict[str, dict[str, Any]]:
    """Figures of the ways of use of the student; a way that this machine has no engine for is left out, and named."""
    found: dict[str, dict[str, Any]] = {}
    transcripts = proper["transcripts"][:most]
    recordings = [_identity(row) for row in transcripts]
    once = {**options, "batch_size": 1, "speed_runs": 1, "speed_recordings": None}
    for way in SETTINGS:
        if is_measured(way, proper["figures"], batch_size=options["batch_size"]):
            found[way] = way_figures(proper["figures"])
        if way in found or way not in ways or most == 0:
            continue
        try:
            measured = measurement.measure_way(student, {**once, "dtype": "auto", **SETTINGS[way]}, recordings)
        except K2DError as error:
            logger.warning("the student was not measured with %s: %s", way, error)
            continue
        differs = text_difference(measured["transcripts"], transcripts)
        found[way] = way_figures(measured["figures"], differs=differs)
    return found


def _identity(transcript: Mapping[str, Any]) -> dict[str, Any]:
    """Which recording, or span of one, a transcript is of."""
    return {name: transcript[name] for name in ("recording", "start", "duration") if name in transcript}


class _Evaluation:
    """Measures models on recordings: what they wrote before is not asked for again, speeds are of one measurement."""

    def __init__(self, recordings: Dataset, progress: ProgressLine, language: str | None, resume: Path | None) -> None:
        self.recordings = recordings
        self.progress = progress
        self.language = language
        self.resume = resume
        self.input = [list(recordings), files_key(recordings["recording"])]
        self.keys: list[str] = []

    def measure_together(
        self, models: Mapping[str, Checkpoint], options: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """Figures and transcripts of models on all recordings, their speeds from one measurement."""
        from k2d_hf.evaluation.evaluate import Evaluation, evaluate_models
        from k2d_hf.evaluation.timing import timed_together

        settings = EvaluateSettings(**options)
        keys = {name: self._key(checkpoint, options) for name, checkpoint in models.items()}
        known = {name: found for name, key in keys.items() if (found := _measured(self.resume, key)) is not None}
        passes = settings.passes(len(self.recordings))
        if known.keys() == models.keys() and timed_together(one["figures"] for one in known.values()):
            for name in models:
                self.progress.advance(passes, name)
            return {name: known[name] for name in models}
        for name in known:
            self.progress.advance(passes - settings.timed(len(self.recordings)), name)
        evaluated = evaluate_models(
            {name: str(checkpoint.path) for name, checkpoint in models.items()},
            self.recordings,
            settings,
            language=self.language,
            known={name: Evaluation(**one["figures"], transcripts=one["transcripts"]) for name, one in known.items()},
            on_progress=self.progress.advance,
        )
        return {
            name: self._keep(keys[name], replace(evaluated[name], model=checkpoint.name))
            for name, checkpoint in models.items()
        }

    def measure_way(
        self, checkpoint: Checkpoint, options: Mapping[str, Any], only: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Figures and transcripts of a model on the recordings that `only` names, uncounted: timed by itself."""
        from k2d_hf.data.recording_rows import span_fields, span_of
        from k2d_hf.evaluation.evaluate import evaluate_model
        from k2d_hf.evaluation.long_form import recording_names

        key = self._key(checkpoint, options, list(only))
        measured = _measured(self.resume, key)
        if measured is not None:
            return measured
        names = recording_names(self.recordings["recording"])
        rows = zip(names, self.recordings, strict=True)
        named = [{"recording": name, **span_fields(*span_of(row))} for name, row in rows]
        return self._keep(
            key,
            evaluate_model(
                str(checkpoint.path),
                self.recordings.select([at for at, row in enumerate(named) if row in only]),
                name=checkpoint.name,
                language=self.language,
                on_progress=lambda count: None,
                **options,
            ),
        )

    def _key(self, checkpoint: Checkpoint, options: Mapping[str, Any], *parts: Any) -> str:
        key = key_of(__version__, checkpoint_fingerprint(checkpoint.path), self.language, options, self.input, *parts)
        self.keys.append(key)
        return key

    def _keep(self, key: str, result: Evaluation) -> dict[str, Any]:
        measured = {"figures": result.figures(), "transcripts": result.transcripts}
        if self.resume is not None:
            write_atomic(str(_place(self.resume, key)), json.dumps(measured).encode())
        return measured

    def forget_others(self) -> None:
        """Take away what earlier evaluations left and this one had no use for."""
        if self.resume is not None:
            for left in set(self.resume.glob("evaluate-*.json")) - {_place(self.resume, key) for key in self.keys}:
                left.unlink(missing_ok=True)


def measured_over(models: int, recordings: int) -> str:
    """What the transcripts of an evaluation are of: `3 models, 1 recording`."""
    return f"{counted(models, 'model')}, {counted(recordings, 'recording')}"


def _place(resume: Path, key: str) -> Path:
    return resume / f"evaluate-{key}.json"


def _measured(resume: Path | None, key: str) -> dict[str, Any] | None:
    """What was measured of these weights before; None where that is not there, or cannot be read."""
    from k2d_hf.evaluation.evaluate import Evaluation

    if resume is None:
        return None
    try:
        measured = json.loads(_place(resume, key).read_text(encoding="utf-8"))
        Evaluation(**measured["figures"], transcripts=measured["transcripts"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return {"figures": measured["figures"], "transcripts": measured["transcripts"]}
