"""Text for a terminal: tables that fit its columns, and characters that its encoding has."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

GAP = "  "
_NAMES = 0.4  # most of the screen that the first column of a table may take
_PLAIN = {
    "█": "#",
    "±": "+/-",
    "→": "->",
    "×": "x",
    "…": "...",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}
_PLAINLY = str.maketrans(_PLAIN)


@dataclass(frozen=True)
class Screen:
    """Columns, None for any number, and encoding of an output."""

    width: int | None = None
    encoding: str = "utf-8"

    @classmethod
    def of(cls, stream: TextIO) -> Screen:
        """The terminal's, or the 80 columns that a file or a pipe is read in."""
        return cls(max(40, shutil.get_terminal_size((80, 24)).columns), encoding_of(stream))


ENDLESS = Screen()


def encoding_of(stream: TextIO) -> str:
    """The encoding of a stream; UTF-8 of one that holds text."""
    return getattr(stream, "encoding", None) or "utf-8"


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""The text as an encoding can hold it: `±` as `+/-`, and what has no such form as `\u4eca`.

    >>> printable("今天 ± 1 → a", "latin-1")
    '\\u4eca\\u5929 +/- 1 -> a'
    >>> printable("今天 ± 1")
    '今天 ± 1'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAINLY).encode(encoding, "backslashreplace").decode(encoding)
    return text


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes.

    >>> columns_of("a今é")
    4
    """
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def is_mark(character: str) -> bool:
    """Whether a character is drawn onto the one before it, and belongs to it: vowel signs, accents, joiners."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


def aligned(rows: Sequence[Sequence[str]], screen: Screen = ENDLESS) -> str:
    """Cells as text in columns. The first row is the head, the first column names the rows.

    Where that is wider than the screen, heads take several lines and long names lose their middle; what is still too
    wide continues below, with the names again.
    """
    rows = [[printable(cell, screen.encoding) for cell in row] for row in rows]
    widths = _widths(rows)
    if screen.width is None or _width(widths) <= screen.width:
        return _lines(rows, widths)
    names = shortened([row[0] for row in rows], round(screen.width * _NAMES))
    rows = [[name, *row[1:]] for name, row in zip(names, rows, strict=True)]
    narrow = _narrow_heads(rows)
    rows = narrow if _width(_widths(narrow)) <= screen.width else rows
    widths = _widths(rows)
    return "\n\n".join(
        _lines([[row[column] for column in block] for row in rows], [widths[column] for column in block])
        for block in _blocks(widths, screen.width)
    )


def _narrow_heads(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The rows with heads that are no wider than their longest word or what stands below them."""
    head, *body = rows
    below = _widths(body) if body else [0] * len(head)
    widths = [max([width, *map(columns_of, name.split())]) for name, width in zip(head, below, strict=True)]
    heads = [wrapped(name, width) for name, width in zip(head, widths, strict=True)]
    tall = max(map(len, heads))
    lines = zip(*([*[""] * (tall - len(head)), *head] for head in heads), strict=True)  # the lowest lines are full
    return [*map(list, lines), *map(list, body)]


def _blocks(widths: Sequence[int], most: int) -> list[list[int]]:
    """Indices of columns side by side, the first column in front of each block; blocks have similar widths."""
    blocks = _packed(widths, most)
    while most > 1 and len(_packed(widths, most - 1)) == len(blocks):
        most -= 1
    return _packed(widths, most)


def _packed(widths: Sequence[int], most: int) -> list[list[int]]:
    blocks = [[0]]
    for column in range(1, len(widths)):
        if len(blocks[-1]) > 1 and _width([widths[index] for index in (*blocks[-1], column)]) > most:
            blocks.append([0])
        blocks[-1].append(column)
    return blocks


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(columns_of, column)) for column in zip(*rows, strict=True)]


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    lines = [GAP.join(map(_padded, row, widths)).rstrip() for row in rows]
    return "\n".join(lines if lines[0] else lines[1:])


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns_of(text))


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Names of at most `most` columns, a long one without its middle; names that differ stay different.

    >>> shortened(["student", "/home/me/runs/of/last/winter/student"], 20)
    ['student', '/hom...inter/student']
    """
    short: list[str] = []
    for name in names:
        if columns_of(name) > most:
            head, tail = (most - 3) // 4, most - 3 - (most - 3) // 4
            name = _cut(name, head) + "..." + _end(name, tail)
            if alike := sum(other.partition("#")[0] == name for other in short):
                name = f"{_cut(name, most - 3)}#{alike + 1}"
        short.append(name)
    return short


def _cut(text: str, most: int) -> str:
    """The beginning of a text that fits `most` columns."""
    taken = 0
    for index, character in enumerate(text):
        taken += _columns(character)
        if taken > most:
            whole = index
            while whole and is_mark(text[whole]):  # its letter goes with it
                whole -= 1
            return text[:whole]
    return text


def _end(text: str, most: int) -> str:
    """The end of a text that fits `most` columns, which begins with no mark whose letter is cut off."""
    begin, taken = len(text), 0
    while begin and taken + _columns(text[begin - 1]) <= most:
        begin -= 1
        taken += _columns(text[begin])
    while 0 < begin < len(text) and is_mark(text[begin]):
        begin += 1
    return text[begin:]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words, and within those that are longer.

    >>> wrapped("max. recall, over half kept", 12)
    ['max. recall,', 'over half', 'kept']
    """
    lines = [""]
    for word in text.split():
        if lines[-1] and columns_of(lines[-1]) + 1 + columns_of(word) <= width:
            lines[-1] += " " + word
            continue
        if lines[-1]:
            lines.append("")
        while columns_of(word) > width:
            start = _cut(word, max(width, 2)) or word[:1]
            lines[-1], word = start, word[len(start) :]
            lines.append("")
        lines[-1] = word
    return lines


def listed(pairs: Sequence[tuple[str, str]], screen: Screen = ENDLESS) -> str:
    """Names and texts side by side, a text of several lines below itself."""
    pairs = [(name, printable(text, screen.encoding)) for name, text in pairs]
    indent = max(columns_of(name) for name, _ in pairs) + len(GAP)
    lines = []
    for name, text in pairs:
        parts = [text] if screen.width is None else wrapped(text, screen.width - indent)
        for part in parts:
            lines.append(f"{_padded(name, indent)}{part}".rstrip())
            name = ""
    return "\n".join(lines)
