"""The engines that opened a student, and when: from the record of `make test-compat`, for cards and README."""

from __future__ import annotations

import json
from importlib import resources

RECORD = "opened_with.json"


def opened_with() -> str:
    """The engines and versions in which a student of this package wrote the text that it writes in transformers 5."""
    record = json.loads((resources.files("k2d_hf.publishing") / RECORD).read_text(encoding="utf-8"))
    versions: list[dict[str, str]] = [row["versions"] for row in record["opened"]]
    own = [one["transformers"] for one in versions if one.keys() == {"transformers"}]
    own.sort(key=lambda version: [int(part) for part in version.split(".")])
    parts = [f"transformers {' and '.join(filter(None, (', '.join(own[:-1]), own[-1])))}"]
    for one in versions:
        if "faster-whisper" in one:
            converter = f"`ct2-transformers-converter` of CTranslate2 {one['ctranslate2']}"
            parts.append(f"faster-whisper {one['faster-whisper']} (converted by {converter})")
        if "pywhispercpp" in one:
            parts.append(f"whisper.cpp (pywhispercpp {one['pywhispercpp']})")
    return f"{', '.join(parts[:-1])} and {parts[-1]}, on {record['date']}"
