"""Samples in a data set's rows as float32 between -1 and 1, whatever type they have there (K2D, before stage 1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import error_message

DEPTHS = (16, 24, 32)  # bits that samples of no type of their own may have


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
        largest = max((abs(int(edge)) for edge in (samples.min(), samples.max())), default=0) if samples.size else 0
        bits = next((depth for depth in DEPTHS if largest <= 2 ** (depth - 1)), bits)
    elif samples.dtype.kind == "u":
        samples = samples.astype(np.float64) - 2 ** (bits - 1)
    return samples / 2.0 ** (bits - 1)
