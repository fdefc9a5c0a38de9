"""Evaluations side by side, as the table that a terminal and a model card show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from k2d_hf.evaluation.timing import speed_up
from k2d_hf.scoring.error_rates import insertions_text
from k2d_hf.terminal.screen import ENDLESS, Screen, aligned, columns_of

TITLES = {"student_before": "student, before"}  # rows whose title differs from the key in evaluation.json
WIDTH = 80  # of a terminal, where none is known
COLUMNS = ("MER %", "zh CER", "en WER", "S/D/I", "loops", "RTF", "params")


def table_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the table, a row a model: its name, then `COLUMNS`."""
    return [[TITLES.get(name, name), *_cells(figures)] for name, figures in evaluations.items()]


def render_table(evaluations: Mapping[str, Mapping[str, Any]], screen: Screen = ENDLESS) -> str:
    """The table as text; at its end, how much faster the last row is than the first, if they were timed together.

    Below it insertions, by script; nothing where there is none.
    """
    rows = [["", *COLUMNS], *table_rows(evaluations)]
    table = aligned(rows, screen)
    figures = list(evaluations.values())
    ratio = speed_up(figures[0], figures[-1]) if len(figures) > 1 else None
    if ratio is not None:
        compared = f"{ratio:.1f}x faster" if ratio >= 1 else f"{1 / ratio:.1f}x slower"
        if screen.width is None or columns_of(table.splitlines()[-1]) + 3 + len(compared) <= screen.width:
            table += f"   {compared}"
        else:
            pair = f"{rows[-1][0]} against {rows[1][0]}"  # which may be paths of folders
            fits = columns_of(f"{pair}: {compared}") <= screen.width
            table += f"\n{pair if fits else 'the last against the first'}: {compared}"
    inserted = "; ".join(f"{name} {text}" for name, text in inserted_rows(evaluations))
    text, indent = f"inserted: {inserted}", " " * len("inserted: ")
    return "\n".join([table, *wrap(text, screen.width or WIDTH, subsequent_indent=indent)]) if inserted else table


def inserted_rows(evaluations: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Name of each model with insertions, and these by script: `12 Han, 3 Latin, 223 marks`."""
    rows = [
        (TITLES.get(name, name), insertions_text(figures.get("insertions_by_script") or {}))
        for name, figures in evaluations.items()
    ]
    return [row for row in rows if row[1]]


def millions(parameters: int) -> str:
    """`72593920` as `72.6 M`."""
    return f"{parameters / 1e6:.1f} M"


def _cells(figures: Mapping[str, Any]) -> Sequence[str]:
    return (
        *(percent(figures[name]) for name in ("mer", "zh_cer", "en_wer")),
        f"{figures['substitutions']}/{figures['deletions']}/{figures['insertions']}",
        str(figures["looping_outputs"]),
        f"{figures['rtf']:.3f}",
        millions(figures["parameters"]),
    )


def percent(rate: float | None) -> str:
    """A rate in percent, or that it is unknown."""
    return "-" if rate is None else f"{100 * rate:.1f}"
