"""A recording's file under libsndfile: on disk, in memory or remote, patched or not.

Below the audio reader (K2D, stage 1), for which all failures become a few kinds of error.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import soundfile

from k2d_hf.files.background import check_cancelled

BLOCK = 1 << 20  # bytes


class Sound(soundfile.SoundFile):
    """A file that is read forwards: soundfile seeks after every read, which Vorbis and MP3 do not survive exactly.

    Opening, `read_block` and `seek_to` raise OSError where disk or network are at fault, and soundfile.SoundFileError
    where the recording is. The file stays the caller's to close.
    """

    tracks = 1  # libsndfile knows no more in a file
    _file = None  # for soundfile's `__del__`, should opening fail

    def __init__(self, file: BinaryIO | PatchedFile) -> None:
        # A file on disk is left to libsndfile: what is raised in a callback, such as an interrupt, could be lost there.
        descriptor = file.fileno() if isinstance(file, io.FileIO) and os.name != "nt" else None
        self._source = file
        self._observed = ObservedFile(file) if descriptor is None else None
        file.seek(0)
        with self._own_errors():
            super().__init__(self._observed or descriptor, closefd=False)

    def seekable(self) -> bool:
        """Not to soundfile."""
        return False

    def read_block(self, frames: int) -> np.ndarray:
        """Up to so many frames from the current one, [frames, channels] float32."""
        with self._own_errors():
            return self.read(frames, dtype="float32", always_2d=True)

    def seek_to(self, frame: int) -> None:
        """Make `frame` the current one."""
        with self._own_errors():
            self.seek(frame)

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except soundfile.SoundFileError:
            if self._observed is None:
                check_readable(self._source)
            raise
        finally:
            if self._observed is not None and self._observed.failure is not None:
                raise self._observed.failure


def check_readable(file: BinaryIO | PatchedFile) -> None:
    """Read a file to its end, as libsndfile takes a read error for a short file; OSError if disk or network fail."""
    file.seek(0)
    while file.read(BLOCK):
        check_cancelled()


@contextmanager
def kept_position(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, whose position is restored in the end, as libsndfile relies on it."""
    position = file.tell()
    yield file
    file.seek(position)


def size_of(file: BinaryIO | PatchedFile) -> int:
    """Bytes in a file."""
    return file.seek(0, os.SEEK_END)


class PatchedFile:
    """A file with `content` in the place of its bytes from `begin` up to `end`; copies none of it."""

    def __init__(self, file: BinaryIO, begin: int, end: int, content: bytes) -> None:
        self._file, self._begin, self._content = file, begin, content
        self._longer = len(content) - (end - begin)  # bytes, than the file itself
        self._position = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end only."""
        content = b""
        while len(content) < count and (part := self._read_part(count - len(content))):
            content += part
            self._position += len(part)
        return content

    def _read_part(self, count: int) -> bytes:
        behind = self._position - self._begin
        if 0 <= behind < len(self._content):
            return self._content[behind : behind + count]
        self._file.seek(self._position if behind < 0 else self._position - self._longer)
        return self._file.read(min(count, -behind) if behind < 0 else count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += size_of(self._file) + self._longer
        self._position = offset
        return offset

    def tell(self) -> int:
        """As of any file."""
        return self._position


class ObservedFile:
    """A file for libsndfile's callbacks, which must not raise: the first exception is kept, and the file ends there."""

    def __init__(self, file: BinaryIO | PatchedFile) -> None:
        self.file = file
        self.failure: BaseException | None = None

    def read(self, count: int) -> bytes:
        """Up to `count` bytes."""
        return self._observed(self.file.read, count) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        return self._observed(self.file.seek, offset, whence) or 0

    def tell(self) -> int:
        """As of any file."""
        return self._observed(self.file.tell) or 0

    def _observed(self, call: Callable[..., Any], *arguments: int) -> Any:
        """What the call returns; None where it fails, or one before it has failed."""
        if self.failure is None:
            try:
                return call(*arguments)
            except BaseException as error:
                self.failure = error
        return None
