"""Calibration of judges: what each would catch if it dropped as many labels as the distance does, alone and beside it.

Pure functions over what validation stored. Only where the share of kept labels is the same is a higher recall a better
judge: whoever drops more catches more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from k2d_hf.validation.calibration import BAD_MER, FEW_BAD, THRESHOLD_METRICS, ValidatedLabels, percent, share_of
from k2d_hf.validation.distance import AUXILIARIES_BY
from k2d_hf.validation.judges import JUDGES


@dataclass(frozen=True)
class JudgeFigures:
    """A judge at the limit at which it drops as many labels as the distance, or the next fewer where some are alike."""

    name: str  # a metric, also of one of several auxiliaries, a judge, or the distance and a judge by their mean
    setting: str | None  # that takes the limit; None for such a mean
    limit: float
    kept: float  # share of the chunks
    shared: float | None  # share of the chunks it drops that the distance drops, too
    recall: float | None  # share of the bad labels that it drops; like the next two None without references
    good_dropped: float | None
    auc: float | None  # probability that it measures more of a bad label than of another; 0.5 is chance


@dataclass(frozen=True)
class JudgeComparison:
    """All judges at one share of kept chunks, and the one to take."""

    judges: list[JudgeFigures]  # first the metric that was asked for
    recommended: str
    why: str


def compare_judges(labels: ValidatedLabels, metric: str, alpha: float) -> JudgeComparison:
    """Compare the other metrics, the judges, and the mean of the distance and each judge with `metric` at `alpha`.

    Where there are several auxiliaries the distance from each alone is among them, and that by the other way.
    Chunks that the auxiliary did not transcribe are dropped by all. One of which a judge knows nothing it keeps.
    Every other chunk counts, one that a limit dropped, or several judges together, too: no verdict of validation does.
    """
    known = None if labels.true_mer is None else ~np.isnan(labels.true_mer)
    bad = None if labels.true_mer is None or known is None else known & (labels.true_mer > BAD_MER)
    of_metric = np.where(labels.transcribed, labels.distances()[metric], np.inf)
    by_distance = of_metric > alpha

    def figures(name: str, setting: str | None, values: np.ndarray, limit: float) -> JudgeFigures:
        dropped = values > limit
        shown = (name, setting, float(limit), float(1 - dropped.mean()), share_of(by_distance, dropped))
        if known is None or bad is None:
            return JudgeFigures(*shown, None, None, None)
        good = known & ~bad
        return JudgeFigures(*shown, share_of(dropped, bad), share_of(dropped, good), _auc(values[bad], values[good]))

    judges = [figures(metric, "threshold", of_metric, alpha)]
    for name, setting, values in _candidates(labels, metric):
        limit = limit_that_drops(values, int(by_distance.sum()))
        judges.append(figures(name, setting, values, limit))
        if setting != "threshold" and limit > 0 and alpha > 0:
            both = (of_metric / alpha + np.maximum(values, 0.0) / limit) / 2
            beside = limit_that_drops(both, int(by_distance.sum()))
            judges.append(figures(f"{metric} + {name}", None, both, beside))
    return JudgeComparison(judges, *_recommended(judges, 0 if bad is None else int(bad.sum()), labels))


def _candidates(labels: ValidatedLabels, metric: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """Name, setting and measure of each, infinite where the auxiliary wrote nothing, the lowest where unknown."""
    distances = {name: values for name, values in labels.distances().items() if name in THRESHOLD_METRICS}
    distances.pop(metric)
    if labels.further:
        each = [one[metric] for one in labels.distances_of_each()]
        distances |= {f"{metric} of auxiliary {number}": values for number, values in enumerate(each, start=1)}
        if len(each) % 2 == 0:  # of an odd number both ways are the same
            other = next(by for by in AUXILIARIES_BY if by != labels.auxiliaries_by)
            distances[f"{metric} by {other}"] = labels.distances(other)[metric]
    for name, of_name in distances.items():
        yield name, "threshold", np.where(labels.transcribed, of_name, np.inf)
    for judge in JUDGES:
        values = labels.measures.get(judge.column)
        if values is not None and not np.isnan(values).all():
            measured = np.where(np.isnan(values), np.nanmin(values), values)  # which no limit among them drops
            yield judge.name, judge.setting, np.where(labels.transcribed, measured, np.inf)


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
    few = f"; with only {bad} bad labels that is a hint" if bad < FEW_BAD else ""
    what = f"it drops {percent(best.recall)} of the {bad} bad labels and {percent(best.good_dropped)} of the others"
    if best is first:
        return best.name, f"{what}, and no judge that keeps as many does better{few}"
    than = f"{first.name} {percent(first.recall)} and {percent(first.good_dropped)}"
    return best.name, f"{what}, {than}, with as many kept{few}"
