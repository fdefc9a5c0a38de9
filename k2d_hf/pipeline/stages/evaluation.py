"""Evaluation on disk: models and recordings to figures and transcripts."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.recording_rows import span_fields, span_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.names import recording_names
from k2d_hf.evaluation.ways import SETTINGS, is_measured, text_difference, way_figures
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key, key_of
from k2d_hf.files.storage import write_whole
from k2d_hf.models import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.pipeline.recipe import EvaluateSettings
from k2d_hf.reporting.names import counted
from k2d_hf.terminal.console import Stage
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.evaluation.evaluate import Evaluation

STUDENT = "student"  # as a model's name: the one whose card shows ways of use

logger = logging.getLogger(__name__)


def evaluate(
    models: Mapping[str, Checkpoint],
    recordings: Dataset,
    settings: EvaluateSettings,
    stage: Stage,
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
        stage: shows the progress.
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
    work = _Evaluation(recordings, stage, language, resume)
    options = {field.name: getattr(settings, field.name) for field in fields(EvaluateSettings)}
    stage.start(len(models) * settings.passes(len(recordings)), "transcripts")
    figures: dict[str, dict[str, Any]] = {}
    transcripts: list[dict[str, Any]] = []
    for name, measured in work.measure_together(models, options).items():
        figures[name] = {**measured["figures"], "model": models[name].name}
        transcripts += [{"model": name, **transcript} for transcript in measured["transcripts"]]
        if name == STUDENT:
            figures[name]["ways"] = _ways(work, models[name], options, measured, ways, way_recordings)
    work.forget_others()
    if output is not None:
        write_json(output, figures)
        write_lines(output.with_name(output.stem + "_transcripts.jsonl"), transcripts)
    return figures


def _ways(
    work: _Evaluation,
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
            measured = work.measure_way(student, {**once, "dtype": "auto", **SETTINGS[way]}, recordings)
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

    def __init__(self, recordings: Dataset, stage: Stage, language: str | None, resume: Path | None) -> None:
        self.recordings = recordings
        self.stage = stage
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
                self.stage.advance(passes, name)
            return {name: known[name] for name in models}
        for name in known:
            self.stage.advance(passes - settings.timed(len(self.recordings)), name)
        evaluated = evaluate_models(
            {name: str(checkpoint.path) for name, checkpoint in models.items()},
            self.recordings,
            settings.decoding(self.language),
            engine=settings.engine,
            speed_runs=settings.speed_runs,
            speed_recordings=settings.speed_recordings,
            known={name: Evaluation(**one["figures"], transcripts=one["transcripts"]) for name, one in known.items()},
            on_progress=self.stage.advance,
        )
        return {
            name: self._keep(keys[name], replace(evaluated[name], model=checkpoint.name))
            for name, checkpoint in models.items()
        }

    def measure_way(
        self, checkpoint: Checkpoint, options: Mapping[str, Any], only: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Figures and transcripts of a model on the recordings that `only` names, uncounted: timed by itself."""
        from k2d_hf.evaluation.evaluate import evaluate_model

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
            write_whole(str(_place(self.resume, key)), json.dumps(measured).encode())
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
