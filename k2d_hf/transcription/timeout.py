"""Calls of a transcriber that stop nothing: one that raises, gives nothing or hangs costs its own item and no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.errors import K2DError
from k2d_hf.files.background import Stopped, heed, stop_if_asked
from k2d_hf.files.shards import Failure
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    import numpy as np

    from k2d_hf.transcription.engines import OnDemand
    from k2d_hf.transcription.transcribers import Transcriber

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Transcribe = Callable[["Transcriber", Sequence[Any], "Sequence[np.ndarray]"], Sequence[dict[str, Any]]]

NOT_TRANSCRIBED = "not transcribed"
TIMED_OUT = "timed out"
FAILURES_IN_A_ROW = 8  # so many are no bad recordings, but a bad engine
LOOK_AGAIN = 0.2  # s between two looks at whether the work is still wanted
LAST_WORDS = 30.0  # s that work which is to stop has until it looks, between two words or windows

_given_up: list[threading.Thread] = []


def hanging() -> bool:
    """Whether a call that was given up still goes on, in a thread that nothing ends but the process."""
    return any(thread.is_alive() for thread in _given_up)


class Guard:
    """Runs a function on a transcriber, item by item where that must be.

    Args:
        model: gives the transcriber, and a new one in the place of one that hangs.
        time_limit: seconds that 30 s of audio may take, or a shorter recording; None waits for ever.
        in_a_row: failures just before.
    """

    def __init__(self, model: OnDemand, *, time_limit: float | None, in_a_row: int = 0) -> None:
        self.model = model
        self.time_limit = time_limit
        self.in_a_row = in_a_row
        self._lock = threading.Lock()
        self._own = threading.local()
        self._lanes: list[_Lane] = []

    def close(self) -> None:
        """Let the threads go in which the calls ran."""
        for lane in self._lanes:
            lane.end(wait=True)
        self._lanes.clear()

    def call(
        self, function: Transcribe, items: Sequence[Any], audio: Sequence[np.ndarray]
    ) -> list[dict[str, Any] | Failure]:
        """`function(transcriber, items, audio)`, with a failure in the place of each result that there is none of.

        Of several items that fail together, each is tried by itself.

        Raises:
            K2DError: if so many fail in a row that it cannot be the recordings.
        """
        try:
            results = list(self._within(function, items, audio))
            if len(results) != len(items):
                raise ValueError(f"the engine gave {len(results)} results for {len(items)}")
        except Stopped:
            raise
        except Exception as error:
            if len(items) > 1:
                logger.info("%d items together: %s; each is tried by itself", len(items), _told(error))
                pairs = zip(items, audio, strict=True)
                return [result for item, sound in pairs for result in self.call(function, [item], [sound])]
            reason = TIMED_OUT if isinstance(error, _TimedOut) else NOT_TRANSCRIBED
            self._count(_told(error))
            return [Failure(reason, _told(error), len(audio[0]) / SAMPLE_RATE)]
        self.in_a_row = 0
        return list(results)

    def _count(self, told: str) -> None:
        with self._lock:
            self.in_a_row += 1
            if self.in_a_row >= FAILURES_IN_A_ROW:
                raise K2DError(
                    f"{self.in_a_row} in a row could not be transcribed, the last one because: {told}; "
                    "mend the engine (K2D_DEBUG=1 shows more) and run again: what is done stays done"
                )

    def _within(self, function: Transcribe, items: Sequence[Any], audio: Sequence[np.ndarray]) -> Sequence[Any]:
        transcriber = self.model.load()
        if self.time_limit is None:
            return function(transcriber, items, audio)
        seconds = sum(max(len(samples) / SAMPLE_RATE, CHUNK_SECONDS) for samples in audio)
        limit = self.time_limit * seconds / CHUNK_SECONDS
        lane = getattr(self._own, "lane", None)
        if lane is None:
            self._own.lane = lane = _Lane()
            self._lanes.append(lane)
        try:
            return lane.run(lambda: function(transcriber, items, audio), limit)
        except _TimedOut:
            self.model.give_up(transcriber)
            raise
        finally:
            if lane.asked.is_set():
                self._own.lane = None
                self._lanes.remove(lane)


class _TimedOut(Exception):
    """Nothing came within the time limit."""


class _Lane:
    """A thread that works for one other, which need not wait for it: what hangs in it ends with the process."""

    def __init__(self) -> None:
        self.work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.asked = threading.Event()  # to stop
        self.thread = threading.Thread(target=self._serve, daemon=True, name="k2d-lane")
        self.thread.start()

    def _serve(self) -> None:
        heed(self.asked)
        while not self.asked.is_set():
            self.work.get()()

    def end(self, *, wait: bool) -> None:
        """Stop when it next looks; a thread that computes while Python ends would take the process down."""
        self.asked.set()
        self.work.put(lambda: None)  # wakes it, if it waits
        self.thread.join(LAST_WORDS if wait else 0.0)
        if self.thread.is_alive():
            _given_up.append(self.thread)

    def run(self, function: Callable[[], Any], limit: float) -> Any:
        done = threading.Event()
        result: dict[str, Any] = {}

        def work() -> None:
            try:
                result["value"] = function()
            except BaseException as error:  # an interrupt, too, is for who waits
                result["error"] = error
            done.set()

        self.work.put(work)
        try:
            waited = 0.0
            while not done.wait(min(LOOK_AGAIN, max(limit - waited, 0.0))):
                stop_if_asked()
                waited += LOOK_AGAIN
                if waited >= limit:
                    raise _TimedOut(f"nothing came within {limit:g} s")
        except BaseException as error:
            self.end(wait=not isinstance(error, _TimedOut))
            raise
        if "error" in result:
            raise result["error"]
        return result["value"]


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (K2DError, _TimedOut)) else f"{type(error).__name__}: {text}"
