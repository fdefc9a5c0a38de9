"""Tokenizers and processors of checkpoints on this disk, read once a process for each content of their files.

Reading a tokenizer of 50,000 tokens takes a third of a second, and a run asks for the same one in every stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "normalizer.json"),
    *("added_tokens.json", "special_tokens_map.json", "preprocessor_config.json", "processor_config.json"),
)


def load_tokenizer(folder: str | Path) -> Any:
    """The Whisper tokenizer of a local checkpoint; others have the same one, so nobody may change it."""
    return _shared(_read_tokenizer, folder)


def load_processor(folder: str | Path) -> Any:
    """The Whisper processor of a local checkpoint; others have the same one, so nobody may change it."""
    return _shared(_read_processor, folder)


def _read_tokenizer(folder: str) -> Any:
    from transformers import WhisperTokenizer

    return WhisperTokenizer.from_pretrained(folder)


def _read_processor(folder: str) -> Any:
    from transformers import WhisperProcessor

    return WhisperProcessor.from_pretrained(folder)


def _shared(read: Callable[[str], Any], folder: str | Path) -> Any:
    digest = hashlib.blake2b(digest_size=16)
    for name in _FILES:
        path = Path(folder) / name
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return _kept(read, _Place(str(folder), digest.hexdigest()))


class _Place:
    """A folder that counts by what is in it."""

    def __init__(self, folder: str, digest: str) -> None:
        self.folder = folder
        self.digest = digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


@lru_cache(maxsize=8)
def _kept(read: Callable[[str], Any], place: _Place) -> Any:
    return read(place.folder)
