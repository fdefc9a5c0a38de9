"""Ctrl-C in the program `k2d`: one line and exit status 130 whenever it comes, also while the program starts and ends.

While a command runs, it is a `KeyboardInterrupt`, so that locks and unfinished files are cleared away. Before, while
the libraries are imported, and after, while Python ends, there is nothing to clear away, and an exception would be
shown with a traceback or swallowed by whatever imports or ends: there the process ends at once.

The module imports as little as it can (`_signal` is `signal` without its enumerations): until it is there, some
milliseconds after Python itself, a Ctrl-C is Python's.
"""

from __future__ import annotations

import _signal as signal
import atexit
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130
STOPPED = "k2d: stopped; what is done stays, and the same command resumes from here"
_AGAIN = 0.05  # s until an interrupt within a destructor or callback is raised anew

_requested = False
_printed = False


def end_at_once() -> None:
    """From here on a Ctrl-C ends the process, unless its parent has Ctrl-C ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    signal.signal(signal.SIGINT, _end)
    atexit.register(_ignore)  # registered first, so called last: from there on our handler cannot run


def print_stopped() -> None:
    """Print the line, once; a Ctrl-C that follows prints none."""
    global _printed
    _printed = True
    sys.stderr.write(f"\n{STOPPED}\n")


def requested() -> bool:
    """Whether a Ctrl-C came while a command ran, even if what was raised is something else by now."""
    return _requested


class Raised:
    """While in this context, a Ctrl-C raises `KeyboardInterrupt`; without `end_at_once` before, nothing changes."""

    def __enter__(self) -> None:
        self.ours = signal.getsignal(signal.SIGINT) is _end
        if self.ours:
            self.hook = sys.unraisablehook
            sys.unraisablehook = self._unraisable
            signal.signal(signal.SIGINT, _raise)

    def __exit__(self, *error: object) -> None:
        if self.ours:
            signal.signal(signal.SIGINT, _end)
            sys.unraisablehook = self.hook

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """An exception of a destructor or a callback; Python would print a Ctrl-C that came there, and continue."""
        if unraisable.exc_type is not KeyboardInterrupt:
            self.hook(unraisable)
            return
        from threading import Timer, main_thread

        Timer(_AGAIN, signal.pthread_kill, [main_thread().ident, signal.SIGINT]).start()


def _raise(number: int, frame: FrameType | None) -> None:
    global _requested
    _requested = True
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    try:
        sys.stdout.flush()
        if not _printed:
            print_stopped()
    finally:
        os._exit(INTERRUPTED)


def _ignore() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
