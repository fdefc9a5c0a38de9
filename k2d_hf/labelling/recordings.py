"""Recordings in: a folder, a manifest, a file or a data set, read into one table of recordings with nothing decoded.

This is where unlabelled audio enters the method; `audio.py` decodes it when the teacher asks.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from k2d_hf.cache import keep_in_cache
from k2d_hf.errors import K2DError
from k2d_hf.labelling.audio import AUDIO_EXTENSIONS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("audio", "path", "file", "audio_path", "audio_filepath", "recording", "file_name", "wav")
REFERENCE_COLUMNS = ("reference", "text", "sentence", "transcription")  # else the texts of `segments`, joined
LANGUAGE_COLUMN = "language"
JSON_MANIFESTS, CSV_MANIFESTS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
KINDS = "a folder of audio files, an audio file, a JSONL or CSV manifest, a datasets folder, or a Hub id OWNER/NAME"

_ACCEPTED = " ".join(AUDIO_EXTENSIONS)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SIGNATURES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"FORM": ".aiff", b"ID3": ".mp3", b"\xff": ".mp3"}


class _Row(NamedTuple):
    recording: str
    reference: str | None
    language: str | None
    where: str  # for messages: the line or row that it came from


def load_recordings(
    source: str | os.PathLike[str] | Dataset | DatasetDict,
    *,
    audio_column: str | None = None,
    split: str | None = None,
    config: str | None = None,
) -> Dataset:
    """Read a source of recordings into a `datasets.Dataset`, one row a recording; no audio is decoded.

    Args:
        source: a folder (all audio files below it, sorted, hidden ones left out), one audio file, a JSONL or CSV
            manifest with a path column (relative paths are from its folder), a `Dataset` or `DatasetDict`, a folder
            that `save_to_disk` wrote or that holds Parquet files, or a Hub id.
        audio_column: the column that holds the audio; default: the one audio column, or one of the usual names.
        split: the split of a data set that has several; `train` for a Hub id.
        config: the configuration of a Hub data set that has several.

    Returns:
        Columns `recording` (absolute path), `reference` (transcript, or null) and `language` (code, or null). A file
        that does not exist stays in, and is skipped with its reason at labelling. Audio embedded in a data set is
        copied unchanged to the cache folder. A file that comes twice is kept once.

    Raises:
        K2DError: a source that is none of these, holds no recordings, has no audio column, or a broken manifest.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    if isinstance(source, (Dataset, DatasetDict)):
        rows: Iterable[_Row] = _dataset_rows(source, "the data set", Path.cwd(), audio_column, split)
    elif isinstance(source, (str, os.PathLike)) and str(source).strip():
        rows = _rows_at(os.fspath(source), audio_column, split, config)
    else:
        raise K2DError(f"recordings {source!r}: not a source of recordings; give {KINDS}")
    table = _unique(rows)
    columns = ("recording", "reference", "language")
    return Dataset.from_dict(
        {column: [getattr(row, column) for row in table] for column in columns},
        features=Features({column: Value("string") for column in columns}),
    )


def _rows_at(source: str, audio_column: str | None, split: str | None, config: str | None) -> Iterable[_Row]:
    from datasets import load_dataset, load_from_disk

    path = Path(_absolute(source, Path.cwd()))
    extension = path.suffix.lower()
    if path.is_dir():
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            data = _loaded(source, "write it again with save_to_disk", lambda: load_from_disk(str(path)))
            return _dataset_rows(data, f"data set {source}", Path.cwd(), audio_column, split)
        if files := find_audio_files(path):
            return [_Row(str(file), None, None, str(file)) for file in files]
        if any(path.rglob("*.parquet")):
            data = _loaded(source, "check its Parquet files", lambda: load_dataset(str(path), config))
            return _dataset_rows(data, f"data set {source}", path, audio_column, split)
        raise K2DError(
            f"folder {source}: no audio in it that can be read{_extensions_below(path)}; give {_ACCEPTED} files"
        )
    if path.is_file():
        if extension in JSON_MANIFESTS + CSV_MANIFESTS:
            return _manifest_rows(path, audio_column)
        if extension in AUDIO_EXTENSIONS:
            return [_Row(str(path), None, None, source)]
        raise K2DError(f"file {source}: neither audio ({_ACCEPTED}) nor a manifest (.jsonl, .csv); give {KINDS}")
    if not _HUB_ID.fullmatch(source):
        raise K2DError(f"recordings {source}: no such file or folder, and not a Hub id; give {KINDS}")
    from k2d_hf.checkpoints.hub import ensure_hub_state

    advice = (
        f"there is no file or folder of that name here either ({ensure_hub_state()}); give the path of a local copy, "
        f"such as hf download {source} --repo-type dataset makes"
    )
    data = _loaded(source, advice, lambda: load_dataset(source, config, split=split or "train"))
    return _dataset_rows(data, f"data set {source}", Path.cwd(), audio_column, None)


