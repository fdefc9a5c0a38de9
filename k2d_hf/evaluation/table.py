"""Evaluations side by side, as the table that a terminal and a model card show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

TITLES = {"student_before": "student, before"}  # rows whose title differs from the key in evaluation.json
COLUMNS = ("MER %", "zh CER", "en WER", "S/D/I", "loops", "RTF", "params")


def table_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the table, a row a model: its name, then `COLUMNS`."""
    return [[TITLES.get(name, name), *_cells(figures)] for name, figures in evaluations.items()]


def render_table(evaluations: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as aligned text; the last row says how much faster it is than the first."""
    rows = [["", *COLUMNS], *table_rows(evaluations)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    figures = list(evaluations.values())
    if len(figures) > 1 and figures[-1]["rtf"] > 0:
        ratio = speed_up(figures[0], figures[-1])
        lines[-1] += f"   {ratio:.1f}x faster" if ratio >= 1 else f"   {1 / ratio:.1f}x slower"
    return "\n".join(lines)


def speed_up(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> float:
    """How many times faster than the first the second is, by real-time factor."""
    return slow["rtf"] / fast["rtf"]


def millions(parameters: int) -> str:
    """`72593920` as `72.6 M`."""
    return f"{parameters / 1e6:.1f} M"


def _cells(figures: Mapping[str, Any]) -> Sequence[str]:
    return (
        _percent(figures["mer"]),
        _percent(figures["zh_cer"]),
        _percent(figures["en_wer"]),
        f"{figures['substitutions']}/{figures['deletions']}/{figures['insertions']}",
        str(figures["looping_outputs"]),
        f"{figures['rtf']:.3f}",
        millions(figures["parameters"]),
    )


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"
