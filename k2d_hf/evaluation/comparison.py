"""Finished runs side by side: what of each was measured, seeds of one recipe together, intervals over recordings."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.measured_run import MeasuredRun, check_alike, check_complete, of_recordings, ordered
from k2d_hf.evaluation.switching import switching_of
from k2d_hf.evaluation.timing import MEASUREMENT, speed_up, timed_together
from k2d_hf.formatting import counted, short_name
from k2d_hf.scoring.error_rates import count_errors
from k2d_hf.scoring.normalisers import MIXED, english_word_errors
from k2d_hf.scoring.text import mixed_tokens

SAMPLES = 10_000
LEVEL = 0.95
FEW_RECORDINGS = 20  # with fewer, percentiles of the bootstrap are known to be too narrow
SEEDS = ("seed", "data_seed")
_AVERAGED = ("zh_cer", "en_wer", "substitutions", "deletions", "insertions")
_CELLS = 1 << 22  # drawn at once: 15,000 recordings a sample would fill memory otherwise
_SEED_ENDING = re.compile(r"[-_.]+(seed|s|run|r)?[-_.]*$")


@dataclass(frozen=True)
class ComparedRow:
    """One row: a teacher, or the student of a recipe, over all of its runs. Rates are shares, counts means."""

    name: str
    model: str  # `teacher` or `student`
    runs: list[str]
    kept: float | None
    mer: float
    mers: list[float]  # of each run, in the order of `runs`
    mer_interval: tuple[float, float] | None  # over recordings; None of a single one
    mer_spread: float | None  # standard deviation over the runs; None of a single one
    wer: float | None  # of the words that the set's normaliser leaves; None where that of a run leaves none
    wer_interval: tuple[float, float] | None  # over recordings; None of a single one
    zh_cer: float | None
    en_wer: float | None
    parts: dict[str, float]  # of another pair than Mandarin-English, by title
    substitutions: float
    deletions: float
    insertions: float
    looping_outputs: float | None  # None where an evaluation did not count them by recording
    rtf: float
    speed_runs: int
    speed_up: float | None  # against the teacher, mean over runs that timed both together; None without, or of teachers
    reduction: float | None  # of MER, relative to the teacher's: 0.25 is a quarter fewer errors
    reduction_interval: tuple[float, float] | None
    reduction_against: float | None  # of MER, relative to that of the row `Comparison.against`; None of that row
    reduction_against_interval: tuple[float, float] | None
    switching: dict[str, Any] | None = None  # of all runs together, as `switching_figures` gives it


@dataclass(frozen=True)
class Comparison:
    """Rows, teachers first, and what is to be known about them."""

    rows: list[ComparedRow]
    recordings: int
    reference_length: int
    notes: list[str]
    against: str | None = None  # name of the row that all are measured against, beside the teacher
    language: str | None = None  # that models were given
    normaliser: str = MIXED  # of the set


@dataclass(frozen=True)
class _System:
    """What a row is about: the model of some runs, with its MER on each draw of recordings."""

    name: str
    model: str
    runs: Sequence[MeasuredRun]
    rates: np.ndarray | None
    word_rates: np.ndarray | None  # likewise the WER, where the set's normaliser leaves words

    @property
    def figures(self) -> list[Mapping[str, Any]]:
        return [run.figures[self.model] for run in self.runs]

    @property
    def mers(self) -> list[float]:
        return [one["mer"] for one in self.figures]


def compare_runs(
    runs: Sequence[MeasuredRun], *, patterns: Sequence[str] = (), against: str | None = None
) -> Comparison:
    """Teachers and students of some runs that were evaluated on the same recordings.

    Args:
        runs: at least one.
        patterns: of file names, as a shell has them; only recordings that match one are counted. Speed stays that of
            the whole evaluation.
        against: name of a row, with its seed or without; every other row has the change of MER against it.

    Raises:
        K2DError: for runs evaluated on different data or decoded differently, where it names the difference; for a
            pattern that no recording matches; if there is no such row.
    """
    for run in runs:
        check_complete(run)
    if patterns:
        runs = [of_recordings(run, patterns) for run in runs]
    check_alike(runs)
    teachers = _grouped(runs, lambda run: str(run.figures["teacher"]["model"]))
    students = _grouped(runs, _recipe_key)
    names = [f"teacher ({name})" if len(teachers) > 1 else "teacher" for name in teachers] + _row_names(students)
    if against is not None:
        against = _row_called(against, names)
    groups = [(group, "teacher") for group in teachers.values()] + [(group, "student") for group in students.values()]
    lengths = [len(mixed_tokens(row["reference"])) for row in ordered(runs[0], "teacher")]
    errors = np.array([np.mean([_errors(run, model) for run in group], axis=0) for group, model in groups])
    drawn = resampled_rates(errors, lengths) if len(lengths) > 1 else None
    normalisers = {run.figures[model].get("normaliser", MIXED) for run in runs for model in ("teacher", "student")}
    normaliser = normalisers.pop() if len(normalisers) == 1 else MIXED
    words = None if normaliser == MIXED else _word_rates(groups)
    systems = [
        _System(name, model, group, *(None if rates is None else rates[:, index] for rates in (drawn, words)))
        for index, (name, (group, model)) in enumerate(zip(names, groups, strict=True))
    ]
    of_teacher = {id(run): system for system in systems[: len(teachers)] for run in system.runs}
    base = None if against is None else systems[names.index(against)]
    rows = [
        _row(one, None if one.model == "teacher" else of_teacher[id(one.runs[0])], None if one is base else base)
        for one in systems
    ]
    if normaliser == MIXED:
        rows = [replace(row, wer=None) for row in rows]
    language = runs[0].figures["student"].get("language")
    notes = _notes(rows, runs, len(lengths), patterns)
    return Comparison(rows, len(lengths), sum(lengths), notes, against, language, normaliser)


def resampled_rates(
    errors: np.ndarray, lengths: Sequence[float], *, samples: int = SAMPLES, seed: int = 0
) -> np.ndarray:
    """Error rates over recordings drawn with replacement (Bisani and Ney, 2004), [samples, systems].

    A rate is the sum of the errors over the sum of the reference tokens, so that long recordings count for more. All
    systems are measured on the same draws: what is computed from two of them is a paired comparison.

    Args:
        errors: S + D + I, [systems, recordings].
        lengths: reference tokens, [recordings]; none may be 0.
        samples: number of draws.
        seed: of the random numbers; the same gives the same rates.
    """
    tokens, recordings = np.asarray(lengths, dtype=float), len(lengths)
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS // recordings)
    parts = []
    for at in range(0, samples, step):
        drawn = generator.integers(recordings, size=(min(step, samples - at), recordings))
        parts.append(errors[:, drawn].sum(axis=2).T / tokens[drawn].sum(axis=1)[:, None])
    return np.concatenate(parts)


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle `LEVEL` of some values, by percentiles."""
    outside = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    return float(low), float(high)


