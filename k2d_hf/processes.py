"""Several processes that train one student, as torchrun and accelerate start them: which one speaks and writes."""

import os


def process_count() -> int:
    """How many processes there are together; 1 unless a launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process is the one that prints, locks and writes results."""
    return os.environ.get("RANK", "0") == "0"
