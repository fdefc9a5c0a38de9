"""A recording's file under libsndfile: on disk, in memory or far away, with other bytes in place of some.

It makes one kind of error of all that can go wrong below the audio reader (K2D, stage 1), which is `audio.py`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import soundfile

from k2d_hf.files.background import stop_if_asked

BLOCK = 1 << 20  # bytes


class Sound(soundfile.SoundFile):
    """A file that is read forwards: soundfile seeks after every read, which Vorbis and MP3 do not survive exactly.

    Opening, `read_block` and `go_to` raise OSError where disk or network are at fault, and soundfile.SoundFileError
    where the recording is. The file stays the caller's to close.
    """

    _file = None  # for soundfile's `__del__`, should it come to nothing

    def __init__(self, file: BinaryIO | Spliced) -> None:
        # A file on disk is left to libsndfile: what is raised in a callback, such as an interrupt, could be lost there.
        on_disk = isinstance(file, io.FileIO) and os.name != "nt"
        self._under = file
        self._watched = None if on_disk else _Watched(file)
        file.seek(0)
        with self._blaming():
            super().__init__(file.fileno() if isinstance(file, io.FileIO) and on_disk else self._watched, closefd=False)

    def seekable(self) -> bool:
        """Not to soundfile."""
        return False

    def read_block(self, frames: int) -> np.ndarray:
        """Up to so many frames from where it stands, [frames, channels] float32."""
        with self._blaming():
            return self.read(frames, dtype="float32", always_2d=True)

    def go_to(self, frame: int) -> None:
        """Go to a frame."""
        with self._blaming():
            self.seek(frame)

    @contextmanager
    def _blaming(self) -> Iterator[None]:
        try:
            yield
        except soundfile.SoundFileError:
            if self._watched is None:
                check_readable(self._under)
            raise
        finally:
            if self._watched is not None and self._watched.failure is not None:
                raise self._watched.failure


def check_readable(file: BinaryIO | Spliced) -> None:
    """Read a file to its end, for one that breaks off while it is read looks like a short one to libsndfile.

    Raises:
        OSError: if the disk or network, and not the recording, is what is at fault.
    """
    file.seek(0)
    while file.read(BLOCK):
        stop_if_asked()


@contextmanager
def kept_place(file: BinaryIO) -> Iterator[BinaryIO]:
    """The file, to be read from anywhere; then it stands where it stood, as libsndfile counts on it."""
    place = file.tell()
    yield file
    file.seek(place)


def size_of(file: BinaryIO | Spliced) -> int:
    """Bytes in a file."""
    return file.seek(0, os.SEEK_END)


class Spliced:
    """A file with `content` in the place of its bytes from `begin` up to `end`; copies none of it."""

    def __init__(self, file: BinaryIO, begin: int, end: int, content: bytes) -> None:
        self._file, self._begin, self._content = file, begin, content
        self._longer = len(content) - (end - begin)  # bytes, than the file itself
        self._position = 0

    def read(self, count: int) -> bytes:
        """Up to `count` bytes, fewer at the end only."""
        parts = []
        while count > 0 and (part := self._read_part(count)):
            parts.append(part)
            self._position += len(part)
            count -= len(part)
        return b"".join(parts)

    def _read_part(self, count: int) -> bytes:
        behind = self._position - self._begin
        if 0 <= behind < len(self._content):
            return self._content[behind : behind + count]
        self._file.seek(self._position if behind < 0 else self._position - self._longer)
        return self._file.read(min(count, -behind) if behind < 0 else count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += size_of(self._file) + self._longer
        self._position = offset
        return offset

    def tell(self) -> int:
        """The place."""
        return self._position


class _Watched:
    """What libsndfile calls back for a file that it cannot read itself. It may not be given an exception, so the first
    is kept for whoever called it, and the file ends there.
    """

    def __init__(self, file: BinaryIO | Spliced) -> None:
        self.file = file
        self.failure: BaseException | None = None

    def read(self, count: int) -> bytes:
        if self.failure is None:
            try:
                return self.file.read(count)
            except BaseException as error:
                self.failure = error
        return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self.failure is None:
            try:
                return self.file.seek(offset, whence)
            except BaseException as error:
                self.failure = error
        return 0

    def tell(self) -> int:
        try:
            return self.file.tell()
        except BaseException as error:
            self.failure = self.failure or error
        return 0
