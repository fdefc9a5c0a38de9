"""Long runs: `python -m tests.fuzz --seconds 3600 --seed 1` takes all targets in turn, with other examples each time.

Prints a line a minute, at the end the examples of each target and how fast they were, and every failure with its
falsifying example; ends with 1 if there was one.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import importlib
import logging
import os
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from .targets import Target

SLICE = 15.0  # s for a target before it is the next one's turn
HANGS = 600.0  # s after which a slice is taken for one that will never end
SHOWN = 1500  # characters of a failure, and of its example
MOST_FAILURES = 5  # of a target, which then rests: they are the same most of the time


@dataclass
class Tally:
    """What became of one target."""

    target: Target
    examples: int = 0
    seconds: float = 0.0
    size: int = 10  # examples of the next slice
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.examples / self.seconds if self.seconds else 0.0

    def run(self, seed: int) -> None:
        """One slice: as many examples as its time should suffice for."""

        @functools.wraps(self.target.check)
        def counted(**arguments: object) -> None:
            self.examples += 1
            self.target.check(**arguments)

        began = time.monotonic()
        faulthandler.dump_traceback_later(HANGS, exit=True)
        try:
            Target(self.target.name, counted, self.target.strategies).test(examples=self.size, seed=seed)()
        except Exception as error:
            self.failures += described(error)
        faulthandler.cancel_dump_traceback_later()
        took = time.monotonic() - began
        self.seconds += took
        self.size = max(10, min(10 * self.size, round(self.size * SLICE / max(took, 0.01)), 20_000))


def targets(wanted: str) -> Iterator[Target]:
    """All targets whose names contain `wanted`, by module and in the order in which they are written down."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        module = importlib.import_module(f".{path.stem}", __package__)
        for value in vars(module).values():
            target = getattr(value, "target", None)
            if isinstance(target, Target) and wanted in target.name:
                yield target


def described(error: BaseException) -> list[str]:
    """Each failure of a slice: what it is, where, and the example, of which only the beginning where it is long."""
    if hasattr(error, "exceptions"):
        return [text for inner in error.exceptions for text in described(inner)]
    what = "".join(traceback.format_exception_only(error)).partition("Failing test case")[0].strip()
    frames = [
        f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]
    notes = "\n".join(getattr(error, "__notes__", ()))
    return ["\n".join([what[:SHOWN], *frames[-4:], notes[:SHOWN]])]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long (default: an hour)")
    parser.add_argument("--seed", type=int, default=0, help="of all examples")
    parser.add_argument("--only", default="", help="targets whose names contain this")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    chance = random.Random(arguments.seed)
    tallies = [Tally(target) for target in targets(arguments.only)]
    end, next_line = time.monotonic() + arguments.seconds, time.monotonic()
    while time.monotonic() < end and any(len(tally.failures) < MOST_FAILURES for tally in tallies):
        for tally in tallies:
            if time.monotonic() >= end or len(tally.failures) >= MOST_FAILURES:
                continue
            seed, known = chance.getrandbits(32), len(tally.failures)
            tally.run(seed)
            for failure in tally.failures[known:]:
                say(f"FAILED {tally.target.name} (seed {seed})\n{failure}")
            if time.monotonic() >= next_line:
                examples, failures = sum(t.examples for t in tallies), sum(len(t.failures) for t in tallies)
                say(f"{examples} examples, {failures} failures, {max(0.0, end - time.monotonic()):.0f} s to go")
                next_line += 60 * (1 + (time.monotonic() - next_line) // 60)
    for tally in tallies:
        say(f"{tally.examples:9} examples {tally.rate:8.1f}/s {len(tally.failures):3} failures  {tally.target.name}")
    return 1 if any(tally.failures for tally in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
