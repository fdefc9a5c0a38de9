"""The folder of a run, where that of one of its stages is meant, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import is_address

Place = TypeVar("Place", str, Path)

RECORD = "stages.json"  # in the folder of every run


def is_run(path: str | Path) -> bool:
    """Whether this is the folder of a run, as `k2d run` makes it."""
    return not is_address(str(path)) and (Path(path) / RECORD).is_file()


def part_of_run(path: Place, *parts: str) -> Place:
    """`path`, or where that is the folder of a run the first of its `parts` that is there, such as `validated`.

    Raises:
        K2DError: for a run that has none of them.
    """
    if not is_run(path):
        return path
    for part in parts:
        inside = Path(path) / part
        if inside.is_dir() and any(inside.iterdir()):
            return type(path)(inside)
    raise K2DError(f"{path}: a run without {' or '.join(parts)}; `k2d run` makes it, or give another folder")


def run_around(path: Path) -> Path:
    """The run that `path` is a stage's folder or file of; `path` itself where it is a run, or in none."""
    return path.parent if not is_run(path) and is_run(path.parent) else path
