"""Cores that a process may use, and its place among the processes that torchrun or accelerate start together."""

import os


def process_count() -> int:
    """How many processes there are together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that prints, locks and writes results."""
    return os.environ.get("RANK", "0") == "0"


def available_cores() -> int:
    """Cores that this process may use: OMP_NUM_THREADS where it is set, else all it is given."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
