"""The result of a calibration: all metrics side by side, as data for JSON and as the tables that a terminal shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from k2d_hf.terminal.screen import ENDLESS, Screen, aligned
from k2d_hf.validation.calibration import (
    BAD_MER,
    COARSE_ALPHAS,
    PAPER_ALPHA,
    THRESHOLD_METRICS,
    Kept,
    KeptSpeech,
    MetricCurve,
    Recommendation,
    ValidatedLabels,
    kept_by_chunk,
    kept_by_verdict,
    metric_curve,
    percent,
    recommend,
)
from k2d_hf.validation.distance import METRICS
from k2d_hf.validation.judge_comparison import JudgeComparison, compare_judges
from k2d_hf.validation.judges import JUDGES


@dataclass(frozen=True)
class ReferenceCounts:
    """How many chunks could be compared with a reference, and how many labels are bad."""

    chunks: int
    bad: int
    mean_true_mer: float
    mean_capped_true_mer: float


@dataclass(frozen=True)
class Spread:
    """How a measure of the chunks is spread: from which a limit can be chosen."""

    median: float
    percentile_99: float
    highest: float


@dataclass(frozen=True)
class Calibration:
    """Curves by metric, the recommendation for one of them, and what they were counted over."""

    chunks: int
    hours: float
    unheard: int
    references: ReferenceCounts | None
    recommendation: Recommendation
    curves: dict[str, MetricCurve]
    judged: int = 0  # dropped by a judge beyond the distance, at every alpha
    combined: int = 0  # dropped by several judges together; the curves have them by the distance alone
    verdict: Kept | None = None  # what validation kept, whatever decided; None where the chunks do not say
    measures: dict[str, Spread] = field(default_factory=dict)  # what the judges measured, by column
    unit: str = "chunk"  # what is kept or dropped, and counted as `chunks`
    by_chunk: list[KeptSpeech] = field(default_factory=list)  # of segments: what whole chunks would keep, by alpha
    comparison: JudgeComparison | None = None  # of the judges, at the share that the distance keeps at that alpha


def calibrate(labels: ValidatedLabels, metric: str = "composite") -> Calibration:
    """Curves of all metrics over `labels`, and an alpha for `metric`.

    Raises:
        K2DError: without chunks, or for a metric that does not depend on alpha.
    """
    curves = {name: metric_curve(labels, name) for name in METRICS}
    recommendation = recommend(curves[metric], labels)
    return Calibration(
        chunks=len(labels.seconds),
        hours=float(labels.seconds.sum()) / 3600,
        unheard=int((~labels.transcribed).sum()),
        references=_counts(labels),
        recommendation=recommendation,
        curves=curves,
        judged=0 if labels.judged is None else int((labels.transcribed & labels.judged).sum()),
        combined=0 if labels.combined is None else int((labels.transcribed & labels.combined).sum()),
        verdict=kept_by_verdict(labels),
        unit="chunk" if labels.chunk_distances is None else "segment",
        by_chunk=kept_by_chunk(labels),
        measures={
            column: Spread(float(np.median(values)), float(np.percentile(values, 99)), float(values.max()))
            for column, measured in labels.measures.items()
            if len(values := measured[~np.isnan(measured)])
        },
        # the judges measure chunks, which are no units where segments were judged
        comparison=compare_judges(labels, metric, recommendation.alpha) if labels.chunk_distances is None else None,
    )


def _counts(labels: ValidatedLabels) -> ReferenceCounts | None:
    if labels.true_mer is None:
        return None
    rates = labels.true_mer[~np.isnan(labels.true_mer)]
    capped = np.minimum(rates, 1.0)
    return ReferenceCounts(len(rates), int((rates > BAD_MER).sum()), float(rates.mean()), float(capped.mean()))


def kept_whole(calibration: Calibration, alpha: float) -> KeptSpeech | None:
    """What whole chunks would keep at an alpha on the grid, where segments were judged; else None."""
    return min(calibration.by_chunk, key=lambda point: abs(point.alpha - alpha), default=None)


def kept_at(calibration: Calibration, metric: str | None, alpha: float | None) -> Kept | None:
    """What validation with this metric and alpha kept: by its verdict where that is known, else by the curve."""
    curve = calibration.curves.get(str(metric))
    if calibration.verdict is not None or curve is None or alpha is None:
        return calibration.verdict
    return curve.at(alpha)


def kept_line(calibration: Calibration, metric: str, alpha: float) -> str:
    """What validation kept at an alpha, and how much of it is bad, by segment and beside it by chunk, in one line."""
    point, whole = kept_at(calibration, metric, alpha), kept_whole(calibration, alpha)
    assert point is not None
    assert whole is not None
    parts = [("segments", point.hours, point.bad_speech), ("whole chunks would", whole.hours, whole.bad_speech)]
    told = [
        f"{who} keep {60 * hours:.1f} min" + ("" if bad is None else f", {60 * hours * bad:.1f} min of it bad")
        for who, hours, bad in parts
    ]
    return f"{'; '.join(told)} (true MER above {100 * BAD_MER:.0f}%)"


def render_calibration(calibration: Calibration, screen: Screen = ENDLESS) -> str:
    """The calibration as text: what it was counted over, alpha by alpha, metric by metric, and the recommendation."""
    chosen = calibration.recommendation
    parts = [
        _summary(calibration),
        aligned(_alphas_table(calibration), screen),
        aligned(_metrics_table(calibration), screen),
        *_verdict(calibration),
        *_measures(calibration),
        f"Recommended: {chosen.metric} with alpha {chosen.alpha:.2f}: {chosen.why}.",
        *_comparison(calibration, screen),
    ]
    return "\n\n".join(parts)


def _summary(calibration: Calibration) -> str:
    text = f"{calibration.chunks} {calibration.unit}s, {calibration.hours:.2f} h"
    if calibration.unheard:
        text += f", {calibration.unheard} without a transcript of the auxiliary, dropped at every alpha"
    if calibration.judged:
        text += f", {calibration.judged} dropped by a limit beyond the distance, at every alpha"
    if calibration.combined:
        text += f", {calibration.combined} dropped by several judges together, here by the distance alone"
    counts = calibration.references
    if counts is None:
        return text + "; no references, so whether a label is bad is not known"
    return (
        f"{text}; {counts.chunks} with a reference, of which {counts.bad} bad (true MER > {BAD_MER}), "
        f"mean true MER {counts.mean_true_mer:.3f} ({counts.mean_capped_true_mer:.3f} with each at most 1)"
    )


def _verdict(calibration: Calibration) -> list[str]:
    """What validation kept, where it combined judges: no row of the tables has it, as they know the distance alone."""
    kept = calibration.verdict
    if not calibration.combined or kept is None:
        return []
    text = f"Validation kept {percent(kept.kept)}, {kept.hours:.2f} h, by the distance and judges together"
    if calibration.references is not None:
        text += f"; it dropped {percent(kept.recall)} of the bad and {percent(kept.good_dropped)} of the others"
    return [f"{text}."]


def _measures(calibration: Calibration) -> list[str]:
    """A line for each judge beyond the distance, by which a limit can be chosen."""
    return [
        f"{judge.name}: median {spread.median:.3g}, 99% {spread.percentile_99:.3g}, highest {spread.highest:.3g} "
        f"{judge.unit} ({judge.setting} sets a limit)"
        for judge in JUDGES
        if (spread := calibration.measures.get(judge.column)) is not None
    ]


def _comparison(calibration: Calibration, screen: Screen) -> list[str]:
    """The judges at the share that the recommended alpha keeps, and which to take."""
    compared = calibration.comparison
    if compared is None or len(compared.judges) == len(THRESHOLD_METRICS):  # no judge, or other auxiliary, beside them
        return []
    known = calibration.references is not None
    rows = [
        ["judge", "limit", "kept", "also by distance", *(["recall of bad", "good dropped", "AUC"] if known else [])]
    ]
    for one in compared.judges:
        name = one.name.removeprefix(f"{compared.judges[0].name} ")  # of a mean with it: `+ uncertainty`
        limit = f"{one.limit:.3g}" if one.threshold is None else f"{one.threshold:.3g}, {one.limit:.3g}"
        row = [name, limit, percent(one.kept), percent(one.shared)]
        auc = "-" if one.auc is None else f"{one.auc:.2f}"
        rows.append([*row, *([percent(one.recall), percent(one.good_dropped), auc] if known else [])])
    return [aligned(rows, screen), f"Recommended judge: {compared.recommended}: {compared.why}."]


def _alphas_table(calibration: Calibration) -> list[list[str]]:
    chosen = calibration.recommendation
    by_chunk = {point.alpha: point for point in calibration.by_chunk}
    known = calibration.references is not None
    head = [chosen.metric, "kept", "hours", "recall of bad", "good dropped", "true MER", "capped", "bad speech"]
    rows = [[*(head if known else head[:3]), *(["by chunk, hours", "bad speech"][: 1 + known] if by_chunk else [])]]
    for alpha in sorted({*COARSE_ALPHAS, chosen.alpha}):
        point = calibration.curves[chosen.metric].at(alpha)
        row = [f"{alpha:.2f}{' *' if alpha == chosen.alpha else ''}", percent(point.kept), f"{point.hours:.2f}"]
        if known:
            row += [percent(point.recall), percent(point.good_dropped), _rate(point.true_mer)]
            row += [_rate(point.capped_true_mer), percent(point.bad_speech)]
        if by_chunk:
            whole = by_chunk[alpha]
            row += [f"{whole.hours:.2f}", percent(whole.bad_speech)][: 1 + known]
        rows.append(row)
    return rows


def _metrics_table(calibration: Calibration) -> list[list[str]]:
    head = ["metric", f"kept at {PAPER_ALPHA}", f"hours at {PAPER_ALPHA}"]
    if calibration.references is None:
        rows = [[*head, "bends at"]]
    else:
        rows = [[*head, f"recall at {PAPER_ALPHA}", "max. recall, over half kept", "mean recall, 0.1 to 0.9"]]
    for name, curve in calibration.curves.items():
        point = curve.at(PAPER_ALPHA)
        row = [name, percent(point.kept), f"{point.hours:.2f}"]
        if calibration.references is None:
            row.append("-" if curve.bend is None else f"{curve.bend:.2f}")
        else:
            where = "" if curve.max_recall_alpha is None else f" (at {curve.max_recall_alpha:.2f})"
            row += [percent(point.recall), percent(curve.max_recall) + where, percent(curve.mean_recall)]
        rows.append(row)
    return rows


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.3f}"
