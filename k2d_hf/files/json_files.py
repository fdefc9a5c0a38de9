"""JSON files: one value, or a row a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import remove_file, write_atomic
from k2d_hf.formatting import error_message, quote


def read_json(path: Path, *, fix: str = "download or copy it again") -> dict[str, Any]:
    """The object in a file; K2DError, with `fix` at its end, if it cannot be read, or there is something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise K2DError(f"{path}: not readable as JSON ({error_message(error)}); {fix}") from None
    if not isinstance(value, dict):
        raise K2DError(f"{path}: {quote(value)} is no mapping of settings; {fix}")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON that people can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_lines(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a row a line; without rows there is no file."""
    if not rows:
        remove_file(path)
        return
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(path, text.encode(errors="backslashreplace"))  # of a name that is no UTF-8, what JSON has for it
