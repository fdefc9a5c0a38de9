"""Figures of code-switching as `evaluation.json` has them, and those of them that terminal, report and card show.

A set whose references never change script has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from k2d_hf.scoring.error_rates import ErrorCounts
from k2d_hf.scoring.switching import SwitchingErrors, switching_errors

SWITCHING = "switching"  # of an evaluation's figures
EXPLAINED = (
    "At a switch: reference tokens directly before or after a change of script, and how often they are wrong; away: "
    "all others. X as Y: share of the tokens of script X that stand in script Y, translated or misheard."
)
Rates = Sequence[float | None]


def switching_of(pairs: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
    """`switching_figures` of pairs of a reference and a hypothesis."""
    return switching_figures(sum((switching_errors(*pair) for pair in pairs), SwitchingErrors()))


def switching_figures(errors: SwitchingErrors) -> dict[str, Any] | None:
    """Figures as JSON has them, the commonest direction first; None where no reference changes script.

    `at` and `away` hold counts and rate, `directions` those of each direction (`Han to Latin`), and `written_as` how
    many tokens of a script stand in another (`Latin as Han`), of how many, and their rate.
    """
    if not errors.directions:
        return None
    order = sorted(errors.directions, key=lambda one: (-errors.directions[one].reference_length, one))
    pairs = dict.fromkeys([*order, *((new, old) for old, new in order), *sorted(errors.crossed)])
    crossed = {f"{old} as {new}": errors.translated((old, new)) for old, new in pairs}
    return {
        "at": _with_rate(errors.at),
        "away": _with_rate(errors.away),
        "directions": {f"{old} to {new}": _with_rate(errors.directions[old, new]) for old, new in order},
        "written_as": {
            name: {"tokens": one.substitutions, "of": one.reference_length, "rate": one.rate}
            for name, one in crossed.items()
        },
    }


def shown_rates(evaluations: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], dict[str, Rates]]:
    """Titles and, by model, the rates that a table shows, of the two scripts between which the references change most.

    Args:
        evaluations: figures by model, of which some have those of `switching_figures` as `switching`. Both results are
            empty where none has.
    """
    known = {name: found for name, figures in evaluations.items() if (found := figures.get(SWITCHING))}
    if not known:
        return [], {}
    old, new = next(iter(next(iter(known.values()))["directions"])).split(" to ")
    directions, crossed = [f"{old} to {new}", f"{new} to {old}"], [f"{new} as {old}", f"{old} as {new}"]
    rates: dict[str, Rates] = {
        name: [
            *(found[where]["rate"] for where in ("at", "away")),
            *(found["directions"].get(one, {}).get("rate") for one in directions),
            *(found["written_as"].get(one, {}).get("rate") for one in crossed),
        ]
        for name, found in known.items()
    }
    return ["at", "away", *directions, *crossed], rates


def switch_counts(evaluations: Mapping[str, Mapping[str, Any]]) -> tuple[int, int]:
    """Reference tokens at a switch, and all of them, by the first model that has such figures."""
    found = next(found for figures in evaluations.values() if (found := figures.get(SWITCHING)))
    at, away = (found[where]["reference_length"] for where in ("at", "away"))
    return at, at + away


def _with_rate(counts: ErrorCounts) -> dict[str, Any]:
    return {**asdict(counts), "rate": counts.rate if counts.reference_length else None}
