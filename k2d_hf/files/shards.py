"""Finished work of a stage, a file for each shard: a run that died resumes, and several workers share one stage.

A shard is some consecutive rows of the stage's input. Its file is named by its content, so it is found again whatever
else changed; it is written atomically, into a folder with a record of the settings that it depends on.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import exists, files_below, open_to_read, write_atomic
from k2d_hf.version import __version__

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger(__name__)

NO_SPEECH = "no speech found"  # a finding, where every other failure is tried again by the next run
RECORD = "record.json"
ENDING = ".parquet"

Values = dict[str, dict[str, Any]]  # by key of the item


@dataclass(frozen=True)
class Failure:
    """Why there is no result for an item: a short, stable reason, the error, and the seconds of audio."""

    reason: str
    detail: str
    seconds: float = 0.0

    def row(self) -> dict[str, Any]:
        """Its row in the file of a shard."""
        return asdict(self)


@dataclass(frozen=True)
class Shard:
    """Consecutive items of a stage's input."""

    index: int  # its place among the shards
    items: tuple[Any, ...]  # each has a `key`, and `repeated` if it came before and is left out
    rows: tuple[Any, ...] = ()  # given back with them

    @cached_property
    def key(self) -> str:
        """Short hash of the keys of its items."""
        digest = hashlib.blake2b(digest_size=16)
        for item in self.wanted:
            key = item.key.encode(errors="surrogatepass")
            digest.update(len(key).to_bytes(8, "little") + key)
        return digest.hexdigest()

    @property
    def wanted(self) -> list[Any]:
        """The items that are not repeated."""
        return [item for item in self.items if not item.repeated]

    def without_rows(self) -> Shard:
        """The same for a worker, which does not need the rows."""
        return replace(self, rows=())


def shards_of(items: Iterable[tuple[Any, Any]], size: int) -> Iterator[Shard]:
    """Pairs of item and row as shards of `size` of them, the last of fewer."""
    pairs = iter(items)
    for index, part in enumerate(iter(lambda: list(islice(pairs, size)), [])):
        yield Shard(index, tuple(item for item, _ in part), tuple(row for _, row in part))


def in_order(finished: Iterable[tuple[Shard, Values]]) -> Iterator[tuple[Shard, Values]]:
    """Shards that come as each is finished, in the order in which they lie in the input."""
    waiting: dict[int, tuple[Shard, Values]] = {}
    turn = 0
    for shard, values in finished:
        waiting[shard.index] = shard, values
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


