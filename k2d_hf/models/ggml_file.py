"""Writes the model file of whisper.cpp: sizes, mel filters, vocabulary and named tensors, some of them quantised.

Part of where checkpoints go to; `exports/ggml_format.py` says which tensor of a checkpoint is which of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

MAGIC = 0x67676D6C  # "ggml"
BLOCK = 32  # values with a step of their own in a quantised row
_QUANTIZATION_VERSION = 2000  # version 2 of the blocks' layout, as the file type has it


@dataclass(frozen=True)
class NumberFormat:
    """How the file holds numbers."""

    name: str
    file_type: int  # of the whole file: how its matrices are held
    tensor_type: int  # of one tensor
    blocks: bool = False  # whether it is quantised, in blocks of `BLOCK`


F32 = NumberFormat("f32", 0, 0)
F16 = NumberFormat("f16", 1, 1)
Q8_0 = NumberFormat("q8_0", _QUANTIZATION_VERSION + 7, 8, blocks=True)
Q5_0 = NumberFormat("q5_0", _QUANTIZATION_VERSION + 8, 6, blocks=True)
NUMBER_FORMATS = {
    one.name: one for one in (F16, Q8_0, Q5_0)
}  # of whole files: whisper.cpp stops at convolutions in f32


def write_head(
    out: BinaryIO, sizes: Sequence[int], numbers: NumberFormat, filters: np.ndarray, tokens: Sequence[bytes]
) -> None:
    """Write what is before the tensors.

    `sizes` are the ten of the format, `filters` the mel filters as (mel bins, frequencies) of float32, `tokens` the
    vocabulary without special tokens, in the order of ids: the reader counts them, and adds the special ones itself.
    """
    out.write(struct.pack("<12i", MAGIC, *sizes, numbers.file_type))
    out.write(struct.pack("<2i", *filters.shape) + filters.astype("<f4").tobytes())
    out.write(struct.pack("<i", len(tokens)))
    for token in tokens:
        out.write(struct.pack("<i", len(token)) + token)


def write_tensor(
    out: BinaryIO, name: str, shape: Sequence[int], numbers: NumberFormat, rows: Iterable[np.ndarray]
) -> None:
    """Write one tensor of this shape, its rows (along the first dimension) some at a time, as float32."""
    known = name.encode()
    out.write(struct.pack("<3i", len(shape), len(known), numbers.tensor_type))
    out.write(struct.pack(f"<{len(shape)}i", *reversed(shape)) + known)
    for some in rows:
        out.write(encoded(some, numbers))


def encoded(values: np.ndarray, numbers: NumberFormat) -> bytes:
    """The bytes of float32 values; for a quantised format the last dimension is a multiple of `BLOCK`."""
    if not numbers.blocks:
        return values.astype("<f4" if numbers == F32 else "<f2").tobytes()
    blocks = values.reshape(-1, BLOCK).astype(np.float32)
    return (_q8_0(blocks) if numbers == Q8_0 else _q5_0(blocks)).tobytes()


def _q8_0(blocks: np.ndarray) -> np.ndarray:
    """A block as its step in float16 and 32 integers: value = step * integer."""
    steps = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    scaled = np.abs(blocks * _inverse(steps))
    whole = np.floor(scaled)
    integers = np.copysign(whole + np.floor(2 * (scaled - whole)), blocks)  # halves away from zero
    return np.concatenate([_as_bytes(steps, "<f2"), _as_bytes(integers, "i1")], axis=1)


def _q5_0(blocks: np.ndarray) -> np.ndarray:
    """A block as its step in float16, the fifth bit of 32 integers, and their other four: value = step * (n - 16).

    The value that is farthest from zero is n = 0, whatever its sign; one as far on the other side is cut by a step.
    """
    farthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    steps = farthest / np.float32(-16)
    numbers = np.trunc(blocks.astype(np.float64) * _inverse(steps) + 16.5).clip(0, 31).astype(np.uint8)
    first, second = numbers[:, : BLOCK // 2], numbers[:, BLOCK // 2 :]
    fifth = np.packbits(numbers >> 4, axis=1, bitorder="little")
    return np.concatenate([_as_bytes(steps, "<f2"), fifth, (first & 15) | (second << 4)], axis=1)


def _inverse(steps: np.ndarray) -> np.ndarray:
    """1 / step, 0 where the whole block is 0."""
    return np.divide(1, steps, out=np.zeros_like(steps), where=steps != 0)


def _as_bytes(values: np.ndarray, dtype: str) -> np.ndarray:
    return np.ascontiguousarray(values.astype(dtype)).view(np.uint8)
