"""Recordings in data sets and streams, whose embedded audio is unpacked to the cache (K2D, before stage 1)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.audio.media import AUDIO_EXTENSIONS, MEDIA_EXTENSIONS
from k2d_hf.data.audio_values import Samples, SoundPath, sound_in
from k2d_hf.data.recording_rows import (
    LANGUAGE_COLUMN,
    MORE_LANGUAGE_COLUMNS,
    ColumnNames,
    Row,
    absolute,
    columns_of,
    row_of,
)
from k2d_hf.errors import K2DError
from k2d_hf.files.cache import keep_in_cache
from k2d_hf.formatting import first_line

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

_SIGNATURES = {
    **{b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3", b"\xff": ".mp3"},
    **{b"\x1aE\xdf\xa3": ".mkv", b"#!AMR": ".amr", b"0&\xb2u": ".wma", b"PK\x03\x04": ".zip"},
}
_BRAND = b"ftyp"  # of MP4 and its kin, after the length of what it is in


def data_set_rows(
    source: Dataset | DatasetDict | IterableDataset | IterableDatasetDict,
    name: str,
    base: str,
    wanted: ColumnNames,
    split: str | None = None,
) -> Iterator[Row]:
    """The recordings of a data set or stream, `name` in errors, with paths relative to the folder or address `base`.

    Raises:
        K2DError: if it has no rows, no such split or column, or breaks off.
    """
    from datasets import Dataset

    data = _one_split(source, name, split).with_format(None)
    if isinstance(data, Dataset) and not len(data):
        raise K2DError(f"{name}: it has no rows; give one that is not empty")
    features = data.features
    known = features if features is not None else next(_rows(data, name), {})  # a stream may not know its columns
    read = RowReader(known, features, name, base, wanted)
    data = data.select_columns([one for one in known if one in read.columns.used])
    if features is not None:
        data = _undecoded(data, read.columns.audio, name)
    index = -1
    for index, row in enumerate(_rows(data, name)):
        yield read(index, row)
    if index < 0:
        raise K2DError(f"{name}: it has no rows; give one that is not empty")


class RowReader:
    """Makes recordings of the rows of one source; what is embedded in a row is written to the cache.

    Args:
        known: the source's columns: their types, or the values of a row.
        features: their types, where they are known.
        name: of the source in errors.
        base: folder or address that relative paths are from.
        wanted: the columns that the user names.

    Raises:
        K2DError: if there is no such column.
    """

    def __init__(
        self, known: Mapping[str, Any], features: Mapping[str, Any] | None, name: str, base: str, wanted: ColumnNames
    ) -> None:
        from datasets import Audio, ClassLabel

        audio = [column for column, feature in known.items() if isinstance(feature, Audio)]
        if len(audio) == 1 and wanted.audio is None:
            wanted = wanted._replace(audio=audio[0])
        self.columns = columns_of(known, name, wanted)
        self._name, self._base = name, base
        types = features or {}
        self._kind = _kind_of_samples(types.get(self.columns.audio))
        languages = (LANGUAGE_COLUMN, *MORE_LANGUAGE_COLUMNS)
        self._labels = {one: types[one] for one in languages if isinstance(types.get(one), ClassLabel)}

    def __call__(self, index: int, row: Mapping[str, Any]) -> Row:
        """The recording of a row; K2DError if the row holds something else."""
        where = f"{self._name}, row {index}"
        texts = {
            one: None if row[one] is None or row[one] < 0 else label.int2str(row[one])
            for one, label in self._labels.items()
        }
        recording = _unpacked(row.get(self.columns.audio), self._base, where, self._kind)
        return row_of(recording or f"{where} (no audio given)", {**row, **texts}, where, self.columns, self._base)


def _rows(data: Dataset | IterableDataset, name: str) -> Iterator[dict[str, Any]]:
    from datasets import Dataset

    if isinstance(data, Dataset):
        yield from data
        return
    try:
        yield from data
    except K2DError:
        raise
    except Exception as error:  # of a remote file system, a decompressor or a script
        raise K2DError(f"{name}: the stream breaks off ({first_line(error)}); run again") from error


def _one_split(source: Any, name: str, split: str | None) -> Dataset | IterableDataset:
    if not isinstance(source, dict):
        return source
    if split is None and len(source) == 1:
        return next(iter(source.values()))
    if split not in source:
        wrong = "it has several splits" if split is None else f"split {split} is not in it"
        raise K2DError(f"{name}: {wrong}; give one of {', '.join(map(str, source))}")
    return source[split]


def _undecoded(data: Dataset | IterableDataset, column: str, name: str) -> Dataset | IterableDataset:
    """The data with audio as bytes or path, or as an array where it is one."""
    from datasets import Audio, Dataset, Value

    feature = data.features[column]
    text = feature in (Value("string"), Value("large_string"))
    if isinstance(feature, Mapping) and "array" in feature:
        if isinstance(data, Dataset):
            return data.with_format("numpy", columns=[column], output_all_columns=True)
    elif not text:
        try:
            if not isinstance(data, Dataset) and isinstance(feature, Value) and "binary" not in feature.dtype:
                raise TypeError  # which a stream would raise at its first row
            # Before a row is read: a decoding `Audio` needs torchcodec even for its first row.
            return data.cast_column(column, Audio(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise K2DError(f"{name}: column `{column}` holds no audio ({feature}); name another") from error
    return data


def _kind_of_samples(feature: Any) -> str | None:
    """The type of the samples in a column with an `array`, however nested; None where it has none."""
    inner = feature.get("array") if isinstance(feature, Mapping) else None
    while inner is not None and not isinstance(getattr(inner, "dtype", None), str):
        inner = getattr(inner, "feature", None)
    kind = getattr(inner, "dtype", None)
    return kind if kind in np.sctypeDict else None


def _unpacked(value: Any, base: str, where: str, kind: str | None) -> str | None:
    """The path of one audio value of a data set; what is embedded is written to the cache first, under its name."""
    sound = sound_in(value, where, kind=kind)
    if sound is None or isinstance(sound, SoundPath):
        return absolute(sound.path, base) if sound else None
    name, extension = os.path.splitext(os.path.basename((sound.path or "").partition("::")[0]))
    if isinstance(sound, Samples):
        return str(keep_in_cache(sound.wav, "recordings", ".wav", identity=sound.identity, name=name))
    content = sound.content
    if extension.lower() not in AUDIO_EXTENSIONS and extension.lower() not in MEDIA_EXTENSIONS:
        extension = next((ending for magic, ending in _SIGNATURES.items() if content.startswith(magic)), "")
        extension = ".mp4" if content[4:8] == _BRAND else extension
    return str(keep_in_cache(content, "recordings", extension, identity=content, name=name))
