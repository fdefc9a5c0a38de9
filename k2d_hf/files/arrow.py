"""Data sets on disk, Arrow and Parquet, written and read: however many rows there are, memory holds a batch of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.files.cache import cache_root, scratch_folder
from k2d_hf.files.folders import write_folder
from k2d_hf.files.storage import (
    enough_room,
    file_key,
    filesystem,
    is_address,
    is_file,
    open_to_read,
    remove_folder,
    write_atomic,
)

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features, IterableDatasetDict

ROWS_OF_A_FILE = 50_000  # of Parquet, in an output that is an address
ENDING = ".parquet"
COPIED_AT_ONCE = 1 << 22  # bytes
DESCRIPTION = 64_000  # bytes that the description of a data set takes, generously


def dataset_of(batches: Iterable[Sequence[Mapping[str, Any]]], features: Features) -> Dataset:
    """A data set of rows that come in batches; K2DError if the cache cannot be written, or its disk is full.

    It is mapped into memory from a file below the package's cache, not held in it. The file has no name any more once
    it is written, so that its room is free again when the last data set that reads it is gone, however the process
    ends; `save_to_disk` keeps what is in it.
    """
    import pyarrow
    from datasets import Dataset, DatasetInfo

    advice = "free some, or set K2D_CACHE to a folder on a larger disk"
    with scratch_folder() as folder:
        path = str(folder / "rows.arrow")
        with enough_room(folder.parent, DESCRIPTION, advice=advice):
            writer = pyarrow.ipc.new_stream(path, features.arrow_schema)
        try:
            for rows in filter(None, batches):
                table = table_of({name: [row[name] for row in rows] for name in features}, features)
                with enough_room(folder.parent, table.nbytes, advice=advice):
                    writer.write_table(table)
        except BaseException:
            with suppress(OSError):  # closing writes the end of the stream
                writer.close()
            raise
        with enough_room(folder.parent, DESCRIPTION, advice=advice):
            writer.close()
        # of a buffer and not of a file, whose name datasets would need again
        return Dataset.from_buffer(pyarrow.memory_map(path).read_buffer(), info=DatasetInfo(features=features))


def table_of(columns: Mapping[str, Sequence[Any]], features: Features) -> Any:
    """Columns as an Arrow table, those of the features and no others."""
    import pyarrow
    from datasets import Audio, Dataset

    audio = [name for name, feature in features.items() if isinstance(feature, Audio)]
    plain = type(features)({name: feature for name, feature in features.items() if name not in audio})
    table = Dataset.from_dict({name: columns[name] for name in plain}, features=plain).with_format("arrow")[:]
    for name in audio:  # `datasets` needs torchcodec to store even the bytes of a file
        table = table.append_column(name, pyarrow.array(columns[name], features[name].pa_type))
    return table.select(list(features)).cast(features.arrow_schema)


def write_rows(rows: Dataset, output: str | Path) -> None:
    """Write a data set to where later stages read it, in the place of what is there; K2DError if there is no room.

    A folder is what `load_from_disk` reads; it appears complete. An address gets Parquet files, the last one last.
    """
    if not is_address(output):
        with enough_room(output, rows.data.nbytes + DESCRIPTION):
            write_folder(Path(output), lambda partial: rows.save_to_disk(str(partial)), replace=True)
        return
    address = os.fspath(output).rstrip("/")
    remove_folder(address)
    count = max(1, -(-len(rows) // ROWS_OF_A_FILE))
    for index in range(count):
        buffer = io.BytesIO()
        part = range(index * ROWS_OF_A_FILE, min((index + 1) * ROWS_OF_A_FILE, len(rows)))
        rows.select(part).to_parquet(buffer)
        write_atomic(f"{address}/chunks-{index:05d}-of-{count:05d}.parquet", buffer.getvalue())


def join_files(files: Sequence[Path], features: Features, output: Path) -> None:
    """Arrow files that `write_file` wrote as one data set in the folder `output`, which appears complete.

    Its files are the same ones under a second name, where the disk has that, so that nothing is copied. Raises K2DError
    if there is no room.
    """
    from datasets import Dataset

    def build(folder: Path) -> None:
        Dataset.from_dict({name: [] for name in features}, features=features).save_to_disk(str(folder))
        for empty in folder.glob("*.arrow"):
            empty.unlink()
        names = [f"data-{index:05d}-of-{len(files):05d}.arrow" for index in range(len(files))]
        for file, name in zip(files, names, strict=True):
            _link(file, folder / name)
        state_file = folder / "state.json"
        state = json.loads(state_file.read_text(encoding="utf-8"))
        state["_data_files"] = [{"filename": name} for name in names]
        state_file.write_text(json.dumps(state, indent=2), encoding="utf-8")

    with enough_room(output, DESCRIPTION):
        write_folder(output, build, replace=True)


def write_file(columns: Mapping[str, Sequence[Any]], features: Features, path: Path) -> None:
    """Columns as an Arrow file that `join_files` and `opened_files` take, written atomically."""
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, features.arrow_schema) as writer:
        writer.write_table(table_of(columns, features))
    write_atomic(path, sink.getvalue())


def opened_files(files: Sequence[Path], features: Features) -> Dataset:
    """Arrow files that `write_file` wrote as one data set, mapped into memory; they may be deleted meanwhile."""
    import pyarrow
    from datasets import Dataset, DatasetInfo, concatenate_datasets

    info = DatasetInfo(features=features)
    buffers = [pyarrow.memory_map(str(file)).read_buffer() for file in files]
    parts = [Dataset.from_buffer(buffer, info=info) for buffer in buffers]
    return concatenate_datasets(parts or [Dataset.from_dict({name: [] for name in features}, features=features)])


def _link(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:
        with enough_room(name, file.stat().st_size):
            shutil.copyfile(file, name)


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
    target = cache_root() / "parquet" / f"{hashlib.sha256(file_key(path).encode()).hexdigest()[:32]}{ENDING}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        with enough_room(target), open_to_read(path) as source, partial.open("wb") as copy:
            shutil.copyfileobj(source, copy, COPIED_AT_ONCE)
        os.replace(partial, target)
    return str(target)
