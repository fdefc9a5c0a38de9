"""Output while a stage runs: a bar, then one line of result; the same lines go to the run's log."""

from __future__ import annotations

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from k2d_hf.terminal.screen import Screen, encoding_of, printable
from k2d_hf.terminal.status_lines import StatusLines

BAR_WIDTH = 16
BAR = f"{{desc}} {{bar:{BAR_WIDTH}}} {{n_fmt}}/{{total_fmt}} {{unit}}{{postfix}} [{{elapsed}}<{{remaining}}]"
BAR_STYLE: dict[str, Any] = {"ascii": " #", "leave": False, "dynamic_ncols": True}
NAME_WIDTH = 9

logger = logging.getLogger("k2d_hf")


class Console:
    """Prints to the terminal and, where there is one, to a log file with times.

    Args:
        log: file that is appended to.
        stream: where lines are printed.
        silent: print nothing, as all but one of several processes do.
        quiet: print nothing but warnings.
        clock: seconds from any moment on, for the speed of stages.
    """

    def __init__(
        self,
        log: Path | None = None,
        stream: TextIO | None = None,
        *,
        silent: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.log = log
        self.silent = silent
        self.quiet = quiet or silent
        self.stream = stream or sys.stdout

    @property
    def screen(self) -> Screen:
        """Width and encoding for tables."""
        return Screen.of(self.stream)

    def line(self, text: str = "") -> None:
        """Print a line of result, also to the log."""
        if not self.quiet:
            tqdm.write(printable(text, encoding_of(self.stream)), file=self.stream)
            self.stream.flush()
        self.note(text)

    def warn(self, text: str) -> None:
        """Print a warning to stderr, also to the log."""
        if not self.silent:
            tqdm.write(printable(f"k2d: {text}", encoding_of(sys.stderr)), file=sys.stderr)
        self.note(f"k2d: {text}")

    @property
    def shows_bars(self) -> bool:
        """Whether there is a terminal to draw on."""
        return not self.quiet and sys.stderr.isatty()

    def status(self, text: str) -> None:
        """Write the progress of a stage to the log, and to stderr where no bar shows it."""
        self.note(text)
        if not self.quiet and not self.shows_bars:
            tqdm.write(printable(text, encoding_of(sys.stderr)), file=sys.stderr)
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Write to the log alone."""
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                for part in printable(text).splitlines():  # a name that is no UTF-8 stops nothing
                    file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {part}\n")

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Print the package's warnings as lines, and write all its messages to the log."""
        handler = _ToConsole(self)
        before, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(before)
            logger.propagate = propagate

    def progress(self, name: str, *, position: str = "") -> ProgressLine:
        """The line of a piece of work, such as `label`, with its position, such as `[1/6]`."""
        return ProgressLine(self, f"{position} {name:<{NAME_WIDTH}}".lstrip())


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        show = self.console.warn if record.levelno >= logging.WARNING else self.console.note
        show(record.getMessage())


class ProgressLine:
    """Progress of one stage: a bar on a terminal, elsewhere a line every half minute, and in the end one line.

    Before there is anything to count, while models load, and where there never is, the terminal shows the title alone.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self.lines = StatusLines(title, console.status, clock=console.clock)
        self.bar = self._bar("{desc} ...")
        if not console.silent:
            self.lines.watch()

    def start(self, total: int | None, unit: str) -> None:
        """Show a bar of `total` units; None is unknown before the end."""
        self.bar.close()
        self.lines.begin(total, unit)
        self.bar = self._bar(BAR, total=total, unit=unit)

    def _bar(self, form: str, **counted: Any) -> tqdm:
        return tqdm(desc=self.title, bar_format=form, disable=not self.console.shows_bars, **BAR_STYLE, **counted)

    def advance(self, count: int, note: str = "") -> None:
        """Count units as done, with a note on the progress; none with one on what is done now."""
        self.lines.count(count, note)
        if note:
            self.bar.set_postfix_str(note, refresh=not count)
        self.bar.update(count)

    def close(self) -> None:
        """Remove the bar and end the status lines, as when the stage fails."""
        self.lines.stop()
        self.bar.close()

    def finish(self, result: str) -> None:
        """Replace the bar by the line of result."""
        self.close()
        done, unit = self.lines.done, self.lines.unit
        total = done if self.lines.total is None else self.lines.total
        if total:
            result = f"{'#' * BAR_WIDTH} {done:>{len(str(total))}}/{total} {unit:<10}  {result}"
        self.console.line(f"{self.title} {result}")


def minutes(seconds: float) -> str:
    """Seconds as `16.4 min`, or as hours where there are many."""
    return f"{seconds / 3600:.1f} h" if seconds >= 7200 else f"{seconds / 60:.1f} min"


def peak_memory() -> float:
    """Peak memory of this process, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
