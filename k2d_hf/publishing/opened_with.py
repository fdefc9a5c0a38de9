"""What a student was opened with, and when: from the record that `make test-compat` leaves, for cards and README."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

RECORD = "opened_with.json"


def opened_with() -> str:
    """The engines and versions in which a student of this package wrote the text that it writes in transformers 5."""
    record = json.loads((resources.files("k2d_hf.publishing") / RECORD).read_text(encoding="utf-8"))
    versions: list[dict[str, str]] = [row["versions"] for row in record["opened"]]
    own = [one["transformers"] for one in versions if one.keys() == {"transformers"}]
    parts = [f"transformers {_listed(sorted(own, key=_order))}"]
    for one in versions:
        if "faster-whisper" in one:
            converter = f"`ct2-transformers-converter` of CTranslate2 {one['ctranslate2']}"
            parts.append(f"faster-whisper {one['faster-whisper']} (converted by {converter})")
        if "pywhispercpp" in one:
            parts.append(f"whisper.cpp (pywhispercpp {one['pywhispercpp']})")
    return f"{', '.join(parts[:-1])} and {parts[-1]}, on {record['date']}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _order(version: str) -> list[Any]:
    return [int(part) for part in version.split(".")]
