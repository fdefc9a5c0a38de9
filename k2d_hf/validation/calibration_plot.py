"""The plot of a calibration: what is kept, and where references are known what is caught, against alpha."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.extras import install_hint
from k2d_hf.validation.calibration import THRESHOLD_METRICS
from k2d_hf.validation.calibration_report import Calibration

COLOURS = {"mer": "#0072b2", "per": "#009e73", "composite": "#d55e00"}  # told apart by colour-blind readers too


def plot_calibration(calibration: Calibration, png: Path, svg: Path) -> None:
    """Draw the calibration into two files.

    Raises:
        K2DError: where matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # never pyplot, which looks for a screen and keeps every figure
    except ImportError:
        raise K2DError(f"no plot: it takes matplotlib; {install_hint('report')}") from None
    known = calibration.references is not None
    figure = Figure(figsize=(10.0 if known else 5.5, 4.0), layout="constrained")
    axes: Any = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _draw_kept(axes[0], calibration)
    if known:
        _draw_recall(axes[1], calibration)
    for one in axes:
        one.axvline(calibration.recommendation.alpha, color="0.4", linestyle=":", linewidth=1)
        one.set(xlabel="threshold alpha", xlim=(0, 1), ylim=(-0.02, 1.02))
        one.grid(alpha=0.3)
    axes[0].legend(loc="lower right", frameon=False)
    for path in (png, svg):
        figure.savefig(path, dpi=150)


def _draw_kept(axis: Any, calibration: Calibration) -> None:
    for name in THRESHOLD_METRICS:
        points = calibration.curves[name].points
        axis.step([p.alpha for p in points], [p.kept for p in points], where="post", color=COLOURS[name], label=name)
    chosen = calibration.recommendation
    axis.plot(chosen.alpha, calibration.curves[chosen.metric].at(chosen.alpha).kept, "o", color=COLOURS[chosen.metric])
    axis.annotate(f" {chosen.alpha:.2f}", (chosen.alpha, 0.0), color="0.3")
    axis.set(ylabel="share of chunks kept", title=f"{calibration.chunks} chunks, {calibration.hours:.2f} h")


def _draw_recall(axis: Any, calibration: Calibration) -> None:
    for name in THRESHOLD_METRICS:
        points = [p for p in calibration.curves[name].points if p.recall is not None]
        recalls: list[Any] = [p.recall for p in points]
        axis.step([p.alpha for p in points], recalls, where="post", color=COLOURS[name])
    points = [p for p in calibration.curves[calibration.recommendation.metric].points if p.good_dropped is not None]
    dropped: list[Any] = [p.good_dropped for p in points]
    style = {"color": COLOURS[calibration.recommendation.metric], "linestyle": "--", "linewidth": 1}
    axis.step([p.alpha for p in points], dropped, where="post", label="good labels dropped", **style)
    assert calibration.references is not None
    axis.set(ylabel="share dropped", title=f"recall of {calibration.references.bad} bad labels")
    axis.legend(loc="upper right", frameon=False)
