"""Soft targets that are there from an earlier verdict on the same chunks: for another metric, no model runs again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_audio import chunk_key
from k2d_hf.data.chunk_schema import rows_of
from k2d_hf.distillation.batches.target_columns import DESCRIBED, DTYPES, is_target, without_targets
from k2d_hf.files.content_keys import content_key
from k2d_hf.validation.auxiliary import validation_features

if TYPE_CHECKING:
    from datasets import Dataset

VERDICT = frozenset(validation_features())  # columns


class ReusableTargets:
    """The targets in shards of a folder, by chunk; read when the first is asked for.

    A shard whose recordings have changed since is passed over, and so is one that cannot be read.

    Args:
        folder: of shards written with the same models and settings.
        passed_over: shards that are taken as they are.
    """

    def __init__(self, folder: Path, *, passed_over: Sequence[Path]) -> None:
        self.folder = folder
        self.passed_over = passed_over
        self._places: dict[str, tuple[Dataset, int]] | None = None

    def of(self, chunk: Mapping[str, Any]) -> dict[str, Any] | None:
        """The target columns of a chunk, None where there are none."""
        if self._places is None:
            self._places = self._read()
        found = self._places.get(_identity(chunk)) if self._places else None
        if found is None:
            return None
        rows, index = found
        targets = {name: value for name, value in rows[index].items() if is_target(name)}
        numbers = {
            name: np.asarray(targets[name], DTYPES[name.partition("_")[2]]) for name in targets.keys() - DESCRIBED
        }
        return {**targets, **numbers}

    def _read(self) -> dict[str, tuple[Dataset, int]]:
        import pyarrow
        from datasets import Dataset

        places: dict[str, tuple[Dataset, int]] = {}
        for path in sorted(self.folder.glob("*.arrow")):
            if path in self.passed_over:
                continue
            try:
                rows = Dataset.from_buffer(pyarrow.memory_map(str(path)).read_buffer())
                plain = without_targets(rows)[:]
                if shard_key(plain) != path.stem:  # of recordings as they were then
                    continue
            except (OSError, ValueError, KeyError):
                continue
            has = [bool(forms) for forms in rows["target_forms"]]
            numbers = [name for name in rows.column_names if is_target(name) and name not in DESCRIBED]
            rows = rows.with_format("numpy", columns=numbers, output_all_columns=True)
            for index, chunk in enumerate(rows_of(plain)):
                if has[index]:
                    places[_identity(chunk)] = rows, index
        return places


def shard_key(rows: Mapping[str, list[Any]]) -> str:
    """Short hash of some chunks and of their sound."""
    file_key = cache(content_key)
    digest = hashlib.blake2b(digest_size=16)
    for chunk in rows_of(rows):
        described = {name: value for name, value in chunk.items() if name != "audio"}
        digest.update(json.dumps(described, sort_keys=True, default=str).encode(errors="surrogatepass"))
        digest.update(chunk_key(chunk, file_key=file_key).encode(errors="surrogatepass"))
    return digest.hexdigest()


def _identity(chunk: Mapping[str, Any]) -> str:
    """Short hash of all that decides a chunk's targets: validation's verdict is left out."""
    deciding = {name: value for name, value in chunk.items() if name not in VERDICT and name != "audio"}
    sound = chunk_key(chunk, file_key=str) if chunk.get("audio") is not None else None  # a shard knows its recordings
    text = json.dumps([deciding, sound], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
