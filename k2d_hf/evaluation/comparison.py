"""Finished runs side by side: what of each was measured, seeds of one recipe together, intervals over recordings."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.bootstrap import interval, resampled_rates
from k2d_hf.scoring.error_rates import count_errors
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.wording import named

FEW_RECORDINGS = 20  # with fewer, percentiles of the bootstrap are known to be too narrow
SEEDS = ("seed", "data_seed")
_HEARD = ("engine", "language", "beam_size")  # figures that say how a model was decoded
_AVERAGED = ("mer", "zh_cer", "en_wer", "substitutions", "deletions", "insertions", "looping_outputs")
_SEED_ENDING = re.compile(r"[-_.]+(seed|s|run|r)?[-_.]*$")


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run: its folder, recipe, share of chunks kept, figures and transcripts by model."""

    folder: str
    recipe: Mapping[str, Any]
    kept: float | None
    figures: Mapping[str, Mapping[str, Any]]
    transcripts: Mapping[str, Sequence[Mapping[str, str]]]


@dataclass(frozen=True)
class ComparedRow:
    """One row: a teacher, or the student of a recipe, over all of its runs. Rates are shares, counts means."""

    name: str
    runs: list[str]
    kept: float | None
    mer: float
    mer_interval: tuple[float, float] | None  # over recordings; None of a single one
    mer_spread: float | None  # standard deviation over the runs; None of a single one
    zh_cer: float | None
    en_wer: float | None
    substitutions: float
    deletions: float
    insertions: float
    looping_outputs: float
    rtf: float
    speed_runs: int
    speed_up: float | None  # against the teacher; None of a teacher
    reduction: float | None  # of MER, relative to the teacher's: 0.25 is a quarter fewer errors
    reduction_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """Rows, teachers first, and what is to be known about them."""

    rows: list[ComparedRow]
    recordings: int
    reference_length: int
    notes: list[str]


def compare_runs(runs: Sequence[MeasuredRun]) -> Comparison:
    """Teachers and students of some runs that were evaluated on the same recordings.

    Raises:
        K2DError: for runs evaluated on different data or decoded differently; it names the difference.
    """
    _check_alike(runs)
    teachers = _grouped(runs, lambda run: str(run.figures["teacher"]["model"]))
    students = _grouped(runs, _recipe_key)
    names = _row_names(students)
    teacher_names = [f"teacher ({name})" if len(teachers) > 1 else "teacher" for name in teachers]
    lengths = [len(mixed_tokens(row["reference"])) for row in _ordered(runs[0], "teacher")]
    errors = [_errors(group, "teacher") for group in teachers.values()]
    errors += [_errors(group, "student") for group in students.values()]
    drawn = resampled_rates(np.array(errors), lengths) if len(lengths) > 1 else None
    rows = []
    for index, (name, group) in enumerate(zip(teacher_names, teachers.values(), strict=True)):
        rows.append(_row(name, group, "teacher", None if drawn is None else drawn[:, index], None, None))
    of_teacher = {id(run): index for index, group in enumerate(teachers.values()) for run in group}
    for index, (name, group) in enumerate(zip(names, students.values(), strict=True), start=len(teachers)):
        teacher = of_teacher[id(group[0])]
        own, its_teacher = (None, None) if drawn is None else (drawn[:, index], drawn[:, teacher])
        rows.append(_row(name, group, "student", own, its_teacher, rows[teacher]))
    return Comparison(rows, len(lengths), sum(lengths), _notes(rows, len(lengths)))


def _check_alike(runs: Sequence[MeasuredRun]) -> None:
    first = runs[0]
    for run in runs:
        for model in ("teacher", "student"):
            if model not in run.figures or not run.transcripts.get(model):
                raise K2DError(f"{run.folder}: its evaluation has no {model}; run it again with `k2d run`")
        if difference := _data_difference(first, run):
            raise K2DError(
                f"{first.folder} and {run.folder} were evaluated on different data: {difference}; evaluate them on the "
                "same, or compare them apart"
            )
        for name in _HEARD:
            one, other = (of.figures["student"].get(name) for of in (first, run))
            if one != other:
                raise K2DError(
                    f"{first.folder} and {run.folder} were decoded differently: {name} {one} and {other}; evaluate "
                    "them alike"
                )


