"""Folders written atomically, so that a killed run never leaves half a checkpoint, and the locks of such folders."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import enough_room, files_below

_PARTIAL = ".partial"


def check_free(target: str | Path) -> None:
    """Raise K2DError if `target` exists and is not an empty folder; for a check before the work."""
    if isinstance(target, str) and files_below(target):
        raise K2DError(f"{target}: already there and not empty; choose another address or remove it")
    if isinstance(target, Path) and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise K2DError(f"{target}: already there and not empty; choose another output folder or remove it")


def check_writable(target: str | Path | None, *, file: bool = False) -> None:
    """Raise K2DError if a file or folder `target` could not be written; for a check before the work.

    Nothing is made or changed. None and addresses pass.
    """
    if target is None or isinstance(target, str):
        return
    other = "output file" if file else "output folder"
    if target.exists() and target.is_dir() == file:
        raise K2DError(f"{target}: {'a folder' if file else 'not a folder'}; choose another {other}")
    try:
        if file and target.exists():
            with target.open("ab"):
                return
        above = target.absolute()
        around = next(one for one in ((above, *above.parents) if not file else above.parents) if os.path.lexists(one))
        with tempfile.TemporaryFile(dir=around):
            return
    except OSError as error:
        raise K2DError(f"{target}: cannot be written ({error.strerror}); choose another {other}") from None


def clear_left_behind(folder: Path, name: str = "") -> None:
    """Remove what a killed process was writing in `folder`, for results whose names begin with `name`.

    Only for a process that holds their lock.
    """
    for path in folder.glob(f".{name}*{_PARTIAL}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_folder(target: Path, build: Callable[[Path], object], *, replace: bool = False) -> Path:
    """Let `build` fill a new folder beside `target`, then rename it to `target`, which it may `replace`.

    Raises K2DError if `target` exists and is not empty, unless `replace`, or the folder around it cannot be written.
    """
    if not replace:
        check_free(target)
    # Beside the target, because only within one file system a rename is a single step.
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}"
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise K2DError(f"{target}: cannot be made ({error.strerror}); choose another output folder") from None
    try:
        build(partial)
        _share(partial)
        if target.exists() and replace:
            # a crash between two renames costs the old folder, and one while it is deleted costs nothing
            old = partial.with_name(f"{partial.name[: -len(_PARTIAL)]}.old{_PARTIAL}")
            os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old, ignore_errors=True)
            return target
        if target.exists():
            target.rmdir()  # refuses, should something have come in since the check
        os.replace(partial, target)
    except BaseException:  # Ctrl-C included: nothing partial stays
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def _share(folder: Path) -> None:
    """Give files the mode of any that is written here: safetensors leaves its own to their owner alone."""
    probe = folder / f"{uuid.uuid4().hex}{_PARTIAL}"
    probe.touch()  # by the file system, because a process cannot read its umask without changing it
    usual = probe.stat().st_mode
    probe.unlink()
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode | usual != mode:
            with suppress(OSError):  # a file system without modes is no reason to lose what was made
                path.chmod(mode | usual)


def cached_folder(target: Path, build: Callable[[Path], object]) -> Path:
    """`target`, made by `build` on first use; of several processes at once, one builds and the others wait.

    Raises K2DError if the folder around `target` cannot be written.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock").acquire()
    except OSError as error:
        raise K2DError(f"{target.parent}: cannot be written ({error}); set K2D_CACHE to a folder that can") from None
    with lock:
        if target.is_dir():
            return target
        clear_left_behind(target.parent, f"{target.name}.")
        with enough_room(target, advice="free some, or set K2D_CACHE to a folder on a larger disk"):
            return write_folder(target, build)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` for this process, by a file beside it: the folder itself may come and go.

    What a killed process was writing in it, or beside it under its name, is removed. Raises K2DError with the process
    that holds it, or if the folder around it cannot be written.
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
        beside = folder.parent.glob(f"{folder.name}.resume/*-*/")
        for inside in (folder, folder / "resume", *(folder / "resume").glob("*-*/"), *beside):
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
