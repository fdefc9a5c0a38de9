"""Tab-separated text as people have it: without quotes, as Common Voice writes it, or with them, as spreadsheets do.

A cell is quoted if it begins and ends with a quote and those within are doubled; any other quote stands for itself.
Read by `manifests.py` (K2D, before stage 1).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator

MOST_LINES = 1000  # of a quoted cell
_FROM_QUOTE = r'"[^"]*(?:""[^"]*)*'  # up to a quote that is not doubled, or the end
_CELL = re.compile(rf'(?:\A|\t)(?P<cell>{_FROM_QUOTE}"(?=\t|\Z)|(?P<open>{_FROM_QUOTE}\Z)|[^\t]*)')


def tab_separated(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the number of its last line; blank lines give no cells.

    Args:
        lines: number and text of each line, with its end. The first row is the header; its number of cells decides
            where a quote could belong to one cell or to several lines.
    """
    ahead: deque[tuple[int, str]] = deque()
    width = 0
    while line := ahead.popleft() if ahead else next(lines, None):
        if _without_end(line[1]):
            number, cells = _row(*line, lines, ahead, width)
            width = width or len(cells)
            yield number, cells


def _row(
    number: int, text: str, lines: Iterator[tuple[int, str]], ahead: deque[tuple[int, str]], width: int
) -> tuple[int, list[str]]:
    """The row that begins with a line; what it reads and does not need stays in `ahead`."""
    plain = _without_end(text)
    if '"' not in plain:
        return number, plain.split("\t")
    cells, is_open = _split(plain)
    if is_open and (found := _over_lines(text, lines, ahead, width)):
        return found
    as_it_is = [_unquoted(cell) for cell in plain.split("\t")]
    return number, as_it_is if len(as_it_is) == width or is_open else cells


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
        cells, is_open = _split(_without_end(joined))
        if is_open:
            continue
        rows_of_their_own = rows_of_their_own or counts[0] == counts[-1] == width
        if rows_of_their_own or (width and len(cells) != width):
            return None
        for _ in range(taken):
            ahead.popleft()
        return number, cells
    return None


def _split(text: str) -> tuple[list[str], bool]:
    """Cells between tabs, and whether a quote that opens the last of them is closed nowhere."""
    found = list(_CELL.finditer(text))
    return [_unquoted(cell["cell"]) for cell in found], found[-1]["open"] is not None


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if re.fullmatch(f'{_FROM_QUOTE}"', cell) else cell


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")
