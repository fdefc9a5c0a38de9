"""Skipping and resuming work: keys of inputs and settings, and a place for what is unfinished.

Used by every stage of the method, by `k2d run` and by the other commands alike.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from k2d_hf.files.content_keys import content_key
from k2d_hf.files.storage import file_key, write_atomic


def key_of(*parts: Any) -> str:
    """A short hash of anything that JSON can write; other values count by their text."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def files_key(paths: Iterable[str]) -> str:
    """Key of recordings by path and content: one that changes, comes or goes makes another key."""
    return key_of(sorted(content_key(path) for path in set(paths)))


def folder_key(folder: Path) -> str:
    """Key of a folder that a stage wrote, by path, size and age of the files in it."""
    return key_of(sorted(file_key(str(path)) for path in folder.rglob("*") if path.is_file()))


def unfinished(folder: Path, stage: str, key: str) -> Path:
    """The folder of what a stage has done so far; what it left for other inputs or settings is removed."""
    path = folder / f"{stage}-{key}"
    discard(folder, stage, but=path)
    return path


def discard(folder: Path, stage: str, *, but: Path | None = None) -> None:
    """Remove what `stage` left in `folder`, whether file or folder."""
    for path in set(folder.glob(f"{stage}-*")) - {but}:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # another process of the same training may be at it
        else:
            path.unlink(missing_ok=True)


class StageRecord:
    """Which stages of a run are done, for which inputs and settings, with their lines of result.

    They are kept in a JSON file; one that cannot be read counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            entries = json.loads(path.read_text(encoding="utf-8")).items()
        except (OSError, ValueError, AttributeError):
            entries = ()
        complete = {"key", "line", "run"}
        self._entries = {name: one for name, one in entries if isinstance(one, dict) and complete <= one.keys()}

    def line_of(self, stage: str, key: str) -> str | None:
        """The line of result of a stage that is done for `key`, else None."""
        entry = self._entries.get(stage, {})
        return entry["line"] if entry.get("key") == key else None

    def run_of(self, stage: str) -> str | None:
        """Unique for an execution of a stage: a stage that reads its results depends on it."""
        return self._entries[stage]["run"] if stage in self._entries else None

    def forget(self, stages: Iterable[str]) -> None:
        """Have these stages done again."""
        for stage in stages:
            self.suppose_again(stage)
        self._write()

    def suppose_again(self, stage: str) -> None:
        """Treat a stage as to be done again, without a record: stages that read its results follow."""
        self._entries.pop(stage, None)

    def remember(self, stage: str, key: str, line: str, seconds: float | None = None) -> None:
        """Note a stage that is done, and how long it took."""
        finished = time.strftime("%Y-%m-%d %H:%M:%S")
        entry: dict[str, Any] = {"key": key, "line": line, "run": uuid.uuid4().hex[:16], "finished": finished}
        self._entries[stage] = entry if seconds is None else {**entry, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        write_atomic(self.path, (json.dumps(self._entries, ensure_ascii=False, indent=2) + "\n").encode())