def _grouped(runs: Sequence[MeasuredRun], key: Callable[[MeasuredRun], str]) -> dict[str, list[MeasuredRun]]:
    groups: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _recipe_key(run: MeasuredRun) -> str:
    """The recipe but for its name, its folder, its seeds, and what only measures the result, shows or publishes it."""
    if not run.recipe:
        return run.folder
    passed_over = ("name", "output", "evaluation", "hub", "references", "report")
    settings = {name: value for name, value in run.recipe.items() if name not in passed_over}
    distil = settings.get("distil") or {}
    settings["distil"] = {name: value for name, value in distil.items() if name not in SEEDS}
    data = settings.get("recordings") or {}  # which runs from another place have under another path
    settings["recordings"] = {**data, "source": os.path.basename(str(data.get("source", "")))}
    return repr(sorted(settings.items()))


def _row_names(groups: Mapping[str, Sequence[MeasuredRun]]) -> list[str]:
    """A name a group: its recipes' own, or what they begin with; where two groups share it, with the folder."""
    names = []
    for group in groups.values():
        own = [str(run.recipe.get("name") or os.path.basename(run.folder)) for run in group]
        shared = own[0] if len(set(own)) == 1 else _SEED_ENDING.sub("", os.path.commonprefix(own))
        names.append(shared or own[0])
    named = zip(names, groups.values(), strict=True)
    return [name if names.count(name) == 1 else f"{name} ({group[0].folder})" for name, group in named]


def _row_called(wanted: str, names: Sequence[str]) -> str:
    """The row of that name, or the only one that has a seed after it: `lab-full` is `lab-full-1` where seed 1 is alone.

    Raises:
        K2DError: if there is no such row.
    """
    if wanted in names:
        return wanted
    seeded = [name for name in names if _SEED_ENDING.sub("", name.rstrip("0123456789")) == wanted]
    if len(seeded) != 1:
        raise K2DError(f"--against {short_name(wanted)}: no such row; there are {', '.join(names)}")
    return seeded[0]


def _errors(run: MeasuredRun, model: str) -> list[int]:
    """Errors of a model by recording."""
    pairs = [(mixed_tokens(row["reference"]), mixed_tokens(row["hypothesis"])) for row in ordered(run, model)]
    return [count_errors(*pair).errors for pair in pairs]


