"""Evaluations side by side, as the table that a terminal and a model card show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k2d_hf.screen import ENDLESS, Screen, aligned, columns_of, wrapped

TITLES = {"student_before": "student, before"}  # rows whose title differs from the key in evaluation.json
COLUMNS = ("MER %", "zh CER", "en WER", "S/D/I", "loops", "RTF", "params")


def table_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the table, a row a model: its name, then `COLUMNS`."""
    return [[TITLES.get(name, name), *_cells(figures)] for name, figures in evaluations.items()]


def render_table(evaluations: Mapping[str, Mapping[str, Any]], screen: Screen = ENDLESS) -> str:
    """The table as text; at its end, how much faster the last row is than the first."""
    rows = [["", *COLUMNS], *table_rows(evaluations)]
    table = aligned(rows, screen)
    figures = list(evaluations.values())
    if len(figures) < 2 or figures[-1]["rtf"] <= 0:
        return table
    ratio = speed_up(figures[0], figures[-1])
    said = f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x slower"
    last = table.splitlines()[-1]
    if screen.width is None or columns_of(last) + 3 + len(said) <= screen.width:
        return f"{table}   {said}"
    return "\n".join([table, *wrapped(f"{rows[-1][0]} against {rows[1][0]}: {said}", screen.width)])


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
