"""The progress bar of functions called from Python: that of `datasets.map`, with the same switches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = Callable[..., None]  # takes the number of units done since, and perhaps a note


@contextmanager
def progress_bar(
    on_progress: Callable[..., Any] | None, title: str, total: int | None, unit: str
) -> Iterator[Progress]:
    """The function that work reports its progress to: the caller's `on_progress`, else a bar while the `with` lasts.

    `datasets.disable_progress_bars()` and HF_DATASETS_DISABLE_PROGRESS_BARS hide the bar. None for `total` is unknown
    before the end.
    """
    if on_progress is not None:
        yield on_progress
        return
    from datasets.utils import tqdm

    with tqdm(total=total, desc=title, unit=f" {unit}") as bar:

        def advance(count: int, note: str = "") -> None:
            if note:
                bar.set_postfix_str(note, refresh=False)
            bar.update(count)

        yield advance


def length_of(rows: Any) -> int | None:
    """How many rows there are; None of a stream."""
    return len(rows) if hasattr(rows, "__len__") else None
