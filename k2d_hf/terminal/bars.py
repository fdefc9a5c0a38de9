"""Numbers as bars of text, for a terminal and for the cards and tables that are read there."""

from __future__ import annotations

from collections.abc import Sequence

from k2d_hf.terminal.screen import ENDLESS, Screen, columns_of, printable, shortened

BAR = "█"
LONGEST = 40  # columns of the longest bar
_NAMES = 0.4  # most of the screen that names may take


def bars(rows: Sequence[tuple[str, float, str]], screen: Screen = ENDLESS) -> str:
    """A bar a line: its name, the bar, and what stands behind it; the longest is the largest number's.

    >>> print(bars([("teacher", 0.2, "20.0"), ("student", 0.05, "5.0")], Screen(30)))
    teacher  ████████████████ 20.0
    student  ████ 5.0
    """
    names, behind = [name for name, _, _ in rows], max(columns_of(text) for _, _, text in rows) + 1
    if screen.width is not None:
        names = shortened(names, round(screen.width * _NAMES))
    width = max(map(columns_of, names))
    room = LONGEST if screen.width is None else max(1, min(LONGEST, screen.width - width - 2 - behind))
    most = max(value for _, value, _ in rows) or 1.0
    lines = [
        f"{name}{' ' * (width - columns_of(name))}  {BAR * round(room * value / most)} {text}".rstrip()
        for name, (_, value, text) in zip(names, rows, strict=True)
    ]
    return "\n".join(printable(line, screen.encoding) for line in lines)
