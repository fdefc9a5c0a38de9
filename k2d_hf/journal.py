"""A journal of finished work, a line a key: what lets a stage that was interrupted go on where it stopped.

And the `datasets` map step that uses it in place of datasets' own cache, which knows whole data sets only. Both leave
what they hold on disk, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.cache import scratch_folder
from k2d_hf.errors import K2DError

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

SETTINGS = "settings"  # key of the first line
_HEAD = (
    b'{"key": "settings", "value": '  # how every journal begins, so that no other file is ever taken for one and cut
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Journal:
    """Results by key, appended to a JSON Lines file as they come, and read from it when they are asked for.

    Memory holds where each line begins, some 200 bytes a key. A last line that was torn by a crash is forgotten, and
    its work done again. Without a path nothing is written, and the results stay in memory.

    Args:
        path: the file; made, with its folder, when something is written.
        settings: what the results depend on; kept in the file's first line.

    Raises:
        K2DError: if the file is no journal, or one of work done with other settings.
    """

    def __init__(self, path: str | Path | None = None, *, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.settings: dict[str, Any] = json.loads(json.dumps(settings or {}))
        self._lines: dict[bytes, int] = {}  # digest of the key -> where its line begins in the file
        self._values: dict[str, Any] = {}  # of a journal without a file
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        intact = 0
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
            if head != _HEAD[: len(head)]:
                raise K2DError(f"{path}: this is no journal; give the name of a file that is not there yet")
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if intact == 0:
                    self._check(path, json.loads(line)["value"])
                elif (entry := _entry(line)) is not None:
                    self._lines[_digest(entry[0])] = intact
                else:
                    logger.warning("%s: passed over a damaged line; its work is done again", path)
                intact += len(line)
        if intact != path.stat().st_size:
            os.truncate(path, intact)

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        if settings == self.settings:
            return
        names = sorted(name for name in {**settings, **self.settings} if settings.get(name) != self.settings.get(name))
        changed = ", ".join(f"{name} {settings.get(name)!r}, now {self.settings.get(name)!r}" for name in names)
        raise K2DError(f"{path} holds work that was done with other settings ({changed}): delete it to start anew")

    def __contains__(self, key: str) -> bool:
        return key in self._values if self.path is None else _digest(key) in self._lines

    def __getitem__(self, key: str) -> Any:
        """The value of a key, as JSON gives it back.

        Raises:
            K2DError: if the file was changed by someone else meanwhile.
        """
        if self.path is None:
            return self._values[key]
        begin = self._lines[_digest(key)]
        try:
            with self.path.open("rb") as file:
                file.seek(begin)
                entry = _entry(file.readline())
        except OSError:
            entry = None
        if entry is None or entry[0] != key:
            raise K2DError(f"{self.path}: changed or deleted while it was in use; run again")
        return entry[1]

    def __len__(self) -> int:
        return len(self._values if self.path is None else self._lines)

    def write(self, key: str, value: Any) -> None:
        """Remember `value`, which JSON must be able to hold, and put it on disk at once.

        Raises:
            K2DError: if the disk is full.
        """
        if self.path is None:
            self._values[key] = value
            return
        with _room_in(self.path, "free some and run again: what is done stays done"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                if file.tell() == 0:
                    file.write(_line(SETTINGS, self.settings))
                begin = file.tell()
                file.write(_line(key, value))
        self._lines[_digest(key)] = begin


def _line(key: str, value: Any) -> bytes:
    return (json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n").encode()


def _entry(line: bytes) -> tuple[str, Any] | None:
    """Key and value of a line; None if it is damaged."""
    try:
        entry = json.loads(line)
        return str(entry["key"]), entry["value"]
    except (ValueError, KeyError, TypeError):
        return None


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


@contextmanager
def _room_in(path: Path, advice: str) -> Iterator[None]:
    """Say in one line that there is no room on a disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise K2DError(f"{path}: no room on its disk ({os.strerror(error.errno)}); {advice}") from error


def file_key(path: str) -> str:
    """Key of a file's content: its path, size and time of change; a file that changes is new work."""
    try:
        stat = os.stat(path)
    except OSError:
        return path
    return f"{path} {stat.st_size} {stat.st_mtime_ns}"


def map_rows(
    rows: Dataset,
    step: Callable[[dict[str, list[Any]]], dict[str, list[Any]]],
    *,
    features: Features,
    batch_size: int,
    desc: str,
    remove_columns: list[str] | None = None,
) -> Dataset:
    """`rows.map(step)` in batches, without datasets' cache: to hash the step would be to hash the model's weights.

    The result is mapped into memory from a file below the package's cache, not held in it. The file has no name any
    more once it is written, so that its room is free again when the last data set that reads it is gone, however the
    process ends; `save_to_disk` keeps what is in it. The folder that the rows come from stays as it is.

    Raises:
        K2DError: if the cache cannot be written, or its disk is full.
    """
    import pyarrow
    from datasets import Dataset
    from datasets.fingerprint import generate_random_fingerprint

    with (
        scratch_folder() as folder,
        _room_in(folder.parent, "free some, or set K2D_CACHE to a folder on a larger disk"),
    ):
        path = str(folder / "rows.arrow")
        mapped = rows.map(
            step,
            batched=True,
            batch_size=batch_size,
            features=features,
            remove_columns=remove_columns,
            cache_file_name=path,
            load_from_cache_file=False,
            new_fingerprint=generate_random_fingerprint(),
            desc=desc,
        )
        # of a buffer and not of a file, as datasets would come back to the file's name
        return Dataset.from_buffer(pyarrow.memory_map(path).read_buffer(), info=mapped.info, split=mapped.split)
