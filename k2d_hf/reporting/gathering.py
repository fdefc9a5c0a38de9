"""From the folder of a run to the facts of its report; what is not there, or cannot be read, is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from k2d_hf.audio.selection import Selection
from k2d_hf.data.recording_rows import selection_in, span_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.sets import UNNAMED, ByModel, figures_of_sets
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.reporting.chunks import ChunkTable, chunk_facts, read_chunks
from k2d_hf.reporting.facts import RecordingFact, RunFacts, SetFacts, short_names, span_label
from k2d_hf.reporting.stage_facts import ReportedStage, read_json, read_lines, stage_facts
from k2d_hf.scoring.error_rates import ErrorCounts
from k2d_hf.scoring.normalisers import english_word_errors
from k2d_hf.validation.combining import demands

SHOWN_RECORDINGS = 10  # of the evaluation, over all its sets
FEWEST_RECORDINGS = 3  # but not fewer of a set
COMPARED_RECORDINGS = 20_000  # whose errors are counted; an evaluation set of utterances may have more


def gather(directory: Path, references: str | Path | None = None, *, stages: Iterable[ReportedStage]) -> RunFacts:
    """The facts of a run's report, finished or not; the arguments are those of `write_report`.

    Raises:
        K2DError: if it is no folder of a run, or the references cannot be read.
    """
    try:
        recipe = load_yaml((directory / "recipe.yaml").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise K2DError(
            f"{directory}: no recipe.yaml in it; give the folder of a run, such as runs/quickstart"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise K2DError(f"{directory / 'recipe.yaml'}: cannot be read ({type(error).__name__})") from None
    recipe = recipe if isinstance(recipe, dict) else {}
    validation: Any = recipe.get("validate")
    validation = validation if isinstance(validation, dict) else {}
    try:
        judged = demands(validation)
    except K2DError:  # of a recipe that was changed by hand
        judged = []
    table = read_chunks(directory / "validated")
    no_references = None
    if references is None:
        references, no_references = _references_of_recipe(recipe, table.recordings)
    worst, sample = chunk_facts(table, references)
    calibration, no_calibration = _calibration(directory / "validated", table, references, validation)
    content = read_json(directory / "evaluation.json", {}) if recipe.get("evaluation") else {}
    evaluation = figures_of_sets(content)
    lines = read_lines(directory / "evaluation_transcripts.jsonl") if evaluation else []
    shown = max(FEWEST_RECORDINGS, SHOWN_RECORDINGS // max(1, len(evaluation)))
    log = read_json(directory / "student" / "training_log.json", [])
    return RunFacts(
        name=str(recipe.get("name") or directory.name),
        directory=str(directory),
        announced=_announced(directory / "log.txt"),
        language=recipe.get("language") if isinstance(recipe.get("language"), str) else None,
        metric=validation.get("metric"),
        threshold=validation.get("threshold") if isinstance(validation.get("threshold"), (int, float)) else None,
        demands=judged,
        stages=stage_facts(directory, table, evaluation, stages),
        shares=table.shares,
        distances=table.distances,
        worst=worst,
        sample=sample,
        no_references=no_references,
        calibration=calibration,
        no_calibration=no_calibration,
        training_log=[entry for entry in log if isinstance(entry, dict)],
        sets=[_set(name, figures, lines, shown) for name, figures in evaluation.items()],
    )


def _set(name: str, figures: ByModel, lines: Iterable[dict[str, Any]], most: int) -> SetFacts:
    """A test set with at most so many of its recordings, out of the transcripts of all sets."""
    recordings = _recordings(line for line in lines if line.get("set", UNNAMED) == name)
    intervals, no_intervals = _intervals(recordings, figures)
    shown = sorted(recordings, key=_errors_of_student, reverse=True)[:most]
    return SetFacts(name, figures, intervals, no_intervals, shown, len(recordings) - len(shown))


def _references_of_recipe(recipe: dict[str, Any], recordings: list[str]) -> tuple[str | None, str | None]:
    """The manifest that the recipe names, or why it cannot be used: since the run it may have moved."""
    from k2d_hf.data.references import references_of

    path = recipe.get("references")
    if not isinstance(path, str) or not recordings:
        return None, None
    try:
        references_of(path, recordings)
    except K2DError as error:
        return None, f"without the references of the recipe: {error}"
    return path, None


def _calibration(
    validated: Path, table: ChunkTable, references: str | Path | None, validation: dict[str, Any]
) -> tuple[Any, str | None]:
    """The curves over alpha, or why there are none. Wrong references are the user's error."""
    from k2d_hf.validation.calibrate import calibrate
    from k2d_hf.validation.calibration import THRESHOLD_METRICS
    from k2d_hf.validation.distance import AUXILIARIES_BY, MEDIAN

    if not len(table.distances):
        return None, "no chunk has been validated"
    metric, by = validation.get("metric"), validation.get("auxiliaries_by")
    chosen, by = metric if metric in THRESHOLD_METRICS else "composite", by if by in AUXILIARIES_BY else MEDIAN
    try:
        return calibrate(validated, references, metric=chosen, output=None, auxiliaries_by=by), None
    except K2DError as error:
        if references is not None:
            raise
        return None, str(error)


