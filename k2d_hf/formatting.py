"""How errors quote what they refuse: on one line whatever is in it, and cut where it is long.

Files and settings come from anywhere; a name of a megabyte or with line breaks in it must not bury what is wrong.
"""

import re

MOST = 80  # characters of what is quoted
_MOST_OF_A_MESSAGE = 400
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def quoted(value: object, most: int = MOST) -> str:
    """`repr(value)`, cut to `most` characters."""
    return _cut(repr(value), most)


def named(name: object, most: int = MOST) -> str:
    """A name as it is, or quoted where it cannot stand in a line."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= most else quoted(name, most)


def is_text(value: object) -> bool:
    """Whether the value is a string that files can hold: one without NUL and lone surrogates, which JSON can write."""
    return isinstance(value, str) and not _NO_TEXT.search(value)


def message_of(error: BaseException) -> str:
    """What an exception of another library says, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)[: 2 * _MOST_OF_A_MESSAGE]).split())
    return _cut(text, _MOST_OF_A_MESSAGE) or type(error).__name__


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 4] + " ..."
