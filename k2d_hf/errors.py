"""The error that a user can fix: one line with what is wrong, where, and what to do."""


class K2DError(ValueError):
    """A mistake that the caller can fix; the command line prints it as one line, without a traceback."""