def _word_rates(groups: Sequence[tuple[Sequence[MeasuredRun], str]]) -> np.ndarray | None:
    """As `resampled_rates`, over the words that Whisper's English normaliser leaves; None of a single recording."""
    counts = [
        [[english_word_errors([(row["reference"], row["hypothesis"])]) for row in ordered(run, model)] for run in group]
        for group, model in groups
    ]
    lengths = np.array([one.reference_length for one in counts[0][0]])
    if (lengths > 0).sum() < 2:
        return None
    errors = np.array([np.mean([[one.errors for one in run] for run in group], axis=0) for group in counts])
    return resampled_rates(errors[:, lengths > 0], lengths[lengths > 0].tolist())


def _row(system: _System, teacher: _System | None, base: _System | None) -> ComparedRow:
    figures, mers = system.figures, system.mers
    mean: dict[str, Any] = {key: _mean([one[key] for one in figures]) for key in _AVERAGED}
    parts = [one.get("parts") or {} for one in figures]
    loops = [one["looping_outputs"] for one in figures]
    # a run that began as a copy has the measurement of another, which counts once
    factors = [factor for runs in dict.fromkeys(tuple(one["rtf_runs"]) for one in figures) for factor in runs]
    pairs = [(run.figures["teacher"], run.figures[system.model]) for run in system.runs]
    speed_ups = {own[MEASUREMENT]["id"]: ratio for of, own in pairs if (ratio := speed_up(of, own)) is not None}
    reduction, reduction_interval = _reduction(system, teacher)
    reduction_against, reduction_against_interval = _reduction(system, base)
    return ComparedRow(
        name=system.name,
        model=system.model,
        runs=[run.folder for run in system.runs],
        kept=None if teacher is None else _mean([run.kept for run in system.runs]),
        mer=fmean(mers),
        mers=mers,
        mer_interval=None if system.rates is None else interval(system.rates),
        mer_spread=stdev(mers) if len(mers) > 1 else None,
        wer=_mean([one.get("wer") for one in figures]),
        wer_interval=None if system.word_rates is None else interval(system.word_rates),
        parts={title: fmean(one[title] for one in parts) for title in parts[0] if all(title in one for one in parts)},
        looping_outputs=None if None in loops else fmean(loops),
        rtf=fmean(factors),
        speed_runs=len(factors),
        speed_up=None if teacher is None else _mean(list(speed_ups.values())),
        reduction=reduction,
        reduction_interval=reduction_interval,
        reduction_against=reduction_against,
        reduction_against_interval=reduction_against_interval,
        switching=switching_of(
            (row["reference"], row["hypothesis"]) for run in system.runs for row in run.transcripts[system.model]
        ),
        **mean,
    )


def _reduction(system: _System, base: _System | None) -> tuple[float | None, tuple[float, float] | None]:
    """By how much of the base's MER that of the system is lower, with an interval over the same draws of both."""
    if base is None or not fmean(base.mers):
        return None, None
    reduction = 1 - fmean(system.mers) / fmean(base.mers)
    if system.rates is None or base.rates is None or not base.rates.all():
        return reduction, None
    return reduction, interval(1 - system.rates / base.rates)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _notes(
    rows: Sequence[ComparedRow], runs: Sequence[MeasuredRun], recordings: int, patterns: Sequence[str]
) -> list[str]:
    notes = []
    if patterns:
        notes.append(f"only recordings that match {' or '.join(patterns)}; RTF and speed-up are those over all")
        if any(row.looping_outputs is None for row in rows):
            notes.append("loops are unknown (-) where an evaluation did not count them by recording")
    if recordings == 1:
        notes.append("one recording: a bootstrap over recordings needs several, so there are no intervals")
    else:
        notes.append(f"[ ] 95% intervals, bootstrap over {recordings} recordings, runs of a row averaged")
        if recordings < FEW_RECORDINGS:
            notes.append(f"with only {recordings} recordings the intervals are wide, and themselves uncertain")
    if any(row.mer_spread for row in rows):
        notes.append("± standard deviation over the runs of a row")
    if any(row.model == "student" and row.speed_up is None for row in rows):
        notes.append("speed-up is unknown (-) where teacher and student were not timed together")
    if not timed_together(run.figures[model] for run in runs for model in ("teacher", "student")):
        notes.append("RTF of runs that were timed apart is of other days or machines; speed-up is within each run")
    fewest = min(row.speed_runs for row in rows)
    if fewest < 5 or len({row.speed_runs for row in rows}) > 1:
        notes.append(f"RTF is the mean of as few as {counted(fewest, 'measurement')}; the paper takes five")
    return notes
