"""Calibration of judges: what each would catch if it dropped as many labels as the distance does, alone and beside it.

Pure functions over what validation stored. Only where the share of kept labels is the same is a higher recall a better
judge: whoever drops more catches more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2d_hf.formatting import counted
from k2d_hf.validation.calibration import BAD_MER, FEW_BAD, THRESHOLD_METRICS, ValidatedLabels, percent, share_of
from k2d_hf.validation.combining import ALL, ANY, SUM
from k2d_hf.validation.distance import AUXILIARIES_BY, COUNTING_LOOPS
from k2d_hf.validation.judges import JUDGES

_SIGNS = {ANY: "or", ALL: "and", SUM: "+"}


@dataclass(frozen=True)
class JudgeFigures:
    """A judge at the limit at which it drops as many labels as the distance, or the next fewer where some are alike."""

    name: str  # a metric, also of one of several auxiliaries, a judge, or the distance with a judge
    setting: str  # that takes the limit
    limit: float
    kept: float  # share of the chunks
    shared: float | None  # share of the chunks it drops that the distance drops, too
    recall: float | None  # share of the bad labels that it drops; like the next two None without references
    good_dropped: float | None
    auc: float | None  # probability that it measures more of a bad label than of another; 0.5 is chance
    combine: str | None = None  # how distance and judge decide together, as of `validate.combine`; None of one alone
    threshold: float | None = None  # of the distance beside the limit, where they decide together


@dataclass(frozen=True)
class JudgeComparison:
    """All judges at one share of kept chunks, and the one to take."""

    judges: list[JudgeFigures]  # first the metric that was asked for
    recommended: str
    why: str


def compare_judges(labels: ValidatedLabels, metric: str, alpha: float) -> JudgeComparison:
    """Compare the other metrics, the judges, and the distance with each judge, with `metric` at `alpha`.

    Where there are several auxiliaries the distance from each alone is among them, and that by the other way.
    Chunks that the auxiliary did not transcribe are dropped by all. One of which a judge knows nothing it keeps.
    Every other chunk counts, one that a limit dropped, or several judges together, too: no verdict of validation does.
    """
    known = None if labels.true_mer is None else ~np.isnan(labels.true_mer)
    bad = None if labels.true_mer is None or known is None else known & (labels.true_mer > BAD_MER)
    of_metric = np.where(labels.transcribed, labels.distances()[metric], np.inf)
    by_distance = of_metric > alpha
    count = int(by_distance.sum())

    def figures(order: np.ndarray, beyond: float) -> dict[str, Any]:
        """Of whatever drops the labels that come after `beyond` in some order."""
        dropped = order > beyond
        found = {"kept": float(1 - dropped.mean()), "shared": share_of(by_distance, dropped)}
        if known is None or bad is None:
            return {**found, "recall": None, "good_dropped": None, "auc": None}
        good = known & ~bad
        recall, good_dropped = share_of(dropped, bad), share_of(dropped, good)
        return {**found, "recall": recall, "good_dropped": good_dropped, "auc": _auc(order[bad], order[good])}

    judges = [JudgeFigures(metric, "threshold", alpha, **figures(of_metric, alpha))]
    for name, values in _other_distances(labels, metric):
        limit = limit_that_drops(values, count)
        judges.append(JudgeFigures(name, "threshold", limit, **figures(values, limit)))
    always = ~labels.transcribed | (labels.teacher_loops.astype(bool) & (metric in COUNTING_LOOPS))
    for judge in JUDGES:
        measured = labels.measures.get(judge.column)
        if measured is None or np.isnan(measured).all():
            continue
        values = np.where(np.isnan(measured), np.nanmin(measured), measured)  # which no limit among them drops
        values = np.where(labels.transcribed, values, np.inf)
        limit = limit_that_drops(values, count)
        judges.append(JudgeFigures(judge.name, judge.setting, limit, **figures(values, limit)))
        for one in _together(of_metric, measured, always, (alpha, limit), count):
            name, together = f"{metric} {_SIGNS[one.way]} {judge.name}", figures(one.order, one.beyond)
            together |= {"combine": one.way, "threshold": one.threshold}
            judges.append(JudgeFigures(name, judge.setting, one.limit, **together))
    return JudgeComparison(judges, *_recommended(judges, 0 if bad is None else int(bad.sum()), labels))


def _other_distances(labels: ValidatedLabels, metric: str) -> Iterator[tuple[str, np.ndarray]]:
    """Name and values of each distance but that of `metric`, infinite where the auxiliary wrote nothing."""
    distances = {name: values for name, values in labels.distances().items() if name in THRESHOLD_METRICS}
    distances.pop(metric)
    if labels.further:
        each = [one[metric] for one in labels.distances_of_each()]
        distances |= {f"{metric} of auxiliary {number}": values for number, values in enumerate(each, start=1)}
        if len(each) % 2 == 0:  # of an odd number both ways are the same
            other = next(by for by in AUXILIARIES_BY if by != labels.auxiliaries_by)
            distances[f"{metric} by {other}"] = labels.distances(other)[metric]
    for name, of_name in distances.items():
        yield name, np.where(labels.transcribed, of_name, np.inf)


@dataclass(frozen=True)
class _Together:
    """The distance and a judge by one of `WAYS`: an order of the labels, of which those beyond a place are dropped."""

    way: str
    order: np.ndarray  # [chunks]
    beyond: float
    threshold: float  # of the distance, with which validation drops the same labels
    limit: float  # likewise of the judge


def _together(
    distance: np.ndarray, measured: np.ndarray, always: np.ndarray, alone: tuple[float, float], count: int
) -> Iterator[_Together]:
    """How distance and judge decide together where they drop no more than `count`, as `combining.reason_to_drop` does.

    By `any` and `all` both have the limit at which they drop an equal number alone. By `sum` their limits are in the
    proportion of those at which each drops `count` alone.

    Args:
        distance: of the labels, [chunks].
        measured: by the judge, [chunks]; NaN is not known, and has no say.
        always: which labels are dropped whatever they measure, [chunks].
        alone: threshold and limit at which each drops `count` alone.
        count: of the labels to drop.
    """
    unknown = np.isnan(measured)
    if len(np.unique(measured[~unknown])) < 2:  # it tells no label from another
        return
    if always.all() or always.sum() > count:  # there is nothing to decide
        return
    values = np.where(unknown, np.nanmin(measured), measured)
    # a value is beyond the limit that drops k of them where no more than k are as high as it
    as_high = [np.searchsorted(np.sort(-one), -one, side="right").astype(float) for one in (distance, values)]
    for way, of_both in ((ANY, np.minimum), (ALL, np.maximum)):
        has_no_say = len(values) + 1 if way == ANY else 0
        order = np.where(always, np.inf, -of_both(as_high[0], np.where(unknown, has_no_say, as_high[1])))
        beyond = limit_that_drops(order, count)
        each = -int(beyond) - 1
        yield _Together(way, order, beyond, limit_that_drops(distance, each), limit_that_drops(values, each))
    threshold, limit = alone
    if threshold > 0 and limit > 0:
        of_distance = distance / threshold
        order = np.where(always, np.inf, np.where(unknown, of_distance, (of_distance + measured / limit) / 2))
        beyond = limit_that_drops(order, count)
        above = beyond * (1 + 1e-9)  # so that rounding leaves the label that is at the limit where it is
        yield _Together(SUM, order, beyond, threshold * above, limit * above)


def limit_that_drops(values: np.ndarray, count: int) -> float:
    """The lowest limit beyond which no more than `count` of the values are; a value of exactly the limit is kept.

    >>> limit_that_drops(np.array([0.0, 0.5, 0.5, 2.0]), 2)
    0.5
    """
    return float(np.sort(values)[::-1][min(count, len(values) - 1)])


def _auc(bad: np.ndarray, good: np.ndarray) -> float | None:
    """Area under the curve of recall over good labels dropped (Mann and Whitney's U by the number of pairs)."""
    if not len(bad) or not len(good):
        return None
    ranked = np.sort(good)
    below, up_to = np.searchsorted(ranked, bad, side="left"), np.searchsorted(ranked, bad, side="right")
    return float((below + up_to).sum() / (2 * len(bad) * len(good)))


def _recommended(judges: list[JudgeFigures], bad: int, labels: ValidatedLabels) -> tuple[str, str]:
    """Name and reason: the highest recall, of those the fewest good labels; the metric where none does better."""
    first = judges[0]
    if labels.true_mer is None:
        return first.name, (
            "without references nothing tells judges apart; read what one drops of which the distance drops little"
        )
    if first.recall is None or first.good_dropped is None:
        return first.name, "labels with a reference are all bad or all good, so nothing tells judges apart"

    def worth(one: JudgeFigures) -> tuple[float, float]:
        return round(one.recall or 0.0, 9), -round(one.good_dropped or 0.0, 9)

    best = max(judges, key=worth)  # the first of several alike
    found = counted(bad, "bad label")
    few = f"; with only {found} that is a hint" if bad < FEW_BAD else ""
    what = f"it drops {percent(best.recall)} of the {found} and {percent(best.good_dropped)} of the others"
    if best.combine is not None:
        what += f" (combine {best.combine}, threshold {best.threshold:.3g}, {best.setting} {best.limit:.3g})"
    if best is first:
        return best.name, f"{what}, and no judge that keeps as many does better{few}"
    than = f"{first.name} {percent(first.recall)} and {percent(first.good_dropped)}"
    return best.name, f"{what}, {than}, with as many kept{few}"
