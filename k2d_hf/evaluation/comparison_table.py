"""The comparison of runs as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.compared_sets import compared_averages
from k2d_hf.evaluation.comparison import ComparedRow, Comparison
from k2d_hf.evaluation.sets import UNNAMED
from k2d_hf.evaluation.switching import SWITCHING
from k2d_hf.evaluation.table import (
    MER,
    WORDS,
    average_rows,
    average_title,
    factor,
    part_of,
    part_titles,
    percent,
    rate_bars,
    render_averages,
    render_switching,
    switching_rows,
    switching_title,
    within,
)
from k2d_hf.scoring.normalisers import MIXED
from k2d_hf.terminal.screen import ENDLESS, Screen, aligned

BEFORE_PARTS = ("", "runs", "data", MER)
AFTER_PARTS = ("S/D/I", "loops", "RTF", "RTFx", "speed-up", "MER, relative")


def comparison_cells(row: ComparedRow, parts: Sequence[str]) -> list[str]:
    """Cells of one row, in the order of `BEFORE_PARTS`, the titles of the parts of MER, and `AFTER_PARTS`."""
    mer = percent(row.mer)
    mer += f" ± {percent(row.mer_spread)}" if row.mer_spread else ""
    mer += _ends(row.mer_interval)
    speed_up = 1.0 if row.model == "teacher" else row.speed_up
    return [
        row.name,
        str(len(row.runs)),
        "-" if row.kept is None else f"{100 * row.kept:.0f}%",
        mer,
        *(percent(part_of(vars(row), title)) for title in parts),
        "/".join(f"{count:.0f}" for count in (row.substitutions, row.deletions, row.insertions)),
        "-" if row.looping_outputs is None else f"{row.looping_outputs:.3g}",
        f"{row.rtf:.3f}",
        factor(row.rtf),
        "-" if speed_up is None else f"{speed_up:.1f}x",
        _change(row.reduction, row.reduction_interval),
    ]


def render_comparison(comparison: Comparison, screen: Screen = ENDLESS) -> str:
    """The table as text, with notes below."""
    by_name, runs = _by_name(comparison), len(comparison.rows[0].runs)
    parts = [aligned(_table(comparison), screen), *render_switching(by_name, screen, runs=runs)]
    return "\n".join([*parts, "", *_notes(comparison)])


def comparison_markdown(comparison: Comparison) -> str:
    """A Markdown table, with notes below."""
    notes = [f"* {note}" for note in _notes(comparison)]
    parts = [_markdown(_table(comparison))]
    if rows := switching_rows(_by_name(comparison)):
        title = switching_title(_by_name(comparison), runs=len(comparison.rows[0].runs))
        parts += ["", f"{title[0].upper()}{title[1:]}:", "", _markdown(rows)]
    return "\n".join([*parts, "", *notes]) + "\n"


def _by_name(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """What the table of switches needs to know of the rows."""
    return {row.name: {SWITCHING: row.switching} for row in comparison.rows}


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = [head, ["---"] * len(head), *others]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)


def render_comparisons(compared: Mapping[str, Comparison], screen: Screen = ENDLESS) -> str:
    """The tables of all test sets as text; of named ones with a chart each, and averages of those that are alike."""
    if list(compared) == [UNNAMED]:
        return render_comparison(compared[UNNAMED], screen)
    parts = [
        f"{within(name, screen)}\n{render_comparison(one, screen)}\n\n{rate_bars(*_rates(one), screen)}"
        for name, one in compared.items()
    ]
    return "\n\n".join([*parts, *render_averages(compared_averages(compared), screen)])


def comparisons_markdown(compared: Mapping[str, Comparison]) -> str:
    """The same as Markdown, a heading a set."""
    if list(compared) == [UNNAMED]:
        return comparison_markdown(compared[UNNAMED])
    parts = [
        f"## {name}\n\n{comparison_markdown(one)}\n```\n{rate_bars(*_rates(one))}\n```\n"
        for name, one in compared.items()
    ]
    for average in compared_averages(compared):
        title = average_title(average)
        parts.append(f"## {title[0].upper()}{title[1:]}\n\n{_markdown(average_rows(average))}\n")
    return "\n".join(parts)


def write_comparison(compared: Mapping[str, Comparison], output: Path | None, screen: Screen = ENDLESS) -> str:
    """The text for the terminal; with `output`, the file too, by its ending.

    Raises:
        K2DError: if the ending is neither `.json` nor `.md`.
    """
    if output is not None:
        check_ending(output)
        text = comparisons_markdown(compared)
        if output.suffix == ".json":
            text = json.dumps(_content(compared), ensure_ascii=False, indent=2) + "\n"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return render_comparisons(compared, screen)


def _content(compared: Mapping[str, Comparison]) -> dict[str, Any]:
    """The comparison as JSON has it, that of named sets by their names."""
    if list(compared) == [UNNAMED]:
        return asdict(compared[UNNAMED])
    averages = [asdict(average) for average in compared_averages(compared)]
    return {"sets": {name: asdict(one) for name, one in compared.items()}, "macro_averages": averages}


def check_ending(output: Path) -> None:
    """Raise K2DError for a file that is neither `.json` nor `.md`."""
    if output.suffix not in (".json", ".md"):
        raise K2DError(f"--output {output}: give a file that ends in .json or .md")


def _table(comparison: Comparison) -> list[list[str]]:
    """Head and rows; with the set's word error rate, and the change against a row, where there are such."""
    parts = part_titles(map(vars, comparison.rows))
    rows = [[*BEFORE_PARTS, *parts, *AFTER_PARTS], *(comparison_cells(row, parts) for row in comparison.rows)]
    if comparison.normaliser != MIXED:
        at = BEFORE_PARTS.index(MER)
        rates = [WORDS, *(percent(row.wer) + _ends(row.wer_interval) for row in comparison.rows)]
        rows = [[*cells[:at], rate, *cells[at:]] for cells, rate in zip(rows, rates, strict=True)]
    if comparison.against is not None:
        rows[0].append(f"MER, against {comparison.against}")
        for cells, row in zip(rows[1:], comparison.rows, strict=True):
            cells.append(_change(row.reduction_against, row.reduction_against_interval))
    return rows


def _notes(comparison: Comparison) -> list[str]:
    count = comparison.recordings
    data = f"{count} recording{'s' if count > 1 else ''}, {comparison.reference_length} reference tokens"
    return [data, *comparison.notes]


def _rates(comparison: Comparison) -> tuple[str, list[tuple[str, float | None]]]:
    """Title and values of the rate that the set is charted by."""
    if comparison.normaliser != MIXED:
        return WORDS, [(row.name, row.wer) for row in comparison.rows]
    return MER, [(row.name, row.mer) for row in comparison.rows]


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else " [{}, {}]".format(*map(percent, interval))


def _change(reduction: float | None, interval: tuple[float, float] | None) -> str:
    """A reduction as the negative change that it is."""
    if reduction is None:
        return "-"
    ends = "" if interval is None else f" [{_signed(interval[1])}, {_signed(interval[0])}]"
    return f"{_signed(reduction)}%{ends}"


def _signed(reduction: float) -> str:
    change = round(-100 * reduction)
    return f"{change:+d}" if change else "0"
