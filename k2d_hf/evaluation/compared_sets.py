"""Finished runs side by side on several test sets: which sets they share, and a comparison of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.comparison import Comparison, compare_runs
from k2d_hf.evaluation.measured_run import MeasuredRun, matched, of_recordings, same_data
from k2d_hf.evaluation.sets import UNNAMED, MacroAverage, macro_averages
from k2d_hf.formatting import short_name

MeasuredSets = Mapping[str, MeasuredRun]  # a run by test set


def compare_sets(
    runs: Sequence[MeasuredSets], *, patterns: Sequence[str] = (), against: str | None = None
) -> dict[str, Comparison]:
    """`compare_runs` on each test set that all runs have, in the order of the first run.

    A set without a name, which runs of one set have, is the set of the other runs that has the same recordings. With
    patterns, sets of which no recording matches are left out.

    Raises:
        K2DError: as `compare_runs`, with the set in front, and if the runs share none.
    """
    runs = _named_alike(runs)
    shared = [name for name in runs[0] if all(name in run for run in runs)]
    if not shared:
        listed = "; ".join(
            f"{_folder(run)} has {', '.join(name or 'one set without a name' for name in run)}" for run in runs
        )
        raise K2DError(
            f"the runs have no test set in common: {listed}; evaluate them on the same, or compare them apart"
        )
    wanted = {name: [pattern for pattern in patterns if matched(runs[0][name], pattern)] for name in shared}
    for pattern in patterns:
        if not any(pattern in found for found in wanted.values()):
            of_recordings(runs[0][shared[0]], [pattern])  # which raises
    chosen = [name for name in shared if wanted[name] or not patterns]
    compared = {}
    for name in chosen:
        with prefixed(f"{name}: " if name else ""):
            compared[name] = compare_runs([run[name] for run in runs], patterns=wanted[name], against=against)
    others = [f"{name} ({_folder(run)})" for run in runs for name in run if name not in shared]
    if others:
        first, note = compared[chosen[0]], f"not in all runs, and left out: {', '.join(dict.fromkeys(others))}"
        compared[chosen[0]] = replace(first, notes=[*first.notes, note])
    return compared


def compared_averages(compared: Mapping[str, Comparison]) -> list[MacroAverage]:
    """Averages of rows over sets that are of one language and normaliser."""
    return macro_averages(
        {
            name: {
                row.name: {"mer": row.mer, "wer": row.wer, "language": one.language, "normaliser": one.normaliser}
                for row in one.rows
            }
            for name, one in compared.items()
        }
    )


def _named_alike(runs: Sequence[MeasuredSets]) -> list[MeasuredSets]:
    """The runs with names for sets that have none, where a set of another run is of the same recordings."""
    named = {name: run[name] for run in runs for name in run if name != UNNAMED}
    alike: list[MeasuredSets] = []
    for run in runs:
        own = run.get(UNNAMED)
        same = None if own is None else next((name for name, one in named.items() if same_data(own, one)), None)
        alike.append(run if own is None or same is None else {same: own})
    return alike


def _folder(run: MeasuredSets) -> str:
    return short_name(next(iter(run.values())).folder)
