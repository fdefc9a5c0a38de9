"""The evaluation of a finished run on one test set, as it is compared: what it holds, a part of it, are two alike."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from k2d_hf.data.recording_rows import selection_in, span_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.ways import error_figures, rates_of_normaliser
from k2d_hf.formatting import first_of, quote, short_name
from k2d_hf.scoring.normalisers import MIXED

_DECODING = ("engine", "language", "beam_size")  # figures that say how a model was decoded
_LISTED = 5  # recordings that an error names


@dataclass(frozen=True)
class MeasuredRun:
    """A finished run on one test set: its folder, recipe, share of chunks kept, figures and transcripts by model."""

    folder: str
    recipe: Mapping[str, Any]
    kept: float | None
    figures: Mapping[str, Mapping[str, Any]]
    transcripts: Mapping[str, Sequence[Mapping[str, Any]]]


def check_complete(run: MeasuredRun) -> None:
    """Raise K2DError where figures or transcripts of teacher or student are missing."""
    for model in ("teacher", "student"):
        if model not in run.figures or not run.transcripts.get(model):
            raise K2DError(f"{run.folder}: its evaluation has no {model}; run it again with `k2d run`")


def of_recordings(run: MeasuredRun, patterns: Sequence[str]) -> MeasuredRun:
    """The complete run as if it had been evaluated on the recordings that match any pattern alone, but for its speed.

    Raises:
        K2DError: for a pattern that no recording matches.
    """
    names = sorted({_file_name(row) for row in run.transcripts["teacher"]})
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            there = first_of(list(map(short_name, names)), _LISTED)
            raise K2DError(f"{run.folder}: no recording matches --recordings {quote(pattern)}; there are {there}")
    transcripts = {
        model: [row for row in rows if any(fnmatchcase(_file_name(row), pattern) for pattern in patterns)]
        for model, rows in run.transcripts.items()
    }
    figures = {
        model: {**run.figures[model], **_counted(transcripts[model], run.figures[model])}
        for model in ("teacher", "student")
    }
    return replace(run, figures=figures, transcripts=transcripts)


def matched(run: MeasuredRun, pattern: str) -> bool:
    """Whether any recording of the run is called like that."""
    return any(fnmatchcase(_file_name(row), pattern) for row in run.transcripts.get("teacher", ()))


def _counted(rows: Sequence[Mapping[str, Any]], figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation on errors and loops, from its transcripts and how it was scored."""
    loops = [row.get("looping_windows") for row in rows]
    pairs = [(row["reference"], row["hypothesis"]) for row in rows]
    normalised = rates_of_normaliser(figures.get("normaliser", MIXED), pairs)
    errors = {**error_figures(pairs, figures.get("language")), **normalised}
    return {**errors, "looping_outputs": None if None in loops else sum(loops)}


def check_alike(runs: Sequence[MeasuredRun]) -> None:
    """Raise K2DError where two were evaluated on different data or decoded differently; it names the difference."""
    first = runs[0]
    for run in runs:
        if difference := _data_difference(first, run):
            raise K2DError(
                f"{first.folder} and {run.folder} were evaluated on different data: {difference}; evaluate them on the "
                "same, or compare them apart"
            )
        for name in _DECODING:
            one, other = (of.figures["student"].get(name) for of in (first, run))
            if one != other:
                raise K2DError(
                    f"{first.folder} and {run.folder} were decoded differently: {name} {one} and {other}; evaluate "
                    "them alike"
                )


def same_data(one: MeasuredRun, other: MeasuredRun) -> bool:
    """Whether two were evaluated on the same recordings, by name, span and reference."""
    complete = one.transcripts.get("teacher") and other.transcripts.get("teacher")
    return bool(complete) and _data_difference(one, other) is None


def _data_difference(one: MeasuredRun, other: MeasuredRun) -> str | None:
    """How the evaluation data of two runs differ; folders may differ, as runs move."""
    left, right = ({_key(row): row for row in run.transcripts["teacher"]} for run in (one, other))
    for run, mine, theirs in ((one, left, right), (other, right, left)):
        if missing := sorted(mine.keys() - theirs.keys()):
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"only {run.folder} has {short_name(missing[0][0])}{more}"
    changed = [key[0] for key in left if left[key]["reference"] != right[key]["reference"]]
    return f"the reference of {short_name(changed[0])} is another" if changed else None


def _key(row: Mapping[str, Any]) -> tuple[str, float, float, str, str]:
    """A recording by file name, part and, as two folders may hold one name, the beginning of its reference."""
    start, duration = span_of(row)
    end = math.inf if duration is None else duration
    return _file_name(row), start, end, selection_in(row).key, row["reference"][:20]


def _file_name(row: Mapping[str, Any]) -> str:
    return os.path.basename(row["recording"])


def ordered(run: MeasuredRun, model: str) -> list[Mapping[str, Any]]:
    """Transcripts of a model, in an order that is that of every run on the same recordings."""
    return sorted(run.transcripts[model], key=_key)
