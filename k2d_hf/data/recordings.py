"""Recordings in: a folder, a manifest, a file or a data set, read into one table of recordings with nothing decoded.

This is where unlabelled audio enters the method; it is decoded when the teacher transcribes it.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from k2d_hf.audio.media import AUDIO_EXTENSIONS
from k2d_hf.audio.selection import MEAN, USUAL, Selection, selection_of
from k2d_hf.data.audio_folders import audio_rows, extension_counts, has_audio, warn_of_others
from k2d_hf.data.data_set_rows import data_set_rows
from k2d_hf.data.manifests import CSV_MANIFESTS, JSON_MANIFESTS, manifest_rows
from k2d_hf.data.recording_rows import (
    SELECTION_COLUMNS,
    SPAN_COLUMNS,
    ColumnNames,
    Row,
    file_row,
    reference_like,
    selected,
    unique,
)
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import ENDING, load_parquet
from k2d_hf.files.paths import folder_of, joined, walk_files
from k2d_hf.files.storage import exists, is_address, is_file, is_folder
from k2d_hf.formatting import os_error_reason, short_name

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    Source: TypeAlias = str | os.PathLike[str] | Dataset | DatasetDict | IterableDataset | IterableDatasetDict

logger = logging.getLogger(__name__)

KINDS = (
    "a folder of audio files, an audio file, a JSONL or CSV manifest, a datasets folder, an address of one of these "
    "such as s3://bucket/folder, or a Hub id OWNER/NAME"
)
COLUMNS = ("recording", "reference", "language")

_COLUMNS_OF_SOURCE = "Recordings of a source with the columns "  # the description of a table of recordings
_ACCEPTED = "such as .wav, .flac, .mp3, .m4a, .mp4"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)

_Rows = Callable[[], Iterator[Row]]  # can be iterated again, and pickled


@overload
def load_recordings(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    *,
    audio_column: str | None = None,
    reference_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    track: int | None = None,
    channel: int | str = MEAN,
    streaming: Literal[False] = False,
) -> Dataset: ...


@overload
def load_recordings(
    source: Source,
    *,
    audio_column: str | None = None,
    reference_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    track: int | None = None,
    channel: int | str = MEAN,
    streaming: bool = False,
) -> Dataset | IterableDataset: ...


def load_recordings(
    source: Source,
    *,
    audio_column: str | None = None,
    reference_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
    group_by: str | None = None,
    track: int | None = None,
    channel: int | str = MEAN,
    streaming: bool = False,
) -> Dataset | IterableDataset:
    """Read a source of recordings into a `datasets.Dataset`, one row a recording; no audio is decoded.

    Args:
        source: a folder (all audio files below it, sorted, and by name whatever else may hold audio: other formats,
            videos, archives; hidden ones left out with a warning), one audio file, a JSONL, CSV or TSV manifest with a
            path column (relative paths are from its folder, or from `clips/` beside a table of Common Voice; with
            `offset` and `duration` in seconds, as NeMo has them, a row is a span of its file, while a duration alone
            is that of the file and cuts nothing), a `Dataset` or `DatasetDict`, a folder that `save_to_disk` wrote or
            that holds Parquet files, an address of one of these that fsspec knows (`s3://`, `hf://`, ...), a Hub id,
            or an `IterableDataset`, which is always streamed.
        audio_column: the column that holds the audio; default: the one audio column, or one of the usual names.
        reference_column: the column that holds the transcripts; default: `reference`, `text`, `sentence`,
            `transcription`, `transcript`, `normalized_text`, `raw_text`, ..., or the texts of `segments`, joined.
        split: the split of a data set that has several; `train` for a Hub id.
        config: the configuration of a Hub data set that has several.
        group_by: the column with what a recording belongs to, such as a session; it is given as `group`.
        track: the track of sound in files with several, counted from 0; None is the one that a file itself prefers.
        channel: `mean` of all, `louder`, or a number from 0 on. A row of a manifest or data set may name its own track
            and channel, in the columns `audio_track` and `audio_channel`.
        streaming: give an `IterableDataset` of the same rows, which reads the source as it goes and holds neither it
            nor its list: folders are listed one at a time, manifests read by line, Parquet and Hub data sets by row
            group. To find repeated ones it holds 100 to 150 MB for each million recordings. An error of the source
            as a whole is raised at once, one of a line when it is reached.

    Returns:
        Columns `recording` (absolute path or address), `reference` (transcript, or null) and `language` (as the source
        writes it, or null); where rows may be spans also `start` and `duration` (s, 0 and null of a whole file), and
        where a track or channel is named `audio_track` and `audio_channel` (null is the usual one). What
        does not exist, cannot be decoded or has an unknown language stays in, and is skipped with its reason at
        labelling. Audio embedded in a data set is copied unchanged to the cache folder, of a stream when it is
        reached; samples become a WAV, whole numbers scaled by their type. A file, or a span of one, that comes twice is
        kept once.

    Raises:
        K2DError: a source that is none of these, holds no recordings, has no such column, or a broken manifest.
    """
    from datasets import Dataset, DatasetInfo, Features, IterableDataset, IterableDatasetDict, Value

    selection = selection_of(track, channel)
    streaming = streaming or isinstance(source, (IterableDataset, IterableDatasetDict))
    wanted = ColumnNames(audio_column, reference_column, group_by)
    rows = open_rows(source, wanted, split=split, config=config, streaming=streaming, selection=selection)
    table = [] if streaming else list(unique(rows()))
    first = next(rows()) if streaming else table[0]  # an unusable source, such as one without rows, is an error at once
    parts = () if first.start is None else SPAN_COLUMNS
    if selection != USUAL or set(SELECTION_COLUMNS) & set(first.columns):
        parts = (*parts, *SELECTION_COLUMNS)
    columns = (*COLUMNS, *parts, *(("group",) if group_by is not None else ()))
    kinds = {**dict.fromkeys(SPAN_COLUMNS, "float64"), SELECTION_COLUMNS[0]: "int32"}
    features = Features({column: Value(kinds.get(column, "string")) for column in columns})
    if reference_column is None and (alike := reference_like(first)):
        listed = " and ".join(map(short_name, alike[:3]))
        name = source if isinstance(source, (str, os.PathLike)) else "the data set"
        logger.warning("%s: no transcripts are read, unless reference_column names %s", name, listed)
    if streaming:
        return IterableDataset.from_generator(
            _examples, features=features, gen_kwargs={"rows": rows, "columns": columns}
        )
    about = _COLUMNS_OF_SOURCE + ", ".join(map(short_name, first.columns)) if first.columns else ""
    values = {column: [getattr(row, column) for row in table] for column in columns}
    return Dataset.from_dict(values, info=DatasetInfo(description=about, features=features))


def open_rows(
    source: Source,
    wanted: ColumnNames,
    *,
    split: str | None = None,
    config: str | None = None,
    streaming: bool = False,
    selection: Selection = USUAL,
) -> _Rows:
    """A function that gives the rows of a source, as often as it is called; arguments and errors of `load_recordings`.

    `wanted` are the columns that the user names, and whether segments and subtitles are kept; `selection` is for rows
    that name no track or channel of their own.
    """
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(source, (Dataset, DatasetDict, IterableDataset, IterableDatasetDict)):
        rows: _Rows = partial(data_set_rows, source, "the data set", os.getcwd(), wanted, split)
    elif not isinstance(source, (str, os.PathLike)) or not str(source).strip():
        raise K2DError(f"recordings {source!r}: not a source of recordings; give {KINDS}")
    else:
        try:
            rows = _rows_at(os.fspath(source), wanted, split, config, streaming)
        except OSError as error:
            raise K2DError(
                f"recordings {source}: cannot be read ({os_error_reason(error)}); check the path and its access"
            ) from error
    return rows if selection == USUAL else partial(_selected, rows, selection)


def advice_on_references(recordings: Any) -> str:
    """What to do where recordings have no reference, with the columns of their source if `load_recordings` read it."""
    advice = "give a manifest with a column reference, text or segments"
    description = getattr(getattr(recordings, "info", None), "description", None) or ""
    columns = description.partition(_COLUMNS_OF_SOURCE)[2]
    return f"{advice}, or name the one with the transcripts: reference_column, of {columns}" if columns else advice


def _selected(rows: _Rows, selection: Selection) -> Iterator[Row]:
    return (selected(row, selection) for row in rows())


def _examples(rows: _Rows, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for row in unique(rows()):
        yield {column: getattr(row, column) for column in columns}


def _rows_at(source: str, wanted: ColumnNames, split: str | None, config: str | None, streaming: bool) -> _Rows:
    """The rows of what is at a path or address, or of a Hub id."""
    from datasets import load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError

    path = source if is_address(source) else os.path.abspath(os.path.expanduser(source))
    ending, base = os.path.splitext(path)[1].lower(), os.getcwd()
    load: Callable[[], Any]
    if is_file(path):
        if ending in JSON_MANIFESTS + CSV_MANIFESTS:
            return partial(manifest_rows, path, wanted, streaming=streaming)
        if ending in AUDIO_EXTENSIONS:
            return partial(iter, [file_row(path, source, wanted.group)])
        if ending != ENDING:
            raise K2DError(f"file {source}: neither audio ({_ACCEPTED}) nor a manifest (.jsonl, .csv); give {KINDS}")
        load, advice, base = partial(load_parquet, path, streaming=streaming), "check it", folder_of(path)
    elif is_folder(path):
        if any(exists(joined(path, name)) for name in ("dataset_dict.json", "state.json")):
            load, advice = partial(load_from_disk, path), "write it again with save_to_disk"
        elif has_audio(path):
            return partial(audio_rows, path, wanted.group)
        elif any(file.endswith(ENDING) for file in walk_files(path)):
            reader = partial(load_parquet, path) if is_address(path) else partial(load_dataset, path, config)
            load, advice, base = partial(reader, streaming=streaming), "check its Parquet files", path
            warn_of_others(path)
        else:
            listed = extension_counts(walk_files(path))
            holds = f" (it holds {listed})" if listed else ""
            raise K2DError(f"folder {source}: no audio in it that can be read{holds}; give files {_ACCEPTED}")
    elif is_address(path) or not _HUB_ID.fullmatch(source):
        raise K2DError(f"recordings {source}: no such file or folder, and not a Hub id; give {KINDS}")
    else:
        from k2d_hf.models.hub import ensure_hub_state

        load = partial(load_dataset, source, config, split=split or "train", streaming=streaming)
        advice = (
            f"there is no file or folder of that name here either ({ensure_hub_state()}); give the path of a local "
            f"copy, such as hf download {source} --repo-type dataset makes"
        )
    try:
        data = load()
    except K2DError:
        raise
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise K2DError(f"data set {source}: it cannot be loaded ({reason}); {advice}") from error
    return partial(data_set_rows, data, f"data set {source}", base, wanted, split)
