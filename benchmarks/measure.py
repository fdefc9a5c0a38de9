"""What all benchmarks share: sides measured in turns, medians with their spread, and one JSON line at the end."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib.metadata import version
from typing import Any

GIB = 2**30


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_turns(
    sides: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 1,
    synchronise: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each run of each side. Sides alternate, so that a slow minute of the machine hits all of them.

    Args:
        sides: what to run, by name.
        rounds: timed runs of each.
        warmup: runs of each that do not count.
        synchronise: waits until the device is idle.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, run in sides.items():
            synchronise()
            started = time.perf_counter()
            run()
            synchronise()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def median(values: Sequence[float]) -> float:
    """The median, to four digits."""
    return float(f"{statistics.median(values):.4g}")


def ratio(seconds: Mapping[str, Sequence[float]], slow: str, fast: str) -> dict[str, float]:
    """How many times faster `fast` is than `slow`: the median over rounds, with the smallest and the largest."""
    ratios = [a / b for a, b in zip(seconds[slow], seconds[fast], strict=True)]
    return {"median": round(statistics.median(ratios), 3), "min": round(min(ratios), 3), "max": round(max(ratios), 3)}


def peak_memory() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def in_process(arguments: Sequence[str]) -> dict[str, Any]:
    """Run a Python script in a process of its own and read the JSON line with which its output ends."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(name: str, figures: Mapping[str, Any], *, packages: Sequence[str] = ()) -> None:
    """Print the one JSON line of a benchmark: its figures, and what they were measured on."""
    facts = {
        "benchmark": name,
        "date": date.today().isoformat(),
        "cpu": _cpu(),
        "cores": cores(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps({**facts, **figures}, ensure_ascii=False))


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