def _recordings(lines: Iterable[dict[str, Any]]) -> list[RecordingFact]:
    """The recordings of a test set, with references and transcripts, one of which a line has."""
    from k2d_hf.scoring.error_rates import count_errors
    from k2d_hf.scoring.text import mixed_tokens

    rows: dict[tuple[str, float, float | None, Selection], dict[str, Any]] = {}
    for line in lines:
        given = [line.get(key) for key in ("recording", "reference", "hypothesis", "model")]
        if not all(isinstance(value, str) for value in given):
            continue
        name, reference, hypothesis, model = map(str, given)
        key = (name, *span_of(line), selection_in(line))
        known = rows.get(key) or (rows.setdefault(key, {}) if len(rows) < COMPARED_RECORDINGS else None)
        if known is not None:
            known.setdefault("reference", reference)
            known.setdefault("transcripts", {})[model] = hypothesis
    names = short_names([name for name, *_ in rows])
    facts = []
    for (name, start, duration, selection), row in rows.items():
        tokens = mixed_tokens(row["reference"])
        errors = {model: count_errors(tokens, mixed_tokens(text)) for model, text in row["transcripts"].items()}
        label = names[name] + span_label(start, duration) + selection.key.replace(" ", ", ", 1)
        part = (start, duration), selection
        facts.append(RecordingFact(label, name, row["reference"], row["transcripts"], errors, *part))
    return facts


def _intervals(recordings: list[RecordingFact], figures: ByModel) -> tuple[dict[str, tuple[float, float]], str | None]:
    """Of the rate of each model by which the set is charted, by the bootstrap over recordings."""
    import numpy as np

    from k2d_hf.evaluation.comparison import interval, resampled_rates
    from k2d_hf.evaluation.table import main_rate

    models = list(figures)
    if main_rate(figures)[1] == "wer":
        recordings = [replace(one, errors=_word_errors(one)) for one in recordings]
    complete = [one for one in recordings if set(models) <= one.errors.keys() and one.reference]
    complete = [one for one in complete if one.errors[models[0]].reference_length] if models else []
    if len(complete) < 2:
        what = "one recording" if complete else "no transcripts"
        return {}, f"{what}: a bootstrap over recordings needs several, so there are no intervals"
    errors = np.array([[one.errors[model].errors for one in complete] for model in models])
    lengths = [one.errors[models[0]].reference_length for one in complete]
    rates = resampled_rates(errors, lengths)
    return {model: interval(rates[:, index]) for index, model in enumerate(models)}, None


def _word_errors(recording: RecordingFact) -> dict[str, ErrorCounts]:
    texts = recording.transcripts.items()
    return {model: english_word_errors([(recording.reference, text)]) for model, text in texts}


def _errors_of_student(recording: RecordingFact) -> float:
    counts = recording.errors.get("student") or next(reversed(recording.errors.values()), None)
    return counts.rate if counts is not None else 0.0


def _announced(log: Path) -> str | None:
    """The line with which the last run began."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = [line[20:] for line in text.splitlines() if line[20:].startswith("K2D ")]
    return lines[-1] if lines else None