def _data_difference(one: MeasuredRun, other: MeasuredRun) -> str | None:
    """What tells the evaluation data of two runs apart; folders may differ, as runs move."""
    left, right = ({_key(row): row for row in run.transcripts["teacher"]} for run in (one, other))
    for run, mine, theirs in ((one, left, right), (other, right, left)):
        if missing := sorted(mine.keys() - theirs.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"only {run.folder} has {named(missing[0][0])}{more}"
    changed = [key[0] for key in left if left[key]["reference"] != right[key]["reference"]]
    return f"the reference of {named(changed[0])} is another" if changed else None


def _key(row: Mapping[str, str]) -> tuple[str, str]:
    """A recording by file name and, as two folders may hold one name, the beginning of what is said in it."""
    return os.path.basename(row["recording"]), row["reference"][:20]


def _ordered(run: MeasuredRun, model: str) -> list[Mapping[str, str]]:
    return sorted(run.transcripts[model], key=_key)


def _grouped(runs: Sequence[MeasuredRun], key: Any) -> dict[str, list[MeasuredRun]]:
    groups: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _recipe_key(run: MeasuredRun) -> str:
    """The recipe but for its name, its folder, its seeds, and what only looks at the result or publishes it."""
    if not run.recipe:
        return run.folder
    passed_over = ("name", "output", "hub", "references", "report")
    settings = {name: value for name, value in run.recipe.items() if name not in passed_over}
    distil = settings.get("distil") or {}
    settings["distil"] = {name: value for name, value in distil.items() if name not in SEEDS}
    for name in ("recordings", "evaluation"):  # which runs from another place have under another path
        data = settings.get(name) or {}
        settings[name] = {**data, "source": os.path.basename(str(data.get("source", "")))}
    return repr(sorted(settings.items()))


def _row_names(groups: Mapping[str, Sequence[MeasuredRun]]) -> list[str]:
    """A name a group: its recipes' own, or what they begin with; where two groups share it, with the folder."""
    names = []
    for group in groups.values():
        own = [str(run.recipe.get("name") or os.path.basename(run.folder)) for run in group]
        shared = own[0] if len(set(own)) == 1 else _SEED_ENDING.sub("", os.path.commonprefix(own))
        names.append(shared or own[0])
    counts = Counter(names)
    groups_of_runs = zip(names, groups.values(), strict=True)
    return [name if counts[name] == 1 else f"{name} ({group[0].folder})" for name, group in groups_of_runs]


def _errors(group: Sequence[MeasuredRun], model: str) -> np.ndarray:
    """Errors [recordings], mean over the runs of a group."""
    return np.mean([[_count(row) for row in _ordered(run, model)] for run in group], axis=0)


def _count(row: Mapping[str, str]) -> int:
    return count_errors(mixed_tokens(row["reference"]), mixed_tokens(row["hypothesis"])).errors


def _row(
    name: str,
    group: Sequence[MeasuredRun],
    model: str,
    rates: np.ndarray | None,
    teacher_rates: np.ndarray | None,
    teacher: ComparedRow | None,
) -> ComparedRow:
    figures = [run.figures[model] for run in group]
    mean: dict[str, Any] = {key: _mean([one[key] for one in figures]) for key in _AVERAGED}
    kept = None if teacher is None else _mean([run.kept for run in group])
    factors = [factor for one in figures for factor in one["rtf_runs"]]
    rtf = fmean(factors)
    reduction = reduction_interval = None
    if teacher is not None and teacher.mer:
        reduction = 1 - mean["mer"] / teacher.mer
        if rates is not None and teacher_rates is not None and teacher_rates.all():
            reduction_interval = interval(1 - rates / teacher_rates)
    return ComparedRow(
        name=name,
        runs=[run.folder for run in group],
        kept=kept,
        mer_interval=None if rates is None else interval(rates),
        mer_spread=stdev(one["mer"] for one in figures) if len(figures) > 1 else None,
        rtf=rtf,
        speed_runs=len(factors),
        speed_up=None if teacher is None or not rtf else teacher.rtf / rtf,
        reduction=reduction,
        reduction_interval=reduction_interval,
        **mean,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _notes(rows: Sequence[ComparedRow], recordings: int) -> list[str]:
    notes = []
    if recordings == 1:
        notes.append("one recording: a bootstrap over recordings needs several, so there are no intervals")
    else:
        notes.append(f"[ ] 95% intervals, bootstrap over {recordings} recordings, runs of a row averaged")
        if recordings < FEW_RECORDINGS:
            notes.append(f"with only {recordings} recordings the intervals are wide, and themselves uncertain")
    if any(row.mer_spread for row in rows):
        notes.append("± standard deviation over the runs of a row")
    if len({row.speed_runs for row in rows}) > 1 or min(row.speed_runs for row in rows) < 5:
        fewest = min(row.speed_runs for row in rows)
        notes.append(
            f"RTF is the mean of as few as {fewest} measurement{'s' if fewest > 1 else ''}; the paper takes five"
        )
    return notes
