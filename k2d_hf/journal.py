"""A journal of finished work, a line a key: what lets a stage that was interrupted go on where it stopped.

And the `datasets` map step that uses it in place of datasets' own cache, which knows whole data sets only.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

SETTINGS = "settings"  # key of the first line
_HEAD = (
    b'{"key": "settings", "value": '  # how every journal begins, so that no other file is ever taken for one and cut
)


class Journal:
    """Results by key, appended to a JSON Lines file as they come.

    A last line that was torn by a crash is forgotten, and its work done again. Without a path nothing is written.

    Args:
        path: the file; made, with its folder, when something is written.
        settings: what the results depend on; kept in the file's first line.

    Raises:
        K2DError: if the file is no journal, or one of work done with other settings.
    """

    def __init__(self, path: str | Path | None = None, *, settings: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.settings: dict[str, Any] = json.loads(json.dumps(settings or {}))
        self._entries: dict[str, Any] = {}
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
                else:
                    self._take(line)
                intact += len(line)
        if intact != path.stat().st_size:
            os.truncate(path, intact)

    def _check(self, path: Path, settings: dict[str, Any]) -> None:
        if settings == self.settings:
            return
        names = sorted(name for name in {**settings, **self.settings} if settings.get(name) != self.settings.get(name))
        changed = ", ".join(f"{name} {settings.get(name)!r}, now {self.settings.get(name)!r}" for name in names)
        raise K2DError(f"{path} holds work that was done with other settings ({changed}): delete it to start anew")

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            self._entries[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: passed over a damaged line; its work is done again", self.path)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)

    def write(self, key: str, value: Any) -> None:
        """Remember `value`, which JSON must be able to hold, and put it on disk at once."""
        self._entries[key] = value
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            if file.tell() == 0:
                file.write(_line(SETTINGS, self.settings))
            file.write(_line(key, value))


def _line(key: str, value: Any) -> str:
    return json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n"


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

    The result is held in memory: what is mapped is text, and the folder that the rows come from stays as it is.
    """
    from datasets.fingerprint import generate_random_fingerprint

    return rows.map(
        step,
        batched=True,
        batch_size=batch_size,
        features=features,
        remove_columns=remove_columns,
        keep_in_memory=True,
        load_from_cache_file=False,
        new_fingerprint=generate_random_fingerprint(),
        desc=desc,
    )
