"""The plots of a report, as SVG that stands in a page: text as text, colours those of the page, dark or light."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.table import TITLES, main_rate
from k2d_hf.files.extras import install_hint
from k2d_hf.reporting.facts import RunFacts, SetFacts

SIZE = (4.7, 2.9)  # inches: small, so that text is readable where the page is as wide as a phone
FLAT = (4.7, 1.7)  # likewise, of a few rows
BINS = 40
# matplotlib writes these, the page replaces them by its own: each stands for one role and occurs nowhere else
INK, GRID, FIRST, SECOND, THIRD, FOURTH = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
ROLES = {INK: "ink", GRID: "rule", FIRST: "one", SECOND: "two", THIRD: "three", FOURTH: "four"}
DASHES: Any = ("-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)))  # lines differ without colours too
COMPONENTS = {
    "loss": "loss",
    "ce": "cross-entropy",
    "kl": "KL to the teacher",
    "auxiliary_kl": "KL to the auxiliary",
    "encoder_mse": "encoder distance",
}
METRICS = ("mer", "per", "composite")


@dataclass(frozen=True)
class Plot:
    """An SVG element, and its caption."""

    svg: str
    caption: str


def draw_plots(facts: RunFacts) -> dict[str, list[Plot]]:
    """The plots by section of the page, none where there is nothing to draw.

    They are `results`, of each test set one, `distances`, `calibration` and `training`.

    Raises:
        K2DError: where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure  # never pyplot, which needs a screen and keeps every figure
    except ImportError:
        raise K2DError(f"no plots: they take matplotlib; {install_hint('report')}") from None
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "k2d",  # the same data gives the same page
        "font.family": "DejaVu Sans",  # which matplotlib carries; the page names its own
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.titlesize": 9,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    sections = {"results": _results, "distances": _distances, "calibration": _calibration, "training": _training}
    drawn: dict[str, list[Plot]] = {}
    with matplotlib.rc_context(style):
        for name, draw in sections.items():
            drawn[name] = []
            for number, (plot, caption, description) in enumerate(draw(facts)):
                figure = Figure(figsize=SIZE if name != "results" else FLAT, layout="constrained")
                plot(figure.add_subplot())
                drawn[name].append(Plot(_svg(figure, f"{name}{number}", description), caption))
    return drawn


def _results(facts: RunFacts) -> Iterable[tuple[Any, str, str]]:
    for one in facts.sets:
        title, rate = main_rate(one.figures)
        known = [(name, 100 * figures[rate]) for name, figures in one.figures.items() if _number(figures.get(rate))]
        yield partial(_rates, one, title, known), *_about_rates(one, title, known)


def _rates(one: SetFacts, title: str, known: Sequence[tuple[str, float]], axis: Any) -> None:
    """A bar a model, the first at the top, with its interval over recordings where there is one."""
    places = range(len(known))
    axis.barh(places, [value for _, value in known], height=0.6, color=FIRST)
    for place, (name, value) in zip(places, known, strict=True):
        low, high = (100 * end for end in one.intervals.get(name, (value / 100, value / 100)))
        if high > low:
            axis.plot([low, high], [place, place], color=INK, linewidth=1.2, marker="|", markersize=6)
        axis.annotate(f"{value:.1f}", (max(value, high), place), xytext=(5, 0), textcoords="offset points", va="center")
    axis.set(xlabel=title, yticks=list(places), yticklabels=[TITLES.get(name, name) for name, _ in known])
    axis.margins(x=0.15)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)


def _about_rates(one: SetFacts, title: str, known: Sequence[tuple[str, float]]) -> tuple[str, str]:
    """Caption and description of a chart."""
    rate = title.partition(" ")[0]
    caption = f"{rate} of each model{f' on {one.name}' if one.name else ''}"
    caption += "; the line is the 95% interval." if one.intervals else "."
    listed = ", ".join(f"{TITLES.get(name, name)} {value:.1f}%" for name, value in known)
    return caption, f"{rate}{f' on {one.name}' if one.name else ''}: {listed}"


def _distances(facts: RunFacts) -> Iterable[tuple[Any, str, str]]:
    distances = facts.distances[np.isfinite(facts.distances)]
    if not len(distances):
        return
    over = int((distances > 1).sum())
    alpha = facts.threshold
    within = None if alpha is None else int((distances <= alpha).sum())

    def plot(axis: Any) -> None:
        edges = np.linspace(0, 1, BINS + 1)
        axis.hist(np.minimum(distances, 1.0), bins=edges, color=FIRST)
        axis.set(xlabel="distance" + (" (above 1 counted at 1)" if over else ""), ylabel="chunks", xlim=(0, 1))
        if alpha is not None:
            axis.axvline(alpha, color=INK, linestyle="--", linewidth=1.2)
            axis.annotate(
                f"alpha {alpha:g}", (alpha, 1), xycoords=("data", "axes fraction"), xytext=(4, -9),
                textcoords="offset points",
            )  # fmt: skip

    summary = f"{len(distances):,} chunks, median distance {np.median(distances):.2f}"
    summary += "" if within is None else f"; {within:,} lie at or below alpha {alpha:g}"
    yield plot, f"Distances of the chunks. {summary}.", f"Histogram of distances: {summary}"


