"""The progress of a stage, a line every half minute: for a log, and where no terminal shows a bar."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tqdm import tqdm

EVERY = 30.0  # s between two lines
POLL_INTERVAL = 5.0  # s between two checks of the clock: a line is late by no more while nothing is counted
WINDOW = 20  # lines over which speed is taken, ten minutes: it may change
FEW = 10  # units in those, below which one more or less would change it too much


class StatusLines:
    """The lines of one stage, each given to `show`: what is done, how fast, and how long the rest will take."""

    def __init__(self, title: str, show: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.title = title.rstrip()
        self._show = show
        self._clock = clock
        self._stopped = threading.Event()
        self._turn = threading.Lock()  # counting and the watching thread may both find that it is time
        self._began = self._last = clock()
        self.begin(None, "")

    def begin(self, total: int | None, unit: str) -> None:
        """Count `total` units from now on; None is unknown before the end, and without a unit nothing is counted."""
        self.total, self.unit, self.done, self.note = total, unit, 0, ""
        self._marks = [(self._clock(), 0)]  # times of lines, and what was done then

    def count(self, count: int, note: str = "") -> None:
        """Count units as done, with a note on the progress."""
        self.done += count
        self.note = note or self.note
        self.tick()

    def tick(self) -> None:
        """Show a line if it is time for one."""
        now = self._clock()
        with self._turn:
            if now - self._last < EVERY:
                return
            self._last = now
        with suppress(OSError, ValueError):  # a pipe, disk or stream that is gone: no reason for the work to end
            self._show(self._line(now))

    def watch(self) -> None:
        """Show lines while nothing is counted too, until `stop`."""
        threading.Thread(target=self._watch, args=(self._stopped.wait,), daemon=True).start()

    def _watch(self, wait: Callable[[float], bool]) -> None:
        while not wait(POLL_INTERVAL):
            self.tick()

    def stop(self) -> None:
        """Show no more lines from now on."""
        self._stopped.set()

    def _line(self, now: float) -> str:
        so_far = tqdm.format_interval(now - self._began)
        if not self.unit:
            return f"{self.title}: at work for {so_far}"
        speed = self._speed(now) if self.total is None or self.done < self.total else 0.0
        parts = [f"{self.done}{'' if self.total is None else f'/{self.total}'} {self.unit}"]
        parts += [_rate_text(speed)] if speed else []
        if speed and self.total is not None:
            parts.append(f"{tqdm.format_interval((self.total - self.done) / speed)} left")
        else:
            parts.append(f"{so_far} so far")
        return f"{self.title}: {', '.join([*parts, self.note] if self.note else parts)}"

    def _speed(self, now: float) -> float:
        """Units a second over the last lines; where few came in them, since the first line, or else the beginning.

        Work of an earlier run is counted before the first line, and is no part of this one's speed.
        """
        lines = self._marks[1:] or self._marks
        since = [(lines[-WINDOW:][0], FEW), (lines[0], 1), (self._marks[0], 1)]
        self._marks.append((now, self.done))
        for (then, done), least in since:
            if self.done - done >= least and now > then:
                return (self.done - done) / (now - then)
        return 0.0


def _rate_text(speed: float) -> str:
    if speed >= 1:
        return f"{speed:.1f} a second"
    return f"{speed * 60:.1f} a minute" if speed * 60 >= 1 else f"{speed * 3600:.1f} an hour"