class RecordedFolder:
    """A folder of finished work with a record of the settings that it depends on; made when something is written.

    Raises K2DError if the folder holds work that was done with other settings, naming these, or is something else.
    """

    def __init__(self, folder: str | Path, *, settings: Mapping[str, Any]) -> None:
        self.folder = os.fspath(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._recorded = self._check()

    def record(self) -> None:
        """Write the record, if it is not there yet: to be called before anything else is written."""
        if not self._recorded:
            about = {"k2d_hf": __version__, "versions": engine_versions(), "settings": self.settings}
            write_atomic(f"{self.folder}/{RECORD}", (json.dumps(about, ensure_ascii=False, indent=2) + "\n").encode())
            self._recorded = True

    def _check(self) -> bool:
        """Whether there is a record; one of other settings is an error."""
        path = f"{self.folder}/{RECORD}"
        try:
            with open_to_read(path) as file:
                record = json.loads(file.read())
            theirs = dict(record["settings"])
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise K2DError(f"{self.folder}: a file, where a folder for finished work is expected") from None
        except (OSError, ValueError, KeyError, TypeError):
            raise K2DError(f"{path}: cannot be read; delete {self.folder} to start anew") from None
        names = sorted(name for name in {**theirs, **self.settings} if theirs.get(name) != self.settings.get(name))
        if not names:
            return True
        changed = ", ".join(f"{name} {theirs.get(name)!r}, now {self.settings.get(name)!r}" for name in names)
        raise K2DError(
            f"{self.folder} holds work that was done with other settings ({changed}): delete it to start anew"
        )


class ShardFolder(RecordedFolder):
    """The finished shards of one stage with one set of settings, each a Parquet file.

    `schema` has the columns of a result beside those of every file (`key`, `reason`, `detail`, `seconds`).
    """

    def __init__(self, folder: str | Path, schema: pyarrow.Schema, *, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings=settings)
        self.schema = schema
        self._read: set[str] = set()  # files that this run has looked up

    def read(self, shard: Shard) -> Values | None:
        """Results of a finished shard by key of the item; None if it is not finished."""
        name = f"{shard.key}{ENDING}"
        self._read.add(name)
        rows = self._rows(name)
        return None if rows is None else {row.pop("key"): row for row in rows}

    def has(self, key: str) -> bool:
        """Whether there is a file of a shard of that key."""
        return exists(f"{self.folder}/{key}{ENDING}")

    def known(self, shard: Shard) -> Values:
        """Results for items of a shard that is not there, from shards cut otherwise: before the input was changed."""
        wanted = {item.key for item in shard.wanted}
        names = {self._elsewhere[key] for key in wanted & self._elsewhere.keys()}
        rows = (row for name in names for row in self._rows(name) or () if row["key"] in wanted)
        return {row.pop("key"): row for row in rows}

    def write(self, shard: Shard, values: Values) -> None:
        """Write a finished shard atomically; K2DError if the disk is full."""
        import pyarrow
        from pyarrow import parquet

        self.record()
        rows = [{"key": item.key, **values[item.key]} for item in shard.wanted]
        buffer = io.BytesIO()
        about = {"k2d_hf": __version__, "versions": json.dumps(engine_versions())}
        parquet.write_table(pyarrow.Table.from_pylist(rows, self._full_schema).replace_schema_metadata(about), buffer)
        write_atomic(f"{self.folder}/{shard.key}{ENDING}", buffer.getvalue())

    def _rows(self, name: str) -> list[dict[str, Any]] | None:
        from pyarrow import ArrowException, parquet

        try:
            with open_to_read(f"{self.folder}/{name}") as file:
                content = file.read()
        except FileNotFoundError:
            return None
        try:
            return parquet.read_table(io.BytesIO(content), schema=self._full_schema).to_pylist()
        except (ArrowException, OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            logger.warning("%s/%s: skipped a damaged shard (%s); its work is done again", self.folder, name, reason)
            return None

    @property
    def _full_schema(self) -> pyarrow.Schema:
        import pyarrow

        texts = [(name, pyarrow.string()) for name in ("key", "reason", "detail")]
        return pyarrow.schema([*texts, ("seconds", pyarrow.float64()), *self.schema])

    @cached_property
    def _elsewhere(self) -> dict[str, str]:
        """The file of each item in shards that this run has not looked up so far; read when first needed."""
        from pyarrow import ArrowException, parquet

        found: dict[str, str] = {}
        for path in files_below(self.folder, ENDING):
            name = path.rsplit("/", 1)[-1]
            if name in self._read:
                continue
            with suppress(ArrowException, OSError, ValueError), open_to_read(path) as file:  # reading it warns
                keys = parquet.read_table(io.BytesIO(file.read()), columns=["key"])["key"].to_pylist()
                found |= dict.fromkeys(keys, name)
        return found


class NoFolder(ShardFolder):
    """A folder that keeps no shard."""

    def __init__(self) -> None:
        self.folder, self.settings = "", {}

    def read(self, shard: Shard) -> Values | None:
        """None: it is not finished."""
        return None

    def known(self, shard: Shard) -> Values:
        """Nothing is known."""
        return {}

    def write(self, shard: Shard, values: Values) -> None:
        """Nothing is kept."""


def engine_versions() -> dict[str, str]:
    """Versions of the installed packages that make the results."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("torch", "transformers", "faster-whisper", "ctranslate2"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
