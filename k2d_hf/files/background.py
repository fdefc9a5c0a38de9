"""Work in background threads: audio is read ahead of the model, and a model is called several times at once.

Both are generators that take no more from their source than they need, and whose threads end with them: where they may
be left before their end, `contextlib.closing` sees to that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cancelled(Exception):
    """Work was cancelled, as nobody waits for its result any more."""


_thread = threading.local()


def check_cancelled() -> None:
    """Raise Cancelled in a thread of `prefetch` or `spread` whose generator was closed, wherever work can end early."""
    cancelled: threading.Event | None = getattr(_thread, "cancelled", None)
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


def prefetch(function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int) -> Generator[Result, None, None]:
    """`map(function, items)` in the background: while one result is used, up to `ahead` others are made or wait.

    Results come in order, an exception in the place of its result, after which there are no more. The items are taken
    in the caller's thread.
    """
    with _threads(ahead) as submit:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(submit(function, item))
            del item  # what is handed over is held by its worker alone
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def spread(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Generator[Result, None, None]:
    """`function` of each item, by `workers` threads, as soon as each is done: in whatever order that is.

    An item is taken, in the caller's thread, when a worker is free for it. One worker is the caller's own thread.
    """
    if workers == 1:
        yield from map(function, items)
        return
    with _threads(workers) as submit:
        running: set[Future[Result]] = set()
        for item in items:
            running.add(submit(function, item))
            del item
            if len(running) == workers:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                while done:
                    yield done.pop().result()
        for future in as_completed(running):
            yield future.result()


@contextmanager
def _threads(count: int) -> Iterator[Callable[..., Future[Result]]]:
    """The `submit` of a pool of threads, which are cancelled, and joined, when the `with` is left."""
    cancelled = threading.Event()
    pool = ThreadPoolExecutor(count, initializer=set_cancel_event, initargs=(cancelled,))
    try:
        yield pool.submit
    finally:
        cancelled.set()
        pool.shutdown(cancel_futures=True)


def set_cancel_event(cancelled: threading.Event) -> None:
    """The event that cancels the work of this thread, for its `check_cancelled`."""
    _thread.cancelled = cancelled
