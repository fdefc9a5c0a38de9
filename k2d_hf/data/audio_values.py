"""The forms of audio in a column of a data set: a path, the bytes of a file, or samples of whatever type."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import error_message, quote

DEPTHS = (16, 24, 32)  # bits that samples of no type of their own may have


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
    """The audio in a value of a column; None where it has none, K2DError where it is something else.

    Args:
        value: a path, the bytes of a file, or a mapping with `array` and `sampling_rate`, with `bytes`, or with `path`.
        where: for errors, such as `the data set, row 3`.
        kind: type of samples, where the data set has one for them.
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
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if value is not None and not isinstance(value, str):
        raise K2DError(f"{where}: {type(value).__name__} is no audio; give a path, or the bytes of a file")
    return SoundPath(value) if value else None


def float_samples(values: Any, *, kind: str | None, where: str) -> np.ndarray:
    """Samples as float32 [samples] or [samples, channels].

    Whole numbers are scaled by their type, as a WAV has them: int16 by 2 ** 15, uint8 around 128. Python's own, and
    int64, which is what data sets make of them, have the fewest of 16, 24 and 32 bits that hold them. Numbers with a
    fraction stay as they are.

    Args:
        values: an array or nested lists, [samples], [channels, samples] or [samples, channels]: there are more samples.
        kind: name of the type that the data set has for them, such as `int16`; None takes that of the array.
        where: for errors, such as `the data set, row 3`.

    Raises:
        K2DError: if they are no numbers, or in no such order.
    """
    try:
        given = np.asarray(values)
        typed = given if kind is None or given.size == 0 else given.astype(kind)
    except (TypeError, ValueError) as error:
        raise K2DError(
            f"{where}: samples that are no array ({error_message(error)}); give [samples] of numbers"
        ) from None
    if typed.dtype.kind not in "iuf" or typed.ndim not in (1, 2):
        raise K2DError(f"{where}: an array of {typed.dtype} with {typed.ndim} dimensions; give [samples] of numbers")
    samples = typed if typed.dtype.kind == "f" else _scaled(typed)
    samples = samples.astype(np.float32, copy=False)
    return samples.T if samples.ndim == 2 and samples.shape[0] < samples.shape[1] else samples


def _scaled(samples: np.ndarray) -> np.ndarray:
    bits = 8 * samples.dtype.itemsize
    if bits > DEPTHS[-1]:
        largest = max(-int(samples.min()), int(samples.max())) if samples.size else 0
        bits = next((depth for depth in DEPTHS if largest <= 2 ** (depth - 1)), bits)
    elif samples.dtype.kind == "u":
        samples = samples.astype(np.float64) - 2 ** (bits - 1)
    return samples / 2.0 ** (bits - 1)


def undecoded(rows: Any) -> Any:
    """The rows of a `Dataset` or `IterableDataset` with their audio as bytes or path.

    `datasets` decodes with torchcodec, and without it not even the first row can be read.
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
