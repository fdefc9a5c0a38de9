"""What all map steps share: a batch of rows in any form, and how a step is pickled and fingerprinted.

A map step is a callable for `Dataset.map(batched=True)`, `IterableDataset.map` and Ray's `map_batches`. It goes to
another process as its settings, never as a model; these and the identity of its models are its fingerprint too, so that
the cache of `datasets` hits for as long as nothing changed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_schema import known_features, rows_of
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import table_of
from k2d_hf.files.keywords import with_arguments
from k2d_hf.version import __version__

if TYPE_CHECKING:
    import pyarrow
    from datasets import Features

_IMPORTED_BY = os.getpid()  # in a forked process it is that of another


@dataclass(frozen=True)
class Batch:
    """Rows that came together."""

    columns: dict[str, list[Any]]  # values by name, with audio as bytes or path
    features: Features | None  # types of the columns, where they are known
    # The same as Arrow has them, where a table is the answer too; its types are those of the contract, while `datasets`
    # would take a column that is null in the first batch for one without a type.
    table: pyarrow.Table | None

    def rows(self) -> list[dict[str, Any]]:
        """The rows one by one."""
        return list(rows_of(self.columns))

    def renamed(self, names: Mapping[str, str]) -> Batch:
        """The same with other names for some columns."""
        columns = {names.get(name, name): values for name, values in self.columns.items()}
        table = None if self.table is None else self.table.rename_columns(list(columns))
        return Batch(columns, self.features, table)

    def replaced(self, rows: Sequence[Mapping[str, Any]], features: Features) -> Any:
        """An answer of other rows, however many."""
        columns = {name: [row[name] for row in rows] for name in features}
        return columns if self.table is None else table_of(columns, features).replace_schema_metadata(None)

    def remade(self, rows: Sequence[Mapping[str, Any]], features: Features) -> Any:
        """An answer of other rows, however many, with the columns that came and those of `features`."""
        if self.table is None:
            return {name: [row[name] for row in rows] for name in dict.fromkeys([*self.columns, *features])}
        known = type(features).from_arrow_schema(self.table.schema) if self.features is None else self.features
        return self.replaced(rows, type(features)({**known, **features}))

    def extended(self, columns: Mapping[str, Sequence[Any]], features: Features, *, without: Sequence[str] = ()) -> Any:
        """An answer of the same rows with `columns` added or replaced; a table also loses the columns `without`."""
        if self.table is None:
            return {**self.columns, **columns}
        kept = self.table.drop_columns([name for name in self.table.column_names if name in {*without, *features}])
        for field, column in zip(features.arrow_schema, table_of(columns, features).columns, strict=True):
            kept = kept.append_column(field, column)
        return kept.replace_schema_metadata(None)  # the features in it are those of the rows before


def batch_of(given: Any) -> Batch:
    """A batch as `datasets` or Ray hands it to a function; nothing is decoded. K2DError if it is a single row."""
    import pyarrow
    from datasets import Features
    from datasets.formatting.formatting import LazyBatch

    if isinstance(given, LazyBatch):  # reading a value of it would decode the audio
        return Batch(given.pa_table.to_pydict(), given.formatter.features, given.pa_table)
    if isinstance(given, pyarrow.Table):
        return Batch(given.to_pydict(), Features.from_arrow_schema(given.schema), given)
    if not isinstance(given, Mapping) or not all(isinstance(values, (list, np.ndarray)) for values in given.values()):
        raise K2DError(f"a map step takes a batch of rows, not {type(given).__name__}: give map batched=True")
    columns = {name: [_bare(value) for value in values] for name, values in given.items()}
    arrays = any(isinstance(values, np.ndarray) for values in given.values())
    return Batch(columns, None, _table(columns, given) if arrays else None)


def _table(columns: Mapping[str, list[Any]], given: Mapping[str, Any]) -> pyarrow.Table:
    """Columns that were arrays as a table, with the types of chunks or else their own."""
    import pyarrow

    kinds = {
        name: pyarrow.from_numpy_dtype(values.dtype)
        for name, values in given.items()
        if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf"
    }
    kinds |= {field.name: field.type for field in known_features(columns).arrow_schema}
    return pyarrow.table({name: pyarrow.array(values, kinds.get(name)) for name, values in columns.items()})


def _bare(value: Any) -> Any:
    """A value without numpy, and audio that `datasets` would decode in its stored form."""
    if isinstance(value, Mapping):
        return {name: _bare(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bare(part) for part in value]
    if isinstance(value, np.ndarray):
        return [_bare(part) for part in value] if value.ndim else _bare(value[()])
    if isinstance(value, np.generic):
        return None if value != value else value.item()  # in an array of numbers, what was null is NaN
    return getattr(value, "_hf_encoded", value)


class MapStep(ABC):
    """A callable on a batch of rows that loads its models when it is first called, in the process that calls it.

    Args:
        settings: dataclass of the stage's settings, with a `device`.
        given: what else the step was made with, by the name of the argument.
    """

    def __init__(self, settings: Any, **given: Any) -> None:
        self.settings = settings
        self._given = given
        self._loaded: list[str | None] | None = None  # fingerprints of the models when they were loaded

    def __init_subclass__(cls) -> None:
        """Describe the settings that the constructor takes (`files.keywords`) in the text of the class."""
        if arguments := getattr(cls.__init__, "arguments", None):
            cls.__doc__ = with_arguments(cls.__doc__, arguments)

    @abstractmethod
    def identities(self) -> list[str | None]:
        """Fingerprints of the models as they are now."""

    @abstractmethod
    def load(self, device: str) -> None:
        """Make ready to work on that device; the models may load later."""

    @abstractmethod
    def unload(self) -> None:
        """Forget the models, which have changed."""

    def ready(self, rank: int | None) -> None:
        """Load the models, if that was not done yet; of several processes each has the GPU of its rank."""
        if self._loaded is None:
            if os.getpid() != _IMPORTED_BY:
                import torch

                torch.set_num_threads(1)  # of a forked process; more of them deadlock, and there are other processes
            self._loaded = self.identities() if self._is_portable() else []
            self.load(_device_of(self.settings.device, rank))

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings and identity of the models: for another process, and as the key of caches."""
        if not self._is_portable():
            raise K2DError("a loaded model stays in its process, and has no cache: give the map step a checkpoint")
        now = self.identities()
        if self._loaded is not None and now != self._loaded:
            self.unload()
            self._loaded = None
        given = {name: _portable(value) for name, value in self._given.items()}
        return _made, (type(self), {**given, "settings": self.settings}, __version__, now)

    def _is_portable(self) -> bool:
        return all(_portable(value) is not NotImplemented for value in self._given.values())


def _made(kind: Any, given: Mapping[str, Any], version: str, identities: Sequence[str]) -> Any:
    """A step in another process; version and identities only serve the fingerprint."""
    return kind(**given)


def _portable(value: Any) -> Any:
    """An argument as it travels; `NotImplemented` for a loaded model, or several with one among them."""
    if isinstance(value, (list, tuple)):
        portable = [_portable(one) for one in value]
        return NotImplemented if any(one is NotImplemented for one in portable) else portable
    if isinstance(value, Path):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else NotImplemented


def _device_of(device: str, rank: int | None) -> str:
    """The device of a process: with a rank, one GPU after the other."""
    import torch

    if rank is None or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    return f"cuda:{rank % torch.cuda.device_count()}"
