"""Values, names and messages inside an error: on one line whatever is in them, and cut where they are long.

Files and settings come from anywhere; a name of a megabyte or with line breaks in it must not bury what is wrong.
"""

import re
from collections.abc import Sequence

MAX_LENGTH = 80  # characters of a value or name
_MAX_MESSAGE = 400
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def quote(value: object, most: int = MAX_LENGTH) -> str:
    """`repr(value)`, cut to `most` characters."""
    return _cut(repr(value), most)


def short_name(name: object, most: int = MAX_LENGTH) -> str:
    """A name as it is, or as `quote` has it where it is long or not printable."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= most else quote(name, most)


def counted(number: float, noun: str) -> str:
    """`1 chunk`, `37 chunks`, `1.50 epochs`."""
    figure = f"{number:,.0f}" if number == round(number) else f"{number:,.2f}"
    return f"{figure} {noun}{'' if number == 1 else 's'}"


def first_of(names: Sequence[str], most: int) -> str:
    """`a, b, c and 4 more`: at most so many names of those that there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def is_text(value: object) -> bool:
    """Whether the value is a string that files can hold: one without NUL and lone surrogates, which JSON can write."""
    return isinstance(value, str) and not _NO_TEXT.search(value)


def error_message(error: BaseException) -> str:
    """The message of another library's exception, on one line; the name of its class if it has none."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)[: 2 * _MAX_MESSAGE]).split())
    return _cut(text, _MAX_MESSAGE) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Class and first line of another library's exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def os_error_reason(error: OSError) -> str:
    """The system's reason, without number and path; the message of one that has none."""
    return error.strerror or error_message(error)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 4] + " ..."
