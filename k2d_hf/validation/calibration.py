"""Calibration: what each distance would keep at every threshold alpha, and which alpha to take (paper, Table 5).

Pure functions over what validation stored: nothing is transcribed again. With true error rates of the labels they
give the recall of bad labels; without, where the curve of what is kept has its knee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import counted
from k2d_hf.validation.distance import MEDIAN, METRICS, check_choice, distances_of, joint_distance

BAD_MER = 0.4  # a label whose true MER is above is bad (paper)
PAPER_ALPHA = 0.4
ALPHAS = tuple(index / 100 for index in range(101))
COARSE_ALPHAS = tuple(index / 10 for index in range(1, 10))  # over which the paper takes the mean recall
LEAST_KEPT = 0.5  # the paper takes the maximum recall among alphas that keep more than this share
FEW_BAD = 20  # labels, below which one more or less moves the recall by over 5%
LEAST_KNEE = 0.1  # of a curve scaled to a unit square; below, it is taken for straight
THRESHOLD_METRICS = ("mer", "per", "composite")  # those whose verdict depends on alpha


@dataclass(frozen=True)
class FurtherTranscripts:
    """What decides of the transcripts of a further auxiliary, a value a chunk."""

    loops: np.ndarray
    mer: np.ndarray
    per: np.ndarray


@dataclass(frozen=True)
class ValidatedLabels:
    """The columns of validation that decide what is kept, a value a unit; rates may exceed 1.

    A unit is a chunk, or where validation judged those a segment.
    """

    seconds: np.ndarray
    mer: np.ndarray
    per: np.ndarray
    teacher_loops: np.ndarray
    auxiliary_loops: np.ndarray
    transcribed: np.ndarray  # False where an auxiliary gave no transcript: such a chunk is dropped whatever the metric
    true_mer: np.ndarray | None = None  # of the label against its reference; NaN where there is none
    judged: np.ndarray | None = None  # True where a judge beyond the distance dropped it, whatever metric and alpha
    # True where several together dropped it (`validate.combine`): at which alpha they do takes all their limits
    combined: np.ndarray | None = None
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)  # of the judges, a value a chunk, by column
    keep: np.ndarray | None = None  # the verdict as it is
    bad_seconds: np.ndarray | None = None  # of its segments that are bad; NaN where there is no reference
    chunk_distances: np.ndarray | None = None  # of segments: of the chunk that each is of; infinite where it had none
    further: Sequence[FurtherTranscripts] = ()  # of the auxiliaries beside the first, whose columns are above
    auxiliaries_by: str = MEDIAN  # how one distance is made of those of several

    def distances_of_each(self) -> list[dict[str, np.ndarray]]:
        """Distances by metric (Eq. 1 to 5) from what each auxiliary wrote."""
        first = FurtherTranscripts(self.auxiliary_loops, self.mer, self.per)
        return [distances_of(self.teacher_loops, one.loops, one.mer, one.per) for one in (first, *self.further)]

    def distances(self, by: str | None = None) -> dict[str, np.ndarray]:
        """Distances by metric from what all of them wrote; `by` another way than that of these labels."""
        each = self.distances_of_each()
        return {name: joint_distance([one[name] for one in each], by or self.auxiliaries_by) for name in METRICS}


@dataclass(frozen=True)
class Kept:
    """What is kept of some labels. All but the first two are None without references, or with nothing to count."""

    kept: float  # share of the chunks, or segments
    hours: float
    recall: float | None  # share of the bad labels that is dropped
    good_dropped: float | None  # share of the other labels that is dropped
    true_mer: float | None  # mean over the kept labels that have a reference
    capped_true_mer: float | None  # likewise, each counted as 1 at most: one loop may have a rate of 20
    bad_speech: float | None  # share of the kept speech, by seconds, that is in bad segments


@dataclass(frozen=True)
class CurvePoint(Kept):
    """What one alpha keeps, by the distance and by judges that drop a label alone."""

    alpha: float


@dataclass(frozen=True)
class MetricCurve:
    """A metric over all alphas, and the two figures of the paper's Table 5."""

    metric: str
    points: list[CurvePoint]
    max_recall: float | None  # among alphas that keep more than half of the chunks
    max_recall_alpha: float | None
    mean_recall: float | None  # over alpha 0.1, 0.2 ... 0.9
    bend: float | None  # alpha of the knee of the curve of what is kept; None without one

    def at(self, alpha: float) -> CurvePoint:
        """The point of an alpha on the grid."""
        return min(self.points, key=lambda point: abs(point.alpha - alpha))


