"""A whole CTranslate2 Whisper of a few kilobytes, in parts that the faults of a hostile file are made in."""

import functools
import struct
from dataclasses import dataclass, field

import numpy as np

WIDTH, MEL_BINS, POSITIONS, HEADS = 4, 4, 50, 2
TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, np.uint16)
SPECIAL = (
    "endoftext",
    "startoftranscript",
    "translate",
    "transcribe",
    "startoflm",
    "startofprev",
    "nospeech",
    "notimestamps",
)


def tokenizer_json() -> dict:
    """An English-only Whisper's tokenizer with a vocabulary of a few letters."""
    vocabulary = {letter: index for index, letter in enumerate(["Ġ", "a", "b", "c", "ab", "Ġa"])}
    added = [f"<|{name}|>" for name in SPECIAL]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": len(vocabulary) + i, "content": name, **flags} for i, name in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocabulary,
            "merges": [["a", "b"], ["Ġ", "a"]],
        },
    }


TOKENS = 6 + len(SPECIAL)
CONFIG = {"suppress_ids": [1, 2], "suppress_ids_begin": [0, 6], "alignment_heads": [[0, 1]], "lang_ids": [3]}


@dataclass
class Array:
    """A variable of the file: what it says of itself need not be so."""

    name: str
    content: bytes
    shape: list[int]
    type_id: int
    size: int | None = None
    rank: int | None = None

    def written(self) -> bytes:
        name = self.name.encode("utf-8", "surrogatepass")[:65534] + b"\0"
        rank = len(self.shape) if self.rank is None else self.rank
        shape = b"".join(struct.pack("<I", side % 2**32) for side in self.shape)
        size = len(self.content) if self.size is None else self.size
        return (
            struct.pack("<H", len(name)) + name + struct.pack("<B", rank % 256) + shape
            + struct.pack("<BI", self.type_id % 256, size % 2**32) + self.content
        )  # fmt: skip


@dataclass
class Model:
    """A model.bin before it is written."""

    arrays: list[Array]
    aliases: list[tuple[str, str]] = field(default_factory=list)
    spec: str = "WhisperSpec"
    version: int = 6
    arrays_said: int | None = None
    aliases_said: int | None = None

    def written(self) -> bytes:
        def text(value: str) -> bytes:
            encoded = value.encode("utf-8", "surrogatepass")[:65534] + b"\0"
            return struct.pack("<H", len(encoded)) + encoded

        counts = [
            struct.pack("<I", (len(held) if said is None else said) % 2**32)
            for held, said in ((self.arrays, self.arrays_said), (self.aliases, self.aliases_said))
        ]
        head = struct.pack("<I", self.version % 2**32) + text(self.spec) + struct.pack("<I", 3)
        arrays = b"".join(array.written() for array in self.arrays)
        return head + counts[0] + arrays + counts[1] + b"".join(text(name) for pair in self.aliases for name in pair)


@functools.cache
def valid() -> Model:
    """A whole Whisper with one layer on each side, a handful of tokens, and some arrays of whole numbers."""
    chance = np.random.default_rng(0)
    arrays: list[Array] = []

    def add(name: str, *shape: int, quantised: bool = False) -> None:
        if quantised:
            values = chance.integers(-127, 128, shape).astype(np.int8)
            arrays.append(Array(name, values.tobytes(), list(shape), 1))
            scales = np.full(shape[0], 100.0, np.float32)
            arrays.append(Array(f"{name}_scale", scales.tobytes(), [shape[0]], 0))
        else:
            arrays.append(Array(name, chance.normal(size=shape).astype(np.float32).tobytes(), list(shape), 0))

    def linear(name: str, rows: int, columns: int, quantised: bool = False) -> None:
        add(f"{name}/weight", rows, columns, quantised=quantised)
        add(f"{name}/bias", rows)

    def norm(name: str) -> None:
        add(f"{name}/gamma", WIDTH)
        add(f"{name}/beta", WIDTH)

    for name, side in (("conv1", MEL_BINS), ("conv2", WIDTH)):
        add(f"encoder/{name}/weight", WIDTH, side, 3)
        add(f"encoder/{name}/bias", WIDTH)
    add("encoder/position_encodings/encodings", POSITIONS, WIDTH)
    add("decoder/position_encodings/encodings", 16, WIDTH)
    add("decoder/embeddings/weight", TOKENS, WIDTH)
    for side in ("encoder", "decoder"):
        norm(f"{side}/layer_norm")
        attentions = (
            {"self_attention": (3, 1)} if side == "encoder" else {"self_attention": (3, 1), "attention": (1, 2, 1)}
        )
        for attention, parts in attentions.items():
            norm(f"{side}/layer_0/{attention}/layer_norm")
            for index, count in enumerate(parts):
                linear(f"{side}/layer_0/{attention}/linear_{index}", count * WIDTH, WIDTH, quantised=index == 0)
        norm(f"{side}/layer_0/ffn/layer_norm")
        linear(f"{side}/layer_0/ffn/linear_0", 2 * WIDTH, WIDTH)
        linear(f"{side}/layer_0/ffn/linear_1", WIDTH, 2 * WIDTH)
        arrays.append(Array(f"{side}/num_heads", struct.pack("<h", HEADS), [], 2))
    return Model(arrays, [("decoder/projection/weight", "decoder/embeddings/weight")])
