"""Recordings in: a folder, a manifest, a file or a data set, read into one table of recordings with nothing decoded.

This is where unlabelled audio enters the method; `audio.py` decodes it when the teacher asks.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from k2d_hf.errors import K2DError
from k2d_hf.labelling.audio import AUDIO_EXTENSIONS
from k2d_hf.labelling.data_set_rows import data_set_rows
from k2d_hf.labelling.manifests import CSV_MANIFESTS, JSON_MANIFESTS, manifest_rows
from k2d_hf.labelling.recording_rows import Row, row_of, unique
from k2d_hf.parquet_folders import ENDING, load_parquet
from k2d_hf.paths import folder_of, is_file, is_folder, joined, walk_files
from k2d_hf.storage import exists, is_address

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    Source: TypeAlias = str | os.PathLike[str] | Dataset | DatasetDict | IterableDataset | IterableDatasetDict

KINDS = (
    "a folder of audio files, an audio file, a JSONL or CSV manifest, a datasets folder, an address of one of these "
    "such as s3://bucket/folder, or a Hub id OWNER/NAME"
)
COLUMNS = ("recording", "reference", "language")

_ACCEPTED = " ".join(AUDIO_EXTENSIONS)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

_Rows = Callable[[], Iterator[Row]]  # can be gone through again, and pickled


@overload
def load_recordings(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    *,
    audio_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    streaming: Literal[False] = False,
) -> Dataset: ...


@overload
def load_recordings(
    source: Source,
    *,
    audio_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    streaming: bool = False,
) -> Dataset | IterableDataset: ...


def load_recordings(
    source: Source,
    *,
    audio_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """Read a source of recordings into a `datasets.Dataset`, one row a recording; no audio is decoded.

    Args:
        source: a folder (all audio files below it, sorted, hidden ones left out), one audio file, a JSONL or CSV
            manifest with a path column (relative paths are from its folder), a `Dataset` or `DatasetDict`, a folder
            that `save_to_disk` wrote or that holds Parquet files, an address of one of these that fsspec knows
            (`s3://`, `hf://`, ...), a Hub id, or an `IterableDataset`, which is always streamed.
        audio_column: the column that holds the audio; default: the one audio column, or one of the usual names.
        split: the split of a data set that has several; `train` for a Hub id.
        config: the configuration of a Hub data set that has several.
        group_by: a column that says what a recording belongs to, such as a session; it is given as `group`.
        streaming: give an `IterableDataset` of the same rows, which reads the source as it goes and holds neither it
            nor its list: folders are listed one at a time, manifests read by line, Parquet and Hub data sets by row
            group. To know what came before it holds 100 to 150 MB for each million recordings. What is wrong with
            the source as a whole is said at once, what is wrong with a line when it is reached.

    Returns:
        Columns `recording` (absolute path or address), `reference` (transcript, or null) and `language` (code, or
        null). A file that does not exist stays in, and is skipped with its reason at labelling. Audio embedded in a
        data set is copied unchanged to the cache folder, of a stream when it is reached. A file that comes twice is
        kept once.

    Raises:
        K2DError: a source that is none of these, holds no recordings, has no audio column, or a broken manifest.
    """
    from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value

    if isinstance(source, (IterableDataset, IterableDatasetDict)):
        streaming = True
    if isinstance(source, (Dataset, DatasetDict, IterableDataset, IterableDatasetDict)):
        rows: _Rows = partial(data_set_rows, source, "the data set", os.getcwd(), audio_column, split, group_by)
    elif isinstance(source, (str, os.PathLike)) and str(source).strip():
        try:
            rows = _rows_at(os.fspath(source), audio_column, split, config, streaming, group_by)
        except OSError as error:
            reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
            raise K2DError(f"recordings {source}: cannot be read ({reason}); check the path and its access") from error
    else:
        raise K2DError(f"recordings {source!r}: not a source of recordings; give {KINDS}")
    columns = COLUMNS if group_by is None else (*COLUMNS, "group")
    features = Features({column: Value("string") for column in columns})
    if streaming:
        next(rows(), None)  # so that a source that cannot be used is known at once
        return IterableDataset.from_generator(
            _examples, features=features, gen_kwargs={"rows": rows, "columns": columns}
        )
    table = list(unique(rows()))
    return Dataset.from_dict({column: [getattr(row, column) for row in table] for column in columns}, features=features)


def _examples(rows: _Rows, columns: tuple[str, ...]) -> Iterator[dict[str, str | None]]:
    for row in unique(rows()):
        yield {column: getattr(row, column) for column in columns}


def _rows_at(
    source: str,
    audio_column: str | None,
    split: str | None,
    config: str | None,
    streaming: bool,
    group_by: str | None,
) -> _Rows:
    from datasets import load_dataset

    path = source if is_address(source) else os.path.abspath(os.path.expanduser(source))
    ending = os.path.splitext(path)[1].lower()
    if is_file(path):
        if ending in JSON_MANIFESTS + CSV_MANIFESTS:
            return partial(manifest_rows, path, audio_column, streaming=streaming, group_by=group_by)
        if ending in AUDIO_EXTENSIONS:
            return partial(iter, [row_of(path, {}, source, group_by)])
        if ending == ENDING:
            data = _loaded(source, "check it", lambda: load_parquet(path, streaming=streaming))
            return partial(data_set_rows, data, f"data set {source}", folder_of(path), audio_column, split, group_by)
        raise K2DError(f"file {source}: neither audio ({_ACCEPTED}) nor a manifest (.jsonl, .csv); give {KINDS}")
    if is_folder(path):
        return _rows_below(path, source, audio_column, split, config, streaming, group_by)
    if is_address(path) or not _HUB_ID.fullmatch(source):
        raise K2DError(f"recordings {source}: no such file or folder, and not a Hub id; give {KINDS}")
    from k2d_hf.checkpoints.hub import ensure_hub_state

    advice = (
        f"there is no file or folder of that name here either ({ensure_hub_state()}); give the path of a local copy, "
        f"such as hf download {source} --repo-type dataset makes"
    )
    data = _loaded(source, advice, lambda: load_dataset(source, config, split=split or "train", streaming=streaming))
    return partial(data_set_rows, data, f"data set {source}", os.getcwd(), audio_column, None, group_by)


def _rows_below(
    path: str,
    source: str,
    audio_column: str | None,
    split: str | None,
    config: str | None,
    streaming: bool,
    group_by: str | None,
) -> _Rows:
    """The rows of a folder, of whatever kind it is."""
    from datasets import load_dataset, load_from_disk

    if any(exists(joined(path, name)) for name in ("dataset_dict.json", "state.json")):
        data = _loaded(source, "write it again with save_to_disk", lambda: load_from_disk(path))
        return partial(data_set_rows, data, f"data set {source}", os.getcwd(), audio_column, split, group_by)
    if next(_audio_below(path), None):
        return partial(_audio_below, path, group_by)
    if any(file.endswith(ENDING) for file in walk_files(path)):
        load = partial(load_parquet, path) if is_address(path) else partial(load_dataset, path, config)
        data = _loaded(source, "check its Parquet files", lambda: load(streaming=streaming))
        return partial(data_set_rows, data, f"data set {source}", path, audio_column, split, group_by)
    raise K2DError(f"folder {source}: no audio in it that can be read{_extensions_below(path)}; give {_ACCEPTED} files")


def _audio_below(folder: str, group_by: str | None = None) -> Iterator[Row]:
    """The audio files below a folder, sorted by path, known by their extension; hidden ones are left out."""
    for path in walk_files(folder):
        if path.lower().endswith(AUDIO_EXTENSIONS):
            yield row_of(path, {}, path, group_by)


def _extensions_below(folder: str) -> str:
    counts = Counter(os.path.splitext(path)[1].lower() or os.path.basename(path) for path in walk_files(folder))
    listed = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(3))
    return f" (it holds {listed})" if listed else ""


def _loaded(source: str, advice: str, load: Callable[[], Any]) -> Any:
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except K2DError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise K2DError(f"data set {source}: it cannot be loaded ({reason}); {advice}") from error
