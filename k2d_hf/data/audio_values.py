"""The forms of audio in a column of a data set: a path, the bytes of a file, or samples."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2d_hf.data.sample_values import float_samples
from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote


@dataclass(frozen=True)
class SoundPath:
    """A file, by path or address."""

    path: str


@dataclass(frozen=True)
class SoundBytes:
    """The content of an audio file, and the name that the file had, if any."""

    content: bytes
    path: str | None


@dataclass(frozen=True)
class Samples:
    """Samples, float32 [samples] or [samples, channels], their rate in Hz, and the name of their file, if any."""

    values: np.ndarray
    rate: int
    path: str | None

    @property
    def identity(self) -> bytes:
        """Unique for samples and rate. Not their WAV: libsndfile stamps the time into the header of one of floats."""
        return self.values.tobytes() + str(self.rate).encode()

    def wav(self) -> bytes:
        """The same as a file, without loss."""
        import soundfile

        content = io.BytesIO()
        soundfile.write(content, self.values, self.rate, format="WAV", subtype="FLOAT")
        return content.getvalue()


Sound = SoundPath | SoundBytes | Samples


def sound_in(value: Any, where: str, *, kind: str | None = None) -> Sound | None:
    """The audio in a value of a column; None where it has none.

    Args:
        value: a path, the bytes of a file, or a mapping with `array` and `sampling_rate`, with `bytes`, or with `path`.
        where: for errors, such as `the data set, row 3`.
        kind: type of samples, where the data set has one for them.

    Raises:
        K2DError: if it is something else.
    """
    if isinstance(value, Mapping):
        path = value.get("path") or None
        if value.get("array") is not None:
            rate = _hertz(value.get("sampling_rate"), where)
            return Samples(float_samples(value["array"], kind=kind, where=where), rate, path)
        if value.get("bytes") is not None:
            return SoundBytes(value["bytes"], path)
        value = path
    if isinstance(value, bytes):
        return SoundBytes(value, None)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is not None and not isinstance(value, str):
        raise K2DError(f"{where}: {type(value).__name__} is no audio; give a path, or the bytes of a file")
    return SoundPath(value) if value else None


def undecoded(rows: Any) -> Any:
    """The same rows with their audio as bytes or path; a data set would decode each row that is read.

    `datasets` decodes with torchcodec, and without it not even the first row can be read.

    Args:
        rows: a `Dataset` or an `IterableDataset`.
    """
    from datasets import Audio, Dataset, Value

    for name, feature in (rows.features or {}).items():
        if not isinstance(feature, Audio):
            continue
        if not isinstance(rows, Dataset):  # a stream would need torchcodec all the same
            rows = rows.cast_column(name, {"bytes": Value("binary"), "path": Value("string")})
        elif feature.decode:
            rows = rows.cast_column(name, Audio(sampling_rate=feature.sampling_rate, decode=False))
    return rows


def _hertz(rate: Any, where: str) -> int:
    number = np.asarray(rate)
    if number.dtype.kind not in "iuf" or number.size != 1 or not 1 <= number.item() < math.inf:
        given = number.item() if number.size == 1 else rate
        raise K2DError(f"{where}: an `array` with the `sampling_rate` {quote(given)}; give it in Hz")
    return int(number.item())