def find_audio_files(folder: Path) -> list[Path]:
    """Return the audio files below a folder, sorted by path, known by their extension; hidden ones are left out."""
    found, visited = [], set()
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in visited:  # a link that leads back up
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        audio = [name for name in names if name.lower().endswith(AUDIO_EXTENSIONS) and not name.startswith(".")]
        found += [Path(directory, name) for name in audio]
    return sorted(found)


def _extensions_below(folder: Path) -> str:
    counts = Counter(path.suffix.lower() or path.name for path in folder.rglob("*") if path.is_file())
    listed = ", ".join(f"{count} {extension}" for extension, count in counts.most_common(3))
    return f" (it holds {listed})" if listed else ""


def _manifest_rows(path: Path, audio_column: str | None) -> Iterator[_Row]:
    lines = list(_csv_lines(path) if path.suffix.lower() in CSV_MANIFESTS else _json_lines(path))
    if not lines:
        raise K2DError(f"manifest {path}: it has no rows; give one row a recording, with its path in column `audio`")
    columns = list(dict.fromkeys(name for _, line in lines for name in line))
    column = _audio_column(columns, f"manifest {path}", audio_column)
    for number, line in lines:
        where = f"{path}, line {number}"
        value = line.get(column)
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: column `{column}` is {value!r}; give the path of an audio file")
        yield _row(_absolute(value, path.parent) if value else f"{where} (no path given)", line, where)


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in enumerate(_read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise K2DError(f"{path}, line {number}: not JSON ({error}); give one JSON object a line") from error
        if not isinstance(line, dict):
            raise K2DError(f"{path}, line {number}: not a JSON object; give one a line, with the path in `audio`")
        yield number, line


def _csv_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), delimiter=delimiter, strict=True)
    try:
        for line in reader:
            yield reader.line_num, {name: cell or None for name, cell in line.items() if name}
    except csv.Error as error:
        raise K2DError(f"{path}, line {reader.line_num}: not CSV ({error}); quote it anew, or use JSONL") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise K2DError(f"manifest {path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _loaded(source: str, advice: str, load: Callable[[], Any]) -> Any:
    from datasets.exceptions import DatasetsError

    try:
        return load()
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise K2DError(f"data set {source}: it cannot be loaded ({reason}); {advice}") from error


def _dataset_rows(
    source: Dataset | DatasetDict, name: str, base: Path, audio_column: str | None, split: str | None
) -> Iterator[_Row]:
    from datasets import Audio, ClassLabel, Value

    data = _one_split(source, name, split).with_format(None)
    if not len(data):
        raise K2DError(f"{name}: it has no rows; give one that is not empty")
    audio = [column for column, feature in data.features.items() if isinstance(feature, Audio)]
    wanted = audio[0] if len(audio) == 1 and audio_column is None else audio_column
    column = _audio_column(data.column_names, name, wanted)
    used = {column, LANGUAGE_COLUMN, "segments", *REFERENCE_COLUMNS}
    data = data.select_columns([known for known in data.column_names if known in used])
    feature, language = data.features[column], data.features.get(LANGUAGE_COLUMN)
    if isinstance(feature, Mapping) and "array" in feature:
        data = data.with_format("numpy", columns=[column], output_all_columns=True)
    elif feature != Value("string"):
        try:
            # Before a row is touched: a decoding `Audio` needs torchcodec to hand out even its first row.
            data = data.cast_column(column, Audio(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise K2DError(f"{name}: column `{column}` holds no audio ({feature}); name another") from error
    for index, row in enumerate(data):
        where = f"{name}, row {index}"
        if isinstance(language, ClassLabel) and row[LANGUAGE_COLUMN] is not None:
            row[LANGUAGE_COLUMN] = language.int2str(row[LANGUAGE_COLUMN])
        yield _row(_unpacked(row[column], base) or f"{where} (no audio given)", row, where)


def _one_split(source: Dataset | DatasetDict, name: str, split: str | None) -> Dataset:
    if not isinstance(source, dict):
        return source
    if split is None and len(source) == 1:
        return next(iter(source.values()))
    if split not in source:
        raise K2DError(f"{name}: split {split} is not in it; give one of {', '.join(map(str, source))}")
    return source[split]


def _audio_column(columns: list[str], name: str, wanted: str | None) -> str:
    accepted = PATH_COLUMNS if wanted is None else (wanted,)
    for column in accepted:
        if column in columns:
            return column
    found, names = ", ".join(columns), ", ".join(accepted)
    raise K2DError(f"{name}: no column with audio; it has {found}; rename one to, or set audio_column: {names}")


def _row(recording: str, values: Mapping[str, Any], where: str) -> _Row:
    reference = next((values[name] for name in REFERENCE_COLUMNS if values.get(name) is not None), None)
    if reference is None and values.get("segments"):
        try:
            reference = " ".join(segment["text"].strip() for segment in values["segments"])
        except (TypeError, KeyError, AttributeError) as error:
            raise K2DError(f"{where}: `segments` is not a list of objects with a `text`; mend or drop it") from error
    language = values.get(LANGUAGE_COLUMN)
    for name, value in (("transcript", reference), (LANGUAGE_COLUMN, language)):
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: the {name} is {value!r}; give a string or null")
    return _Row(recording, reference, language, where)


def _unique(rows: Iterable[_Row]) -> list[_Row]:
    kept: dict[str, _Row] = {}
    repeated = 0
    for row in rows:
        first = kept.setdefault(row.recording, row)
        if first is row:
            continue
        repeated += 1
        if first.reference != row.reference:
            raise K2DError(
                f"{row.where}: {row.recording} came before ({first.where}) with another transcript; "
                "a recording is read whole, so give each file once, with its whole transcript"
            )
    if repeated:
        logger.warning("%d rows name a recording that came before; each is kept once", repeated)
    return list(kept.values())


def _absolute(path: str, base: Path) -> str:
    return path if "://" in path else os.path.abspath(os.path.join(base, os.path.expanduser(path)))


def _unpacked(value: Any, base: Path) -> str | None:
    """Return the path of one audio value of a data set; what is embedded is written to the cache first."""
    if not isinstance(value, Mapping):
        return _absolute(value, base) if value else None
    if value.get("array") is not None:
        import numpy as np
        import soundfile

        samples, rate = np.asarray(value["array"], dtype=np.float32), int(value["sampling_rate"])
        wav = io.BytesIO()
        soundfile.write(wav, samples if samples.ndim == 1 else samples.T, rate, format="WAV", subtype="FLOAT")
        # The name comes from the samples: libsndfile stamps the time into the header of a float WAV.
        return str(keep_in_cache(wav.getvalue(), "recordings", ".wav", identity=samples.tobytes() + str(rate).encode()))
    content, path = value.get("bytes"), value.get("path")
    if content is None:
        return _absolute(path, base) if path else None
    extension = os.path.splitext(path or "")[1].lower()
    if extension not in AUDIO_EXTENSIONS:
        extension = next((ending for magic, ending in _SIGNATURES.items() if content.startswith(magic)), "")
    return str(keep_in_cache(content, "recordings", extension, identity=content))
