"""Folders of Parquet files, local or remote, as data sets or as streams, in the splits of their names."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

from k2d_hf.files.cache import cache_root
from k2d_hf.files.storage import enough_room, file_key, filesystem, is_address, is_file, open_to_read

if TYPE_CHECKING:
    from datasets import DatasetDict, IterableDatasetDict

ENDING = ".parquet"
COPIED_AT_ONCE = 1 << 22  # bytes


def load_parquet(path: str, *, streaming: bool = False) -> DatasetDict | IterableDatasetDict:
    """The Parquet files below a folder or address, or one such file, by split; `train` if the names have none.

    A stream holds no more than a row group. Otherwise remote files are copied to the cache first.

    Raises:
        OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError: as `load_dataset` does.
        K2DError: for an address of a kind that is unknown.
    """
    from datasets import load_dataset
    from datasets.data_files import DataFilesDict, get_data_patterns

    if is_address(path):
        filesystem(path)[0].invalidate_cache()
    if is_file(path):
        found = {"train": [path]}
    else:
        base = path if path.endswith("://") else path.rstrip("/")
        found = DataFilesDict.from_patterns(get_data_patterns(base), base_path=base, allowed_extensions=[ENDING])
    if not any(found.values()):
        raise FileNotFoundError("there are no Parquet files in it")
    here = {split: [file if streaming else _copied(file) for file in files] for split, files in found.items()}
    return load_dataset("parquet", data_files=here, streaming=streaming)


def _copied(path: str) -> str:
    """A local file, in the cache: `datasets` would fetch none while the Hub is set to be offline."""
    if not is_address(path):
        return path
    target = cache_root() / "parquet" / (hashlib.sha256(file_key(path).encode()).hexdigest()[:32] + ENDING)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        with enough_room(target), open_to_read(path) as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy, COPIED_AT_ONCE)
        os.replace(partial, target)
    return str(target)
