"""A journal of finished work, a line a key: what lets a stage that was interrupted go on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Journal:
    """Results by key, appended to a JSON Lines file as they come.

    A last line that was torn by a crash is forgotten, and its work done again. Without a path nothing is written.

    Args:
        path: the file; made, with its folder, when something is written.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self._entries: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        intact = 0
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                    self._entries[entry["key"]] = entry["value"]
                except (ValueError, KeyError, TypeError):
                    break
                intact += len(line)
        if intact != path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(intact)

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
            file.write(json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
