"""What a process may use, and what it is among several: cores, and the processes that train one student together.

Those are started by torchrun and accelerate; one of them speaks and writes.
"""

import os


def process_count() -> int:
    """How many processes there are together; 1 unless a launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that prints, locks and writes results."""
    return os.environ.get("RANK", "0") == "0"


def available_cores() -> int:
    """Cores that this process may use: as many as OMP_NUM_THREADS says, where it is set, else all it is given."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
