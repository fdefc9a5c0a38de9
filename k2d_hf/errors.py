"""The errors a user can mend: one line that says what is wrong, where, and what to do."""


class K2DError(ValueError):
    """Something the caller can put right; the command line prints it as one line, without a traceback."""