def _calibration(facts: RunFacts) -> Iterable[tuple[Any, str, str]]:
    calibration = facts.calibration
    if calibration is None:
        return

    def draw(axis: Any, *, figure: str, label: str, corner: str) -> None:
        for metric, colour, dash in zip(METRICS, (SECOND, THIRD, FIRST), DASHES[2::-1], strict=True):
            points = [(p.alpha, getattr(p, figure)) for p in calibration.curves[metric].points]
            x = [alpha for alpha, share in points if share is not None]
            y = [100 * share for _, share in points if share is not None]
            axis.step(x, y, where="post", color=colour, linestyle=dash, label=metric)
        if facts.threshold is not None:
            axis.axvline(facts.threshold, color=INK, linestyle="--", linewidth=1)
        axis.set(xlabel="threshold alpha", ylabel=label, xlim=(0, 1), ylim=(-2, 102))
        axis.legend(loc=corner)

    recommended = calibration.recommendation
    at = calibration.curves[recommended.metric].at(recommended.alpha)
    caption = f"Kept share against alpha; the line is this run's. Recommended for {recommended.metric}: alpha "
    caption += f"{recommended.alpha:.2f}, which keeps {100 * at.kept:.0f}%, as {recommended.why}."
    if calibration.combined:
        caption += f" {calibration.combined:,} were dropped by several judges together, here by the distance alone."
    kept = partial(draw, figure="kept", label="% of chunks kept", corner="lower right")
    yield kept, caption, "Share of the chunks that each metric keeps, against alpha"
    if (counts := calibration.references) is not None:
        recall = partial(draw, figure="recall", label="% of bad labels dropped", corner="upper right")
        caption = "Recall of bad labels (true MER above 0.4) against alpha: "
        caption += f"{counts.bad:,} of {counts.chunks:,} labels are bad."
        yield recall, caption, "Share of the bad labels that each metric drops, against alpha"


def _training(facts: RunFacts) -> Iterable[tuple[Any, str, str]]:
    steps = [entry for entry in facts.training_log if _number(entry.get("step")) and _number(entry.get("loss"))]
    if not steps:
        return
    names = [name for name in COMPONENTS if any(_number(entry.get(name)) and entry[name] > 0 for entry in steps)]
    colours = dict(zip(COMPONENTS, (INK, FIRST, SECOND, THIRD, FOURTH), strict=True))

    def loss(axis: Any) -> None:
        for name, dash in zip(names, DASHES, strict=False):
            x, y = _series(steps, name)
            axis.plot(x, y, color=colours[name], linestyle=dash, label=COMPONENTS[name], marker=_marker(x))
        axis.set(xlabel="step", yscale="log", ylabel="per token")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.legend(loc="upper right")

    def curve(axis: Any, x: list[float], y: list[float], label: str) -> None:
        axis.plot(x, y, color=FIRST, marker=_marker(x))
        axis.set(xlabel="step", ylabel=label, ylim=(0, None))

    first, last = steps[0]["loss"], steps[-1]["loss"]
    summary = f"from {first:.3g} to {last:.3g} in {steps[-1]['step']:,} steps"
    yield loss, f"Loss and its components: {summary}.", f"Loss by step on a logarithmic axis, {summary}"
    for name, label, scale, caption in (
        ("agreement", "% of tokens", 100, "Agreement: tokens at which student and teacher have the same first choice."),
        ("learning_rate", "learning rate", 1, "Learning rate."),
    ):
        x, y = _series(steps, name, scale)
        if x:
            plot = partial(curve, x=x, y=y, label=label)
            yield plot, caption, f"{caption} By step; the last value is {y[-1]:.3g}"


def _series(entries: Sequence[dict[str, Any]], name: str, scale: float = 1) -> tuple[list[float], list[float]]:
    known = [entry for entry in entries if _number(entry.get(name))]
    return [entry["step"] for entry in known], [scale * entry[name] for entry in known]


def _marker(x: Sequence[float]) -> str:
    """A line of one point is nothing to see."""
    return "o" if len(x) == 1 else ""


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _svg(figure: Any, name: str, description: str) -> str:
    """The figure as an element for a page: no size of its own, names that are unique there, the page's colours."""
    from markupsafe import escape

    figure.patch.set_visible(False)
    for axis in figure.axes:
        axis.patch.set_visible(False)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>|\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (?:[\w]+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for colour, role in ROLES.items():
        svg = svg.replace(colour, f"var(--{role})")
    head = f'<svg role="img" aria-label="{escape(description)}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    return f"{head} {box.group()}>{svg[svg.index('>') + 1 :].strip()}"
