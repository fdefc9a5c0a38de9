"""Local and remote files: on a disk, or behind an address that fsspec knows, such as `s3://bucket/lectures`.

Writes are atomic and survive a power cut: written aside, flushed to the disk, renamed. An object store's are by itself.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from k2d_hf.errors import K2DError
from k2d_hf.formatting import error_message

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address such as `s3://bucket/file` or `memory://file`, and not one of a local disk."""
    return "://" in os.fspath(path)


def without_file_scheme(path: str | os.PathLike[str]) -> str:
    """The path of a file on this machine that is given as an address, `file:///a/b`; any other path stays."""
    path = os.fspath(path)
    kind, separator, inside = path.partition("://")
    return inside if separator and kind in ("file", "local") and inside.startswith("/") and "::" not in inside else path


def filesystem(path: str | os.PathLike[str]) -> tuple[Any, str]:
    """The fsspec file system of a path, and the path in it; K2DError if its kind is unknown, or no package has it."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(os.fspath(path))
    except (ImportError, ValueError) as error:
        raise K2DError(
            f"{path}: cannot be reached ({error_message(error)}); give a path, or an address that fsspec knows"
        ) from None


def open_to_read(path: str | os.PathLike[str], *, fetch: int | None = None) -> BinaryIO:
    """A seekable file to read bytes from; of a remote one only what is read is fetched, `fetch` bytes at once.

    Opening, reading and seeking raise OSError, whatever the remote file system raises.
    """
    if not is_address(path):
        return open(path, "rb")  # noqa: SIM115, the caller's to close
    system, inside = filesystem(path)
    with as_os_errors(path):
        return cast(BinaryIO, io.BufferedReader(_RemoteFile(path, system.open(inside, "rb", block_size=fetch))))


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder at `path`."""
    return _test("exists", path)


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file at `path`."""
    return _test("isfile", path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder at `path`; of a store without folders, whether there are files below it."""
    return _test("isdir", path)


def _test(name: str, path: str | os.PathLike[str]) -> bool:
    if not is_address(path):
        return getattr(os.path, name)(path)
    system, inside = filesystem(path)
    with as_os_errors(path):
        return bool(getattr(system, name)(inside))


def files_below(folder: str | os.PathLike[str], ending: str = "") -> list[str]:
    """Files below a folder whose names end so, sorted; none where the folder is not there."""
    if not is_address(folder):
        return sorted(str(path) for path in Path(folder).rglob(f"*{ending}") if path.is_file())
    system, inside = filesystem(folder)
    with as_os_errors(folder):
        system.invalidate_cache()
        names = sorted(path[len(inside) :].lstrip("/") for path in system.find(inside) if path.endswith(ending))
    return [f"{os.fspath(folder).rstrip('/')}/{name}" for name in names]


def file_key(path: str | os.PathLike[str]) -> str:
    """Key of a file's content: its path, size and time of change, or a store's field for that.

    Of a file that does not exist or cannot be accessed it is the path alone.
    """
    path = os.fspath(path)
    try:
        if not is_address(path):
            stat = os.stat(path)
            return f"{path} {stat.st_size} {stat.st_mtime_ns}"
        system, inside = filesystem(path)
        about = system.info(inside)
    except (OSError, ValueError):
        return path
    stamps = ("ETag", "etag", "mtime", "LastModified", "Last-Modified", "created")
    changed = next((about[name] for name in stamps if about.get(name)), "")
    return f"{path} {about.get('size', '')} {changed}".rstrip()


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file atomically, with the folders around it; K2DError, with what is missing, if its disk is full."""
    if is_address(path):
        system, inside = filesystem(path)
        with as_os_errors(path):
            system.makedirs(os.path.dirname(inside), exist_ok=True)
            system.pipe_file(inside, content)
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with enough_room(target, len(content)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
            flush_folder(target.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def flush_folder(folder: Path) -> None:
    """Put the names of a folder's files on the disk, where the system has that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        return
    with suppress(OSError):  # some network file systems cannot
        os.fsync(descriptor)
    os.close(descriptor)


def remove_file(path: str | os.PathLike[str]) -> None:
    """Remove a file, if it is there."""
    if not is_address(path):
        Path(path).unlink(missing_ok=True)
        return
    system, inside = filesystem(path)
    with as_os_errors(path):
        if system.exists(inside):
            system.rm_file(inside)


def remove_folder(folder: str | os.PathLike[str]) -> None:
    """Remove a folder with what is in it, if it is there."""
    if not is_address(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    system, inside = filesystem(folder)
    with as_os_errors(folder):
        if system.exists(inside):
            system.rm(inside, recursive=True)


@contextmanager
def enough_room(path: str | os.PathLike[str], needed: int | None = None, *, advice: str = "") -> Iterator[None]:
    """A full disk as a K2DError of one line: what was to be written, where, and what is missing of the bytes needed.

    The advice is by default to free some and run again.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise no_room(path, needed, os.strerror(error.errno), advice=advice) from error


def no_room(path: str | os.PathLike[str], needed: int | None, reason: str, *, advice: str = "") -> K2DError:
    """The error for a full disk."""
    folder = Path(path).absolute()  # which may not be there yet
    free = shutil.disk_usage(next(around for around in (folder, *folder.parents) if around.exists())).free
    text = f"{size(free)} free"
    if needed is not None:
        text = f"it takes {size(needed)}, {text}" + (f", {size(needed - free)} missing" if needed > free else "")
    advice = advice or "free some and run again: what is done stays done"
    return K2DError(f"{path}: no room on its disk ({reason}: {text}); {advice}")


def size(count: float) -> str:
    """Bytes as people read them."""
    unit, *larger = ("bytes", "kB", "MB", "GB", "TB")
    while count >= 1000 and larger:
        count /= 1000
        unit = larger.pop(0)
    return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"


class _RemoteFile(io.RawIOBase):
    """A file of a remote file system, whose errors are OSErrors."""

    def __init__(self, path: str | os.PathLike[str], file: Any) -> None:
        self._path, self._file = path, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with as_os_errors(self._path):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with as_os_errors(self._path):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        with as_os_errors(self._path):
            return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            super().close()
            with as_os_errors(self._path):
                self._file.close()


@contextmanager
def as_os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors of the many libraries behind fsspec as OSError, so that callers handle one kind."""
    try:
        yield
    except (OSError, K2DError):
        raise
    except Exception as error:
        raise OSError(f"{path}: {type(error).__name__}: {error_message(error)}") from error
