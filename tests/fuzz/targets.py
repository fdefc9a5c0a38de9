"""What a fuzzing target is: strategies and a check, used by pytest with a small budget and by `python -m tests.fuzz`."""

from __future__ import annotations

import functools
import gc
import logging
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from k2d_hf.errors import K2DError

MEGABYTE = 1 << 20
LONGEST_LINE = 2000  # characters of an error: it is to be read by people
HEALTHY = list(HealthCheck)  # large inputs are the point


@dataclass(frozen=True)
class Target:
    """A check and the strategies of its arguments."""

    name: str
    check: Callable[..., None]
    strategies: dict[str, SearchStrategy]

    def test(self, *, examples: int, seed: int | None = None) -> Callable[[], None]:
        """The check over `examples` examples: always the same ones, or those of a seed, which are not made smaller."""
        test = settings(
            max_examples=examples,
            deadline=None,
            derandomize=seed is None,
            database=None,
            # Shrinking takes minutes, and a long run goes on: the seed brings the example back.
            phases=[Phase.explicit, Phase.generate] + [Phase.shrink] * (seed is None),
            suppress_health_check=HEALTHY,
            print_blob=False,
        )(given(**self.strategies)(self.check))
        if seed is not None:
            from hypothesis import seed as with_seed

            test = with_seed(seed)(test)
        return test


def fuzz(*, examples: int, **strategies: SearchStrategy) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make a check a test of pytest over `examples` examples, and under its attribute `target` one for longer runs."""

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        target = Target(check.__name__.removeprefix("test_"), check, strategies)
        test = target.test(examples=examples)
        test.target = target  # type: ignore[attr-defined]
        return test

    return decorate


@contextmanager
def bounded(*, seconds: float = 1.0, megabytes: float = 64.0) -> Iterator[None]:
    """Assert that the block takes no more processor time and memory than this, numpy's arrays included; log nothing."""
    logging.disable(logging.CRITICAL)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.disable()  # a collection of what pytest and hypothesis keep may take half a second
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
    finally:
        took = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1] / MEGABYTE
        tracemalloc.stop()
        gc.enable()
        logging.disable(logging.NOTSET)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) / 1024
    assert took <= seconds, f"took {took:.1f} s of processor time"
    assert peak <= megabytes, f"took {peak:.0f} MB of memory"
    assert grown <= 2 * megabytes + 64, f"the process grew by {grown:.0f} MB"  # libraries allocate past Python


def outcome(function: Callable[..., Any], *arguments: Any, names: str = "", **keywords: Any) -> Any:
    """What the function returns, or None after an error for the user: one short line, in which `names` stands."""
    try:
        return function(*arguments, **keywords)
    except K2DError as error:
        line = str(error)
        assert line.strip()
        assert not {"\n", "\r"} & set(line), f"more than one line: {line!r}"
        assert len(line) <= LONGEST_LINE, f"{len(line)} characters: {line!r:.300}"
        assert names in line, f"{names!r} is not named: {line!r}"
        line.encode("utf-8")  # a terminal must be able to show it
        return None


@functools.cache
def workspace() -> Path:
    """A folder for the files of this process, removed with it."""
    _kept.append(tempfile.TemporaryDirectory(prefix="fuzz-"))
    return Path(_kept[-1].name)


_kept: list[tempfile.TemporaryDirectory] = []
