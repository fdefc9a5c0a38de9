"""Tab-separated text as people have it: without quotes, as Common Voice writes it, or with them, as spreadsheets do.

A cell is quoted if it begins and ends with a quote and those within are doubled; any other quote stands for itself.
Read by `manifests.py` (K2D, before stage 1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

MOST_LINES = 1000  # of a quoted cell


@dataclass(frozen=True)
class _Split:
    """Cells of some text, and whether a quote that opens the last of them is closed nowhere in it."""

    cells: list[str]
    is_open: bool


def tab_separated(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the number of its last line; blank lines give no cells.

    Args:
        lines: number and text of each line, with its end. The first row is the header; its number of cells decides
            where a quote could belong to one cell or to several lines.
    """
    ahead: deque[tuple[int, str]] = deque()
    width = 0
    while True:
        number, text = ahead.popleft() if ahead else next(lines, (0, ""))
        if not text:
            return
        if not _without_end(text):
            continue
        number, cells = _row(number, text, lines, ahead, width)
        width = width or len(cells)
        yield number, cells


def _row(
    number: int, text: str, lines: Iterator[tuple[int, str]], ahead: deque[tuple[int, str]], width: int
) -> tuple[int, list[str]]:
    """The row that begins with a line; what it reads and does not need stays in `ahead`."""
    plain = _without_end(text)
    if '"' not in plain:
        return number, plain.split("\t")
    split = _split(plain)
    if split.is_open and (found := _over_lines(text, lines, ahead, width)):
        return found
    as_it_is = [_unquoted(cell) for cell in plain.split("\t")]
    return number, as_it_is if len(as_it_is) == width or split.is_open else split.cells


def _over_lines(
    text: str, lines: Iterator[tuple[int, str]], ahead: deque[tuple[int, str]], width: int
) -> tuple[int, list[str]] | None:
    """The row of a quoted cell of several lines; None where these are rows of their own."""
    joined = text
    counts = [text.count("\t") + 1]  # cells of each line, if it is a row
    rows_of_their_own = False
    for taken in range(1, MOST_LINES):
        if taken > len(ahead):
            following = next(lines, None)
            if following is None:
                return None
            ahead.append(following)
        number, more = ahead[taken - 1]
        joined += more
        counts.append(more.count("\t") + 1)
        if '"' not in more:
            rows_of_their_own = rows_of_their_own or counts[-1] == width
            continue
        split = _split(_without_end(joined))
        if split.is_open:
            continue
        rows_of_their_own = rows_of_their_own or counts[0] == counts[-1] == width
        if rows_of_their_own or (width and len(split.cells) != width):
            return None
        for _ in range(taken):
            ahead.popleft()
        return number, split.cells
    return None


def _split(text: str) -> _Split:
    """Cells between tabs, those that are quoted without their quotes."""
    cells: list[str] = []
    at = 0
    while at <= len(text):
        end = _closing_quote(text, at) if text.startswith('"', at) else -1
        if end == len(text):
            return _Split([*cells, text[at:]], True)
        if end > 0:
            cells.append(text[at + 1 : end].replace('""', '"'))
            at = end + 2
            continue
        end = text.find("\t", at)
        end = len(text) if end < 0 else end
        cells.append(text[at:end])
        at = end + 1
    return _Split(cells, False)


def _closing_quote(text: str, at: int) -> int:
    """Where the quote is closed that opens a cell at `at`: before a tab or the end; the length of the text where it is
    closed nowhere, -1 where something else follows, so that the cell is not quoted.
    """
    end = text.find('"', at + 1)
    while end >= 0:
        if text.startswith('"', end + 1):
            end = text.find('"', end + 2)
        else:
            return end if end + 1 == len(text) or text[end + 1] == "\t" else -1
    return len(text)


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell.startswith('"') and _closing_quote(cell, 0) == len(cell) - 1
    return cell[1:-1].replace('""', '"') if quoted else cell


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
