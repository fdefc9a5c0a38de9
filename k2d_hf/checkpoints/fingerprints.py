"""Identities of files and checkpoints by content, so that a stage or a conversion knows what it was made from."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from k2d_hf.cache import cache_root
from k2d_hf.errors import K2DError

_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
)
_FINGERPRINT_LENGTH = 16  # hexadecimal digits: 64 bits are plenty for the checkpoints of one disk


def checkpoint_fingerprint(path: str | Path) -> str:
    """A short, stable identity of a local checkpoint: 16 hexadecimal digits over what decides its output.

    That is its weights (safetensors), configuration, generation configuration, tokenizer and feature extractor.
    Digests of weight files are remembered by size and modification time, so a second call costs nothing.

    Raises:
        K2DError: if the folder holds no safetensors weights.
    """
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise K2DError(f"{folder}: no safetensors weights here; give the folder of a transformers checkpoint")
    small = [folder / name for name in _SMALL_FILES if (folder / name).is_file()]
    digest = hashlib.sha256()
    for file in small:
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for file in weights:
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()[:_FINGERPRINT_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, remembered in the cache for as long as the file's size and modification time stay."""
    path = path.resolve()
    stat = path.stat()
    known = _read_digests()
    entry = known.get(str(path))
    if entry is not None and entry[:2] == [stat.st_size, stat.st_mtime_ns]:
        return entry[2]
    with path.open("rb") as file:
        digest = sha256_of_stream(file)
    # Read again: another process may have added to it while this one was hashing.
    known = {name: entry for name, entry in _read_digests().items() if Path(name).exists()}
    _write_digests({**known, str(path): [stat.st_size, stat.st_mtime_ns, digest]})
    return digest


def sha256_of_stream(*streams: Any, copy_to: Any = None) -> str:
    """SHA-256 over the rest of binary `streams`, one after the other, copied to `copy_to` on the way where given."""
    digest = hashlib.sha256()
    for stream in streams:
        while block := stream.read(1 << 20):
            digest.update(block)
            if copy_to is not None:
                copy_to.write(block)
    return digest.hexdigest()


def _digests_file() -> Path:
    return cache_root() / "sha256.json"


def _read_digests() -> dict[str, list[Any]]:
    try:
        entries = json.loads(_digests_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there yet, or damaged: it is only a memory, and is written anew
        return {}
    valid = entries.items() if isinstance(entries, dict) else ()
    return {name: entry for name, entry in valid if isinstance(entry, list) and len(entry) == 3}


def _write_digests(entries: dict[str, list[Any]]) -> None:
    target = _digests_file()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=target.name, dir=target.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file, indent=1)
        os.replace(name, target)
    except OSError:  # a cache that cannot be written costs a second hash next time, nothing else
        return
