"""Reads the model.bin of a CTranslate2 model: named arrays, some quantised, some aliases of others.

Part of where checkpoints come from; the names in a Whisper file are read in `conversion.py`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote, short_name

# Type ids of the format, in its order. numpy has no bfloat16: its bits are kept as uint16, which the format never has.
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, np.uint16)
_FIRST_BINARY_VERSION, _LAST_BINARY_VERSION = 4, 6  # every Whisper file; the array header changed at 4
_SCALE = "_scale"
_MOST_DIMENSIONS = 4


@dataclass(frozen=True)
class CTranslate2File:
    """The contents of a model.bin; arrays stay on disk until they are read."""

    path: Path
    spec: str
    variables: Mapping[str, np.ndarray]
    aliases: Mapping[str, str]

    def array_names(self) -> Iterator[str]:
        """Names of all arrays, aliases included; scales and scalar settings are left out."""
        for name in (*self.variables, *self.aliases):
            stored = self.variables.get(self.aliases.get(name, name))
            if stored is not None and stored.ndim > 0 and not name.endswith(_SCALE):
                yield name

    def array(self, name: str) -> np.ndarray:
        """The array `name` as float32, with its quantisation undone (value = stored / scale, a scale a row or one).

        K2DError if it is missing, quantised in a way that has no plain inverse, or not of finite numbers.
        """
        name = self.aliases.get(name, name)
        stored = self._stored(name)
        values = stored.astype(np.float32)
        if stored.dtype == np.uint16:
            values = (stored.astype(np.uint32) << 16).view(np.float32)
        if np.issubdtype(stored.dtype, np.signedinteger):
            scale = self._stored(name + _SCALE).astype(np.float32)
            if stored.dtype == np.int32 or scale.shape not in ((), stored.shape[:1]):
                found = f"quantised as {stored.dtype} with scales {scale.shape}"
                raise K2DError(f"{self.path}: {short_name(name)} is {found}: not supported")
            with np.errstate(all="ignore"):
                values /= scale.reshape(scale.shape + (1,) * (stored.ndim - 1) if scale.ndim else ())
        if not np.isfinite(values).all():
            raise K2DError(f"{self.path}: {short_name(name)} holds NaN or infinity; download or copy the file again")
        return values

    def setting(self, name: str) -> int:
        """The scalar setting `name`, such as `encoder/num_heads`; K2DError if it is missing or no whole number."""
        stored = self._stored(name)
        if stored.size != 1 or not np.issubdtype(stored.dtype, np.integer):
            raise K2DError(f"{self.path}: {short_name(name)} is no whole number; download or copy the file again")
        return int(stored.reshape(())[()])

    def _stored(self, name: str) -> np.ndarray:
        if name not in self.variables:
            raise K2DError(
                f"{self.path}: no variable {short_name(name)}; convert the model again with a recent CTranslate2"
            )
        return self.variables[name]


def read_ctranslate2(path: Path) -> CTranslate2File:
    """Read header and table of arrays of a CTranslate2 `model.bin`; K2DError if it is missing, truncated or another."""
    if not path.is_file() or path.stat().st_size == 0:
        raise K2DError(f"{path}: missing or empty; give a folder with the model.bin of a CTranslate2 model")
    cursor = _Cursor(path)
    version = cursor.integer("I")
    if not _FIRST_BINARY_VERSION <= version <= _LAST_BINARY_VERSION:
        raise K2DError(f"{path}: not a CTranslate2 model that can be read here (version {version}, known: 4 to 6)")
    spec = cursor.string()
    cursor.integer("I")  # revision of the spec: what matters is which arrays are there
    variables = dict(cursor.variable() for _ in range(cursor.integer("I")))
    aliases = {cursor.string(): cursor.string() for _ in range(cursor.integer("I"))}
    return CTranslate2File(path, spec, variables, aliases)


class _Cursor:
    """Walks through the bytes of the file and never past their end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content = np.memmap(path, dtype=np.uint8, mode="r")
        self.position = 0

    def take(self, count: int) -> np.ndarray:
        end = self.position + count
        if end > len(self.content):
            raise K2DError(f"{self.path}: truncated at {len(self.content)} bytes; download or copy it again")
        begin, self.position = self.position, end
        return self.content[begin:end]

    def integer(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)).tobytes())[0]

    def string(self) -> str:
        return self.take(self.integer("H")).tobytes().rstrip(b"\0").decode("utf-8", errors="replace")

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.string()
        shape = tuple(self.integer("I") for _ in range(self.integer("B")))
        type_id, size = self.integer("B"), self.integer("I")
        # An array without elements may claim any shape, for which any amount of memory would be allocated.
        sensible = type_id < len(_TYPES) and len(shape) <= _MOST_DIMENSIONS and size > 0
        if not sensible or size != math.prod(shape) * np.dtype(_TYPES[type_id]).itemsize:
            raise K2DError(f"{self.path}: variable {quote(name)} is damaged; download or copy the file again")
        return name, self.take(size).view(_TYPES[type_id]).reshape(shape)
