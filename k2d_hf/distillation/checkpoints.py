"""Complete checkpoints of training: marked once every file is on the disk, and so known from those cut short.

The mark of a checkpoint (K2D, stage 3) is a record of its files and their sizes, written last; without it, or with
another size, a crash came between.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k2d_hf.files.storage import NO_ROOM, flush_folder, no_room, write_atomic

logger = logging.getLogger(__name__)

RECORD = "whole_checkpoint.json"
NAME = re.compile(r"checkpoint-(\d+)")
# Messages of torch, safetensors and numpy, without an error number, of a file that could not be written
UNWRITTEN = (
    "no space left",
    "os error 28",
    "file too large",
    "os error 27",
    "quota exceeded",
    "os error 122",
    "inline_container",
    "pytorchstreamwriter",
    "requested and",
)


def mark_complete(folder: Path) -> None:
    """Flush the files of a checkpoint to the disk, then write their names and sizes into it, completely or not at all.

    Raises:
        K2DError: if the disk is full.
        OSError: if a file cannot be flushed.
    """
    files = _files(folder)
    for name in files:
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    for parent in {(folder / name).parent for name in files} | {folder, folder.parent}:
        flush_folder(parent)
    write_atomic(folder / RECORD, json.dumps(files, indent=1).encode())


def what_is_missing(folder: Path) -> str | None:
    """What a checkpoint lacks, in words; None if it is complete."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no {RECORD}, which is written last"
    if not isinstance(recorded, dict):
        return f"{RECORD} cannot be read"
    found = _files(folder)
    for name, size in recorded.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != size:
            return f"{name} has {found[name]} bytes of {size}"
    return None


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """The complete checkpoints of a training, the last first; a warning names those after the last that are not."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if NAME.fullmatch(path.name) and path.is_dir()]
    complete: list[Path] = []
    for folder in sorted(folders, key=step_of, reverse=True):
        reason = what_is_missing(folder)
        if reason is None:
            complete.append(folder)
        elif not complete:
            logger.warning("%s: passed over, as a crash cut it short (%s)", folder, reason)
    return complete


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


@contextmanager
def room_for(target: Path, needed: int, *, partial: Path | None = None) -> Iterator[None]:
    """Raise in one line that the disk is full, whatever torch, safetensors and numpy make of that.

    Args:
        target: what is written.
        needed: bytes that it takes, about.
        partial: folder that goes away if it could not be written, so that the next try has its room.

    Raises:
        K2DError: in the place of their errors.
    """
    try:
        yield
    except Exception as error:
        code, message = getattr(error, "errno", None), str(error).lower()
        lacks_room = any(part in message for part in UNWRITTEN) if code is None else code in NO_ROOM
        if not lacks_room:
            raise
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        raise no_room(target, needed, "cannot be written") from error


def _files(folder: Path) -> dict[str, int]:
    """Names below a checkpoint, and sizes in bytes, without the record."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
