"""Calls of a transcriber with a time limit: one that raises, returns too little or hangs fails its own item alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.errors import K2DError
from k2d_hf.files.background import Cancelled, check_cancelled, set_cancel_event
from k2d_hf.files.shards import Failure
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    import numpy as np

    from k2d_hf.transcription.engines import OnDemand
    from k2d_hf.transcription.transcribers import Transcriber

logger = logging.getLogger(__name__)

Transcribe = Callable[["Transcriber", Sequence[Any], "Sequence[np.ndarray]"], Sequence[dict[str, Any]]]

NOT_TRANSCRIBED = "not transcribed"
TIMED_OUT = "timed out"
FAILURES_IN_A_ROW = 8  # so many are no bad recordings, but a bad engine
POLL_INTERVAL = 0.2  # s between two checks whether the result is still wanted
GRACE_PERIOD = 30.0  # s that a cancelled call has until its next `check_cancelled`

_abandoned: list[threading.Thread] = []


def has_abandoned_calls() -> bool:
    """Whether an abandoned call is still running, in a thread that ends only with the process."""
    return any(thread.is_alive() for thread in _abandoned)


class TimedCalls:
    """Calls a function of the model's transcriber, item by item where several fail together.

    `time_limit` is the seconds that 30 s of audio or less may take; `in_a_row` is the failures just before.
    """

    def __init__(self, model: OnDemand, *, time_limit: float | None, in_a_row: int = 0) -> None:
        self.model = model
        self.time_limit = time_limit
        self.in_a_row = in_a_row
        self._lock = threading.Lock()
        self._local = threading.local()
        self._workers: list[_WorkerThread] = []

    def close(self) -> None:
        """End the threads in which the calls ran."""
        for worker in self._workers:
            worker.cancel(GRACE_PERIOD)
        self._workers.clear()

    def call(
        self, function: Transcribe, items: Sequence[Any], audio: Sequence[np.ndarray]
    ) -> list[dict[str, Any] | Failure]:
        """`function(transcriber, items, audio)`, with a failure in the place of each missing result.

        Raises:
            K2DError: if so many fail in a row that it cannot be the recordings.
        """
        try:
            results: list[Any] = list(self._limited(function, items, audio))
            if len(results) != len(items):
                raise ValueError(f"the engine gave {len(results)} results for {len(items)}")
        except Cancelled:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            detail = text if isinstance(error, (K2DError, _TimedOut)) else f"{type(error).__name__}: {text}"
            if len(items) > 1:
                logger.info("%d items together: %s; each is tried by itself", len(items), detail)
                pairs = zip(items, audio, strict=True)
                return [result for item, samples in pairs for result in self.call(function, [item], [samples])]
            self._count_failure(detail)
            reason = TIMED_OUT if isinstance(error, _TimedOut) else NOT_TRANSCRIBED
            return [Failure(reason, detail, len(audio[0]) / SAMPLE_RATE)]
        self.in_a_row = 0
        return results

    def _count_failure(self, detail: str) -> None:
        with self._lock:
            self.in_a_row += 1
            if self.in_a_row >= FAILURES_IN_A_ROW:
                raise K2DError(
                    f"{self.in_a_row} in a row could not be transcribed, the last one because: {detail}; "
                    "fix the engine (K2D_DEBUG=1 shows more) and run again: what is done stays done"
                )

    def _limited(self, function: Transcribe, items: Sequence[Any], audio: Sequence[np.ndarray]) -> Sequence[Any]:
        transcriber = self.model.load()
        if self.time_limit is None:
            return function(transcriber, items, audio)
        seconds = sum(max(len(samples) / SAMPLE_RATE, CHUNK_SECONDS) for samples in audio)
        worker = getattr(self._local, "worker", None)
        if worker is None:
            self._local.worker = worker = _WorkerThread()
            self._workers.append(worker)
        try:
            return worker.run(lambda: function(transcriber, items, audio), self.time_limit * seconds / CHUNK_SECONDS)
        except _TimedOut:
            self.model.abandon(transcriber)
            raise
        finally:
            if worker.cancelled.is_set():
                self._local.worker = None
                self._workers.remove(worker)


class _TimedOut(Exception):
    """No result within the time limit."""


class _WorkerThread:
    """A thread that works for one other, which may abandon it: a call that hangs there ends with the process."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self.cancelled = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True, name="k2d-transcribe")
        self.thread.start()

    def _serve(self) -> None:
        set_cancel_event(self.cancelled)
        while not self.cancelled.is_set():
            self.calls.get()()

    def cancel(self, grace_period: float) -> None:
        """End at the next `check_cancelled`; a thread that computes while Python ends would crash the process."""
        self.cancelled.set()
        self.calls.put(lambda: None)  # wakes it, if it waits
        self.thread.join(grace_period)
        if self.thread.is_alive():
            _abandoned.append(self.thread)

    def run(self, function: Callable[[], Any], limit: float) -> Any:
        """The function's result; what raises there, an interrupt too, is raised here."""
        future: Future[Any] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        self.calls.put(call)
        try:
            waited = 0.0
            while not wait([future], min(POLL_INTERVAL, limit - waited)).done:
                check_cancelled()
                waited += POLL_INTERVAL
                if waited >= limit:
                    raise _TimedOut(f"no result within {limit:g} s")
        except BaseException as error:
            self.cancel(0.0 if isinstance(error, _TimedOut) else GRACE_PERIOD)
            raise
        return future.result()
