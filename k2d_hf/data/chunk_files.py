"""Chunks on disk: the folders and Parquet files that stages write, read again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from k2d_hf.data.chunk_schema import rows_of
from k2d_hf.data.segment_verdicts import READ, kept_seconds
from k2d_hf.data.utterances import as_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import load_parquet
from k2d_hf.files.paths import joined
from k2d_hf.files.storage import exists, is_folder

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

NEEDED = ("text", "recording or audio")  # columns of every chunk
COUNTED_AT_ONCE = 10_000  # rows; a column may have millions


@overload
def load_chunks(path: str | Path, *, streaming: Literal[False] = False) -> Dataset: ...


@overload
def load_chunks(path: str | Path, *, streaming: bool) -> Dataset | IterableDataset: ...


def load_chunks(path: str | Path, *, streaming: bool = False) -> Dataset | IterableDataset:
    """A data set of chunks: a folder that `k2d label` or `k2d validate` wrote, or Parquet files, as `k2d push` makes.

    Args:
        path: of the folder, or of one Parquet file; or the address of either, such as `hf://datasets/USER/NAME`.
        streaming: give a stream of the same rows, which holds no more than it reads ahead.

    Returns:
        The columns of the contract; where the audio is in there, `audio` with the `bytes` of each chunk's own file. Of
        labelled utterances, as other data sets have them, `audio` and `text`.

    Raises:
        K2DError: if there is none, or it has several splits.
    """
    from datasets import Dataset, load_from_disk
    from datasets.exceptions import DatasetGenerationError, DatasetsError

    path = str(path)
    try:
        saved = is_folder(path) and any(exists(joined(path, name)) for name in ("state.json", "dataset_dict.json"))
        with _without_schemas():
            found = load_from_disk(path) if saved or not exists(path) else load_parquet(path, streaming=streaming)
    except K2DError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, DatasetGenerationError):
            reason = "its Parquet files cannot be read, or have different columns"
        raise K2DError(f"{path}: no data set of chunks: {reason}; `k2d label` writes one") from None
    if isinstance(found, dict):
        if len(found) > 1:
            raise K2DError(f"{path}: several data sets of chunks, {', '.join(map(str, found))}; give the path of one")
        (found,) = found.values()
    found = as_chunks(found)
    if not streaming or not isinstance(found, Dataset):
        return found
    if not len(found):
        raise K2DError(f"{path}: there are no chunks in it; `k2d label` writes some")
    return found.to_iterable_dataset()


def check_chunks(chunks: Dataset | IterableDataset, path: str | Path) -> None:
    """Raise K2DError for rows that are no chunks; `path` is where they are from."""
    columns = chunks.column_names  # None of a stream without known columns
    lacking = [names for names in NEEDED if not set(names.split(" or ")) & set(columns or ())]
    if columns and lacking:
        raise K2DError(f"{path}: no data set of chunks: no column {', '.join(lacking)}; `k2d label` writes one")


@contextmanager
def _without_schemas() -> Iterator[None]:
    """Keep `datasets` from logging what it raises too, with the complete Arrow schema of each file."""
    import datasets

    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


def kept_of(validated: Dataset) -> tuple[int, float]:
    """How many chunks are kept, and their seconds; without the segments of them that have no weight in the loss."""
    count, seconds = 0, 0.0
    columns = [name for name in READ if name in validated.column_names]
    for batch in validated.select_columns(columns).iter(batch_size=COUNTED_AT_ONCE):
        kept = [row for row in rows_of(batch) if row["keep"]]
        count += len(kept)
        seconds += sum(map(kept_seconds, kept))
    return count, seconds