@dataclass(frozen=True)
class Recommendation:
    """An alpha for a metric, and the reason in one sentence."""

    metric: str
    alpha: float
    why: str


def metric_distances(labels: ValidatedLabels, metric: str) -> np.ndarray:
    """Distance of every chunk by `metric` (Eq. 1 to 5) [chunks], infinite where it is dropped whatever alpha.

    A chunk that several judges dropped together has its distance: by it alone another alpha may keep it.
    """
    check_choice("metric", metric, METRICS)
    eligible = labels.transcribed if labels.judged is None else labels.transcribed & ~labels.judged
    return np.where(eligible, labels.distances()[metric], np.inf)


def metric_curve(labels: ValidatedLabels, metric: str) -> MetricCurve:
    """What `metric` keeps at each alpha, with the recall of bad labels where true error rates are known.

    Raises:
        K2DError: without chunks, or for an unknown metric.
    """
    if not len(labels.seconds):
        raise K2DError("there are no chunks to calibrate on; `k2d validate` writes some")
    distances = metric_distances(labels, metric)
    points = [CurvePoint(alpha=alpha, **_kept(labels, distances <= alpha)) for alpha in ALPHAS]
    half = [point for point in points if point.kept > LEAST_KEPT and point.recall is not None]
    best = max(half, key=lambda point: (point.recall, -abs(point.alpha - PAPER_ALPHA)), default=None)
    known = [point.recall for point in points if point.alpha in COARSE_ALPHAS and point.recall is not None]
    below = [point for point in points if point.alpha < 1]  # at 1 all that is capped comes in at once
    return MetricCurve(
        metric=metric,
        points=points,
        max_recall=None if best is None else best.recall,
        max_recall_alpha=None if best is None else best.alpha,
        mean_recall=sum(known) / len(known) if known else None,
        bend=knee_of([point.alpha for point in below], [point.kept for point in below]),
    )


def kept_by_verdict(labels: ValidatedLabels) -> Kept | None:
    """What validation kept by its own verdict, however it combined its judges; None where that is not known."""
    return None if labels.keep is None else Kept(**_kept(labels, labels.keep))


def _kept(labels: ValidatedLabels, kept: np.ndarray) -> dict[str, Any]:
    """The fields of `Kept`, of the labels where `kept` [labels] is true."""
    recall = good_dropped = true_mer = capped = None
    if labels.true_mer is not None:
        known = ~np.isnan(labels.true_mer)
        bad = known & (labels.true_mer > BAD_MER)
        recall = share_of(~kept, bad)
        good_dropped = share_of(~kept, known & ~bad)
        if (kept & known).any():
            rates = labels.true_mer[kept & known]
            true_mer, capped = float(rates.mean()), float(np.minimum(rates, 1.0).mean())
    return {
        "kept": float(kept.mean()),
        "hours": float(labels.seconds[kept].sum()) / 3600,
        "recall": recall,
        "good_dropped": good_dropped,
        "true_mer": true_mer,
        "capped_true_mer": capped,
        "bad_speech": bad_share(labels, kept),
    }


def bad_share(labels: ValidatedLabels, kept: np.ndarray) -> float | None:
    """Which share of the kept speech that has a reference, by seconds, is in bad segments; None where there is none."""
    if labels.bad_seconds is None:
        return None
    known = kept & ~np.isnan(labels.bad_seconds)
    seconds = float(labels.seconds[known].sum())
    return float(labels.bad_seconds[known].sum()) / seconds if seconds else None


@dataclass(frozen=True)
class KeptSpeech:
    """What whole chunks would keep at an alpha, beside the segments that are judged: hours, and how much is bad."""

    alpha: float
    hours: float
    bad_speech: float | None


def kept_by_chunk(labels: ValidatedLabels) -> list[KeptSpeech]:
    """What would be kept at each alpha if chunks were judged whole, by the same segments; none of labels by chunk."""
    if labels.chunk_distances is None:
        return []
    kept = [labels.chunk_distances <= alpha for alpha in ALPHAS]
    return [
        KeptSpeech(alpha, float(labels.seconds[of_alpha].sum()) / 3600, bad_share(labels, of_alpha))
        for alpha, of_alpha in zip(ALPHAS, kept, strict=True)
    ]


