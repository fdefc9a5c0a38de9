"""The verdict on a label: the distance and the limits of the judges, by any, all, or a weighted mean of them.

The paper has the distance alone. What more judges make of a label is up to a recipe: `validate.combine`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import did_you_mean
from k2d_hf.validation.distance import LabelComparison, drop_reason
from k2d_hf.validation.judges import JUDGES, is_judged, limits_of

ANY, ALL, SUM = "any", "all", "sum"
WAYS = (ANY, ALL, SUM)
DISTANCE = "distance"
LOOPS = "teacher loops"
BEYOND_SUM = "weighted mean > 1"
_WITHOUT_DISTANCE = ("full", "trivial")  # metrics whose verdict is not one of a distance
_DISTANCE_REASON = re.compile(r"distance > \d\.\d+")


def reason_to_drop(
    comparison: LabelComparison, measured: Mapping[str, float | None], settings: Mapping[str, Any]
) -> str | None:
    """Why a label is dropped, as a stable string to count by; None where it is kept.

    `any`: one limit that it is beyond is enough; a judge is named before the distance, for it is beyond at every
    threshold. `all`: it is beyond the threshold and beyond every limit. `sum`: the mean of its distance and measures,
    each divided by its limit, by their `weights`, is above 1. A looping teacher is dropped by all three (Eq. 5), and a
    judge that does not know a label has no say in it.

    Args:
        comparison: of the two transcripts.
        measured: what judges measured of the label, by column; None is not known.
        settings: of validation, which were checked.
    """
    metric, threshold = settings["metric"], settings["threshold"]
    by_distance = drop_reason(comparison, metric, threshold)
    known = list(_limited(measured, limits_of(settings)))
    judged = [name if measure > limit else None for name, _, measure, limit in known]
    if settings["combine"] == ANY:
        return next(filter(None, judged), by_distance)
    if by_distance == LOOPS:
        return by_distance
    distances = [] if metric in _WITHOUT_DISTANCE else [by_distance]
    if settings["combine"] == ALL:
        reasons = [*distances, *judged]
        return " and ".join(filter(None, reasons)) if reasons and all(reasons) else None
    weights = settings["weights"] or {}
    shares = [(weights.get(column, 1.0), _share(measure, limit)) for _, column, measure, limit in known]
    shares += [(weights.get(DISTANCE, 1.0), _share(comparison.distance, threshold)) for _ in distances]
    total = math.fsum(weight for weight, _ in shares)
    # one whose weight is 0 has no say, however far it is beyond
    mean = math.fsum(weight * share for weight, share in shares if weight) / total if total else 0.0
    return BEYOND_SUM if mean > 1 else None


def _limited(
    measured: Mapping[str, float | None], limits: Mapping[str, float]
) -> Iterator[tuple[str, str, float, float]]:
    """Reason, column, measure and limit of each judge that has a limit and knows the label."""
    for judge in JUDGES:
        limit, measure = limits.get(judge.setting), measured.get(judge.column)
        if limit is not None and measure is not None:
            yield judge.reason(limit), judge.column, measure, limit


def _share(measure: float, limit: float) -> float:
    """A measure as a share of its limit, which is 0 for a threshold of 0 alone."""
    return measure / limit if limit else (math.inf if measure > 0 else 0.0)


def checked_weights(settings: Mapping[str, Any]) -> None:
    """Raise K2DError for weights without a sum, or of what has no say, or that are no numbers from 0 on."""
    weights, combine = settings.get("weights"), settings.get("combine", ANY)
    if weights is None:
        return
    if not isinstance(weights, Mapping):
        raise K2DError(f"weights: {weights!r} is no mapping; give numbers by column")
    if combine != SUM:
        raise K2DError(f"weights: they are of combine {SUM}, which is {combine}; set it, or leave them out")
    limits = limits_of(settings)
    known = [DISTANCE, *(judge.column for judge in JUDGES)]
    for name, weight in weights.items():
        if name not in known:
            raise K2DError(f"weights: {name!r} is none of {', '.join(known)}{did_you_mean(name, known)}")
        if isinstance(weight, bool) or not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
            raise K2DError(f"weights: {name} {weight!r}: give a number from 0 on")
        limit = next((judge.setting for judge in JUDGES if judge.column == name), None)
        if limit is not None and limit not in limits:
            raise K2DError(f"weights: {name} has no limit to be divided by; set {limit}")


def demands(settings: Mapping[str, Any]) -> list[str]:
    """What kept chunks have by the limits that are set, beside a distance: `speaking rate of at most 15 ...`.

    Raises:
        K2DError: for a limit that is none, or such weights.
    """
    checked_weights(settings)
    limits, combine = limits_of(settings), settings.get("combine", ANY)
    given = [(judge, limits[judge.setting]) for judge in JUDGES if judge.setting in limits]
    each = [f"{judge.name} of at most {limit:g} {judge.unit}" for judge, limit in given]
    if combine == ANY or not each:
        return each
    if combine == ALL:
        return [f"{' or '.join(each)}, unless the distance is within the threshold"]
    shares = {DISTANCE: "distance / threshold", **{judge.column: f"{judge.name} / {limit:g}" for judge, limit in given}}
    weights = settings.get("weights") or {}
    weighted = [f"{weights[name]:g} times {share}" if name in weights else share for name, share in shares.items()]
    return [f"weighted mean of at most 1, of {', '.join(weighted)}"]


def describe_validation(settings: Mapping[str, Any]) -> str:
    """How chunks were judged, for cards: metric, threshold, and what else kept chunks have."""
    unit = [f"each segment by itself ({settings['keep']})"] if settings.get("unit") == "segment" else []
    return ", ".join([settings["metric"], f"threshold {settings['threshold']:g}", *unit, *demands(settings)])


def is_of_several(reason: str | None) -> bool:
    """Whether a label was dropped by the distance and judges, or several judges, together: none of them alone did.

    >>> reasons = ("entropy > 2", "distance > 0.40", "distance > 0.40 and entropy > 2", "weighted mean > 1")
    >>> list(map(is_of_several, reasons))
    [False, False, True, True]
    """
    return reason is not None and is_combined(reason) and (reason == BEYOND_SUM or " and " in reason)


def is_combined(reason: str) -> bool:
    """Whether a reason is one that the distance or judges give, alone or several together."""
    parts = reason.split(" and ")
    return reason == BEYOND_SUM or all(is_judged(part) or bool(_DISTANCE_REASON.fullmatch(part)) for part in parts)
