"""Tokenizers and processors of checkpoints on this disk, read once a process for each content of their files.

Reading a tokenizer of 50,000 tokens takes a third of a second, and every stage of a run needs the same one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("normalizer.json", "vocab.json", "merges.txt"),
)
FEATURES = "preprocessor_config.json"
# transformers 5 puts the feature extractor in here, over which 4.49 fails to build a processor; 5 reads FEATURES too.
NESTED = "processor_config.json"


def load_tokenizer(folder: str | Path) -> Any:
    """The Whisper tokenizer of a local checkpoint, shared with others of the same files: nobody may change it."""
    return _load(_Place(str(folder), _digest(folder)))


def load_processor(folder: str | Path) -> Any:
    """The Whisper processor of a local checkpoint, shared likewise."""
    return _load(_Place(str(folder), _digest(folder)), processor=True)


def _digest(folder: str | Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in (*TOKENIZER, FEATURES, NESTED):
        path = Path(folder) / name
        digest.update(name.encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Place:
    """A folder, equal to others of the same content."""

    folder: str = field(compare=False)
    digest: str


@lru_cache(maxsize=8)
def _load(place: _Place, *, processor: bool = False) -> Any:
    from transformers import WhisperProcessor, WhisperTokenizer

    folder = place.folder
    return WhisperProcessor.from_pretrained(folder) if processor else WhisperTokenizer.from_pretrained(folder)
