"""The comparison of runs as text for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from k2d_hf.errors import K2DError
from k2d_hf.evaluation.comparison import ComparedRow, Comparison
from k2d_hf.evaluation.table import percent
from k2d_hf.terminal.screen import ENDLESS, Screen, aligned

HEAD = ("", "runs", "data", "MER %", "zh CER", "en WER", "S/D/I", "loops", "RTF", "speed-up", "MER, relative")


def comparison_cells(row: ComparedRow) -> list[str]:
    """Cells of one row, in the order of `HEAD`."""
    mer = percent(row.mer)
    mer += f" ± {percent(row.mer_spread)}" if row.mer_spread else ""
    mer += "" if row.mer_interval is None else " [{}, {}]".format(*map(percent, row.mer_interval))
    speed_up = 1.0 if row.model == "teacher" else row.speed_up
    return [
        row.name,
        str(len(row.runs)),
        "-" if row.kept is None else f"{100 * row.kept:.0f}%",
        mer,
        percent(row.zh_cer),
        percent(row.en_wer),
        "/".join(f"{count:.0f}" for count in (row.substitutions, row.deletions, row.insertions)),
        "-" if row.looping_outputs is None else f"{row.looping_outputs:.3g}",
        f"{row.rtf:.3f}",
        "-" if speed_up is None else f"{speed_up:.1f}x",
        _change(row.reduction, row.reduction_interval),
    ]


def render_comparison(comparison: Comparison, screen: Screen = ENDLESS) -> str:
    """The table as text, with notes below."""
    return "\n".join([aligned(_table(comparison), screen), "", *_notes(comparison)])


def comparison_markdown(comparison: Comparison) -> str:
    """A Markdown table, with notes below."""
    head, *rows = _table(comparison)
    rows = [head, ["---"] * len(head), *rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    notes = [f"* {note}" for note in _notes(comparison)]
    return "\n".join([*lines, "", *notes]) + "\n"


def write_comparison(comparison: Comparison, output: Path | None, screen: Screen = ENDLESS) -> str:
    """The text for the terminal; with `output`, the file too, by its ending.

    Raises:
        K2DError: if the ending is neither `.json` nor `.md`.
    """
    if output is not None:
        check_ending(output)
        text = comparison_markdown(comparison)
        if output.suffix == ".json":
            text = json.dumps(asdict(comparison), ensure_ascii=False, indent=2) + "\n"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    return render_comparison(comparison, screen)


def check_ending(output: Path) -> None:
    """Raise K2DError for a file that is neither `.json` nor `.md`."""
    if output.suffix not in (".json", ".md"):
        raise K2DError(f"--output {output}: give a file that ends in .json or .md")


def _table(comparison: Comparison) -> list[list[str]]:
    """Head and rows; with a last column where a row was named that all are measured against."""
    rows = [list(HEAD), *map(comparison_cells, comparison.rows)]
    if comparison.against is not None:
        rows[0].append(f"MER, against {comparison.against}")
        for cells, row in zip(rows[1:], comparison.rows, strict=True):
            cells.append(_change(row.reduction_against, row.reduction_against_interval))
    return rows


def _notes(comparison: Comparison) -> list[str]:
    count = comparison.recordings
    data = f"{count} recording{'s' if count > 1 else ''}, {comparison.reference_length} reference tokens"
    return [data, *comparison.notes]


def _change(reduction: float | None, interval: tuple[float, float] | None) -> str:
    """A reduction as the negative change that it is."""
    if reduction is None:
        return "-"
    ends = "" if interval is None else f" [{_signed(interval[1])}, {_signed(interval[0])}]"
    return f"{_signed(reduction)}%{ends}"


def _signed(reduction: float) -> str:
    change = round(-100 * reduction)
    return f"{change:+d}" if change else "0"