def share_of(what: np.ndarray, among: np.ndarray) -> float | None:
    """Share of `what` among those of `among`; None where there are none."""
    return float(what[among].mean()) if among.any() else None


def knee_of(x: Sequence[float], y: Sequence[float]) -> float | None:
    """The knee of a rising curve: the x at which it is highest above the chord between its ends.

    Both axes are scaled to 0 ... 1 first, as in Kneedle (Satopaa et al., 2011). None where it rises by nothing, is
    nowhere a tenth of the square above the chord, or is made of fewer than three points.
    """
    if len(x) < 3 or y[-1] <= y[0]:
        return None
    across = (np.asarray(x) - x[0]) / (x[-1] - x[0])
    above = (np.asarray(y) - y[0]) / (y[-1] - y[0]) - across
    highest = int(above.argmax())
    return float(x[highest]) if above[highest] >= LEAST_KNEE else None


def recommend(curve: MetricCurve, labels: ValidatedLabels) -> Recommendation:
    """An alpha for the metric of `curve`.

    With references: where the share of bad labels dropped exceeds that of good ones by most (Youden's J), among alphas
    that keep more than half. Without: the knee of the curve of what is kept. Where there is neither, the paper's.

    Raises:
        K2DError: for a metric whose verdict does not depend on alpha.
    """
    if curve.metric not in THRESHOLD_METRICS:
        raise K2DError(
            f"metric {curve.metric} does not depend on alpha: calibrate one of {', '.join(THRESHOLD_METRICS)}"
        )
    alpha, why = _by_recall(curve, labels) if labels.true_mer is not None else _by_knee(curve)
    return Recommendation(curve.metric, alpha, why)


def _by_recall(curve: MetricCurve, labels: ValidatedLabels) -> tuple[float, str]:
    assert labels.true_mer is not None
    known = int((~np.isnan(labels.true_mer)).sum())
    bad = int((labels.true_mer > BAD_MER).sum())
    paper = "the paper's 0.4 stands"
    if bad in (0, known):
        which = f"all {known} labels are" if bad else f"none of {known} labels is"
        return PAPER_ALPHA, f"{which} bad (true MER > {BAD_MER}), so nothing tells alphas apart: {paper}"
    half = [point for point in curve.points if point.kept > LEAST_KEPT]
    if not half:
        return PAPER_ALPHA, f"no alpha keeps more than half of the chunks: {paper}, and the two models agree too seldom"

    def gain(point: CurvePoint) -> float:
        return (point.recall or 0.0) - (point.good_dropped or 0.0)

    best = max(half, key=lambda point: (round(gain(point), 9), -abs(point.alpha - PAPER_ALPHA)))
    if gain(best) <= 0:
        vain = "no alpha that keeps more than half drops a larger share of the bad labels than of the others"
        return PAPER_ALPHA, f"{vain}: {paper}"
    few = f"; with only {counted(bad, 'bad label')} that is a hint" if bad < FEW_BAD else ""
    return best.alpha, (
        f"it drops {percent(best.recall)} of the {counted(bad, 'bad label')} for {percent(best.good_dropped)} of the "
        f"{known - bad} others, the widest gap among alphas that keep more than half{few}"
    )


def _by_knee(curve: MetricCurve) -> tuple[float, str]:
    if curve.bend is not None:
        kept = percent(curve.at(curve.bend).kept)
        gain = "a larger alpha gains few chunks for the disagreement it lets in"
        return curve.bend, f"the curve of what is kept bends there, at {kept}: {gain}"
    below = [point.kept for point in curve.points if point.alpha < 1]
    if below[0] == below[-1]:
        same = f"every alpha keeps the same {percent(below[0])}, so there is no bend"
        return PAPER_ALPHA, f"{same}: the paper's 0.4 stands"
    return PAPER_ALPHA, "the share that is kept rises evenly with alpha, without a bend: the paper's 0.4 stands"


def percent(share: float | None) -> str:
    """`0.314` as `31%`; `-` for None."""
    return "-" if share is None else f"{100 * share:.0f}%"
