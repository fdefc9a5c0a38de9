"""The error that a user can fix: one line with what is wrong, where, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class K2DError(ValueError):
    """A mistake that the caller can fix; the command line prints it as one line, without a traceback."""


@contextmanager
def prefixed(where: str) -> Iterator[None]:
    """Have errors begin with what they are about, such as `teacher: `."""
    try:
        yield
    except K2DError as error:
        raise K2DError(f"{where}{error}") from None
