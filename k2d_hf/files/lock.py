"""One process at a time in a folder of results, and an error for the second."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from k2d_hf.errors import K2DError
from k2d_hf.files.folders import clear_left_behind


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process, by a file beside it: the folder itself may come and go.

    What a killed process was writing in it, or beside it under its name, is removed.

    Raises:
        K2DError: naming the process that holds it, or if the folder around it cannot be written.
    """
    folder = directory.absolute()  # of `.`, too, there is a name and a folder around it
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    holder = folder.with_name(f".{folder.name}.lock.json")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise K2DError(f"{directory} is in use{_by(holder)}; wait for it or choose another --output") from None
    except OSError as error:
        raise K2DError(f"{directory}: cannot be written ({error.strerror}); choose another --output") from None
    try:
        about = {"process": os.getpid(), "started": time.strftime("%H:%M"), "host": socket.gethostname()}
        holder.write_text(json.dumps(about), encoding="utf-8")
        clear_left_behind(folder.parent, f"{folder.name}.")
        for inside in (folder, folder / "resume", *(folder / "resume").glob("*-*/")):
            clear_left_behind(inside)
        for inside in folder.parent.glob(f"{folder.name}.resume/*-*/"):
            clear_left_behind(inside)
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _by(holder: Path) -> str:
    try:
        about = json.loads(holder.read_text(encoding="utf-8"))
        return f" by process {about['process']} (started {about['started']} on host {about['host']})"
    except (OSError, ValueError, KeyError):
        return " by another process"
