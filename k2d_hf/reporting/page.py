"""From facts, plots and clips to the page: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

from k2d_hf.evaluation.sets import macro_averages
from k2d_hf.evaluation.switching import EXPLAINED
from k2d_hf.evaluation.table import (
    average_rows,
    average_title,
    inserted_rows,
    main_rate,
    millions,
    percent,
    switching_rows,
    switching_title,
    table_columns,
    table_rows,
)
from k2d_hf.evaluation.timing import speed_up
from k2d_hf.formatting import counted
from k2d_hf.reporting.chunks import KEPT
from k2d_hf.reporting.clips import Clip
from k2d_hf.reporting.facts import ChunkFact, RecordingFact, RunFacts, SetFacts, clock, length
from k2d_hf.reporting.markup import Tinting
from k2d_hf.reporting.plots import Plot
from k2d_hf.validation.calibration import BAD_MER
from k2d_hf.validation.calibration_report import kept_at, kept_whole
from k2d_hf.version import __version__

COMPARED = ("teacher", "student")  # of the models of an evaluation: those whose transcripts are shown


@dataclass(frozen=True)
class Page:
    """The contents of the page."""

    facts: RunFacts
    plots: dict[str, list[Plot]] = field(default_factory=dict)
    clips: Sequence[Clip] = ()  # of the worst chunks, the sample and the recordings; further ones have none
    notes: Sequence[str] = ()  # what was left out, and why
    made: str = ""  # when


def render_page(page: Page) -> str:
    """The page as HTML. Whatever comes from data is escaped, by the template or by `Tinting`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    files = PackageLoader("k2d_hf.reporting", "")
    environment = Environment(
        loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    facts, tinting, clips = page.facts, Tinting(page.facts.language), chain(page.clips, repeat(Clip(None)))
    plots = {
        name: [(Markup(plot.svg), plot.caption) for plot in page.plots.get(name, [])]  # ours: the data are numbers
        for name in ("results", "distances", "calibration", "training")
    }
    sets = [
        _set(one, plot) for one, plot in zip(facts.sets, [*plots["results"], *[None] * len(facts.sets)], strict=False)
    ]
    worst = _chunks(facts.worst, clips, tinting)
    return environment.get_template("template.html").render(
        facts=facts,
        figures=_figures(facts),
        sets=sets,
        averages=_averages(facts),
        stages=[(stage, "" if stage.seconds is None else length(stage.seconds)) for stage in facts.stages],
        shares=_shares(facts),
        truth=_truth(facts),
        plots=plots,
        worst=worst,
        legend=tinting.legend,
        sample=_chunks(facts.sample, clips, tinting),
        recordings=[
            {
                "recordings": _recordings(one.recordings, clips, tinting, of=one.name),
                "left_out": one.left_out,
                "name": one.name,
            }
            for one in facts.sets
            if one.recordings
        ],
        notes=page.notes,
        made=page.made,
        version=__version__,
    )


def _figures(facts: RunFacts) -> list[tuple[str, str]]:
    """The main figures."""
    figures, pairs = [], []
    for one in facts.sets:
        teacher, student = (one.figures.get(name) for name in ("teacher", "student"))
        if teacher and student:
            title, rate = main_rate(one.figures)
            titled = f"{one.name}, {title.partition(' ')[0]}" if one.name else "mixed error rate"
            figures.append((titled, f"{percent(teacher.get(rate))}% to {percent(student.get(rate))}%"))
            pairs.append((teacher, student))
    if pairs:
        teacher, student = pairs[0]
        if (ratio := speed_up(teacher, student)) is not None:
            figures.append(("speed", f"{ratio:.1f} times the teacher's"))
        figures.append(("parameters", f"{millions(teacher['parameters'])} to {millions(student['parameters'])}"))
    if facts.shares:
        kept = facts.shares[0]
        seconds = sum(share.seconds for share in facts.shares)
        share = f"{100 * kept.seconds / seconds:.0f}%, " if seconds else ""
        figures.append(("speech kept", f"{share}{length(kept.seconds)} of {length(seconds)}"))
    return figures


def _set(one: SetFacts, plot: Any) -> dict[str, Any]:
    """A set: the table of models, with what they are and the interval of the first rate, and its plot."""
    rows = []
    for (name, figures), (title, *cells) in zip(one.figures.items(), table_rows(one.figures), strict=True):
        ends = one.intervals.get(name)
        shown = "{} to {}".format(*map(percent, ends)) if ends else None
        rows.append({"name": title, "model": figures["model"], "interval": shown, "cells": cells})
    first = next(iter(one.figures.values()))
    how = f"{counted(first['recordings'], 'recording')}, {length(first['audio_seconds'])}, long-form by "
    how += f"{first['engine']}, beam {first['beam_size']}"
    how += f", language {first['language']}." if one.name and first.get("language") else "."
    return {
        "name": one.name,
        "how": how,
        "columns": table_columns(one.figures),
        "rows": rows,
        "inserted": "; ".join(f"{title}: {text}" for title, text in inserted_rows(one.figures)),
        "intervals": bool(one.intervals),
        "no_intervals": one.no_intervals,
        "words": main_rate(one.figures)[1] == "wer",
        "plot": plot,
        "switching": _switching(one),
    }


def _switching(one: SetFacts) -> dict[str, Any] | None:
    """The table of errors where the language changes; None where no reference does so."""
    if not (rows := switching_rows(one.figures)):
        return None
    title = switching_title(one.figures)
    return {"title": f"{title[0].upper()}{title[1:]}", "columns": rows[0][1:], "rows": rows[1:], "explained": EXPLAINED}


def _averages(facts: RunFacts) -> list[dict[str, Any]]:
    """Averages over sets that are alike: title, head and rows."""
    shown = []
    for average in macro_averages({one.name: one.figures for one in facts.sets}):
        head, *rows = average_rows(average)
        title = average_title(average)
        shown.append({"title": title[0].upper() + title[1:], "columns": head[1:], "rows": rows})
    return shown


def _shares(facts: RunFacts) -> list[dict[str, Any]]:
    """Hours by verdict, each with its part of the longest bar in percent."""
    seconds = sum(share.seconds for share in facts.shares)
    most = max((share.seconds for share in facts.shares), default=0.0)
    return [
        {
            "verdict": share.verdict,
            "kept": share.verdict == KEPT,
            "chunks": f"{share.chunks:,}",
            "length": length(share.seconds),
            "percent": f"{100 * share.seconds / seconds:.0f}%" if seconds else "",
            "bar": f"{100 * share.seconds / most:.1f}" if most else "0",
        }
        for share in facts.shares
    ]


def _truth(facts: RunFacts) -> str | None:
    """How wrong the labels are, all of them and those that the run kept, where that is known."""
    calibration = facts.calibration
    if calibration is None or calibration.references is None:
        return None
    counts, point = calibration.references, kept_at(calibration, facts.metric, facts.threshold)
    text = f"Against the references, {counts.chunks:,} labels have a mean true MER (each at most 100%) of "
    text += f"{100 * counts.mean_capped_true_mer:.1f}%"
    if point is not None and point.capped_true_mer is not None:
        text += f", those that the run kept of {100 * point.capped_true_mer:.1f}%"
    text += f"; {counts.bad:,} are bad (above {100 * BAD_MER:.0f}%)"
    if point is not None and point.recall is not None:
        text += f", of which it dropped {100 * point.recall:.0f}%"
    return f"{text}.{_bad_speech(facts)}"


def _bad_speech(facts: RunFacts) -> str:
    """How much of the speech that is kept is in bad segments, and what whole chunks would keep."""
    calibration = facts.calibration
    if calibration is None or facts.threshold is None or facts.metric not in calibration.curves:
        return ""
    point = kept_at(calibration, facts.metric, facts.threshold)
    if point is None or point.bad_speech is None:
        return ""
    text = f" Of the {length(3600 * point.hours)} at this threshold {100 * point.bad_speech:.0f}% are in segments that "
    text += f"are bad (true MER above {100 * BAD_MER:.0f}%)"
    if whole := kept_whole(calibration, facts.threshold):
        text += f"; whole chunks would keep {length(3600 * whole.hours)}"
        text += f", {100 * whole.bad_speech:.0f}% of them bad" if whole.bad_speech is not None else ""
    return f"{text}."


def _chunks(chunks: Sequence[ChunkFact], clips: Iterator[Clip], tinting: Tinting) -> list[dict[str, Any]]:
    shown = []
    student = any(chunk.student_text is not None for chunk in chunks)
    for chunk, clip in zip(chunks, clips, strict=False):
        texts: list[tuple[str, str | None]] = []
        texts += [("reference", chunk.reference)] if chunk.reference is not None else []
        texts += [("teacher", chunk.text), ("auxiliary", chunk.auxiliary_text)]
        texts += [(f"auxiliary {number}", text) for number, text in enumerate(chunk.more_texts, start=2)]
        texts += [("student", chunk.student_text)] if student else []
        shown.append(
            {
                "title": f"{chunk.recording}, {clock(chunk.start)} to {clock(chunk.start + chunk.duration)}",
                "verdict": "kept" if chunk.keep else f"dropped: {chunk.drop_reason or 'no reason'}",
                "keep": chunk.keep,
                "measures": _measures(chunk),
                "clip": clip,
                "texts": _texts(texts, tinting),
            }
        )
    return shown


def _measures(chunk: ChunkFact) -> str:
    measures = [f"distance {chunk.distance:.2f}", f"PER {chunk.per:.2f}", f"MER {chunk.mer:.2f}"]
    measures += [f"true MER {chunk.true_mer:.2f}"] if chunk.true_mer is not None else []
    measures += [f"{name} {value:.1f}" for name, value in chunk.measures.items()]
    measures += ["the teacher loops"] if chunk.teacher_loops else []
    measures += ["the auxiliary loops"] if chunk.auxiliary_loops else []
    return ", ".join(measures)


def _texts(texts: Sequence[tuple[str, str | None]], tinting: Tinting) -> list[tuple[str, Any]]:
    """Names and transcripts: the first plain, the others marked where they differ from it."""
    (base_name, base), *others = texts
    rows: list[tuple[str, Any]] = [(base_name, tinting.plain(base))]
    for name, text in others:
        if text is None:
            rows.append((name, "no transcript"))
        else:
            rows.append((f"{name}, against the {base_name}", tinting.compared(base or "", text)))
    return rows


def _recordings(
    recordings: Sequence[RecordingFact], clips: Iterator[Clip], tinting: Tinting, *, of: str
) -> list[dict[str, Any]]:
    """Recordings of the set that is called so."""
    shown = []
    for recording, clip in zip(recordings, clips, strict=False):
        models = [name for name in COMPARED if name in recording.transcripts] or list(recording.transcripts)
        measures = "; ".join(
            f"{name}: MER {100 * errors.rate:.1f}%, {errors.substitutions} substitutions, "
            f"{errors.deletions} deletions, {errors.insertions} insertions"
            for name, errors in ((name, recording.errors[name]) for name in models)
        )
        texts = [("reference", recording.reference), *((name, recording.transcripts[name]) for name in models)]
        texts = _texts(texts, tinting)
        title = f"{of}: {recording.recording}" if of else recording.recording
        shown.append({"title": title, "measures": measures, "clip": clip, "texts": texts})
    return shown
