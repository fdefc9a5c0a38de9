"""Strategies that damage what is valid: bytes of a file, trees of settings, and texts that nobody expects."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

EXTREMES = (
    *(0, 1, -1, 2, 4, 127, 128, 255, 256, 32767, 32768, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**400),
)
NASTY_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "\r\n",
        "a\nb",
        "\t",
        "~",
        "~nobody/x",
        "~\0",
        "..",
        "/",
        "://",
        "\ufeff",
        "\ud800",
        "\udcff",
    ),
    *("\u2028", "\u202e", "\U0010ffff", "é\u0301", "%s", "{}", "nan", "inf", "1e999", "<|endoftext|>", "a" * 300),
    *("b" * 5000, "../" * 2000, "你好 world", "\U0001f600", "None", "true", "-", "a,b", 'a"b', "$HOME", "name"),
)


def one_of_these(values: Sequence[Any]) -> st.SearchStrategy:
    """As `sampled_from`, which writes out all of them wherever it is mentioned."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=40)
TEXTS = st.one_of(one_of_these(NASTY_TEXTS), ANY_TEXT)
NUMBERS = st.one_of(one_of_these(EXTREMES), st.integers(), st.floats())
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=8
)
_DIGITS = re.compile(rb"\d+")


@st.composite
def mutated_bytes(draw: Any, valid: st.SearchStrategy[bytes], *, pieces: Sequence[bytes] = (b"\0",)) -> bytes:
    """Bytes of a valid file with up to five faults: flipped, cut, inserted, repeated, replaced by extreme numbers."""
    content = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        fault = draw(st.sampled_from(("flip", "set", "cut", "drop", "insert", "repeat", "integer", "digits", "move")))
        if fault == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif fault == "set" and content:
            content[at] = draw(st.integers(0, 255))
        elif fault == "cut":
            del content[at:]
        elif fault == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif fault == "insert":
            content[at:at] = draw(st.one_of(one_of_these(pieces), st.binary(max_size=16)))
        elif fault == "repeat":
            part = bytes(content[at : at + draw(st.integers(1, 32))])
            content[at:at] = part * draw(st.sampled_from((1, 2, 3, 100, 1000)))
        elif fault == "integer":
            width = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from(EXTREMES[:-1])) % 256**width
            content[at : at + width] = number.to_bytes(width, draw(st.sampled_from(("little", "big"))))
        elif fault == "digits":
            if numbers := list(_DIGITS.finditer(content)):
                found = draw(st.sampled_from(numbers))
                # Not by `str`, which refuses the longest.
                number = draw(st.sampled_from((b"-1", b"1e999", b"0x" + b"f" * 5000, b"9" * 400, b"9" * 5000, b".nan")))
                content[found.start() : found.end()] = number
        elif fault == "move":
            part = content[at : at + draw(st.integers(1, 64))]
            del content[at : at + len(part)]
            to = draw(st.integers(0, len(content)))
            content[to:to] = part
    return bytes(content)


@st.composite
def mutated_tree(draw: Any, valid: Any, *, values: st.SearchStrategy = VALUES, most: int = 3) -> Any:
    """A copy of a tree of mappings and lists with up to `most` of its nodes replaced, removed, renamed or wrapped."""
    root = [copy.deepcopy(valid)]
    for _ in range(draw(st.integers(0, most))):
        parent: Any = root
        key: Any = 0
        while isinstance(parent[key], (dict, list)) and parent[key] and draw(st.integers(0, 3)):
            parent = parent[key]
            key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
        fault = draw(st.sampled_from(("replace", "replace", "remove", "rename", "wrap", "extreme", "deep")))
        if fault == "remove" and parent is not root:
            del parent[key]
        elif fault == "rename" and isinstance(parent, dict):
            parent[draw(TEXTS)] = parent.pop(key)
        elif fault == "wrap":
            parent[key] = [parent[key]] if draw(st.booleans()) else {draw(TEXTS): parent[key]}
        elif fault == "extreme":
            parent[key] = draw(NUMBERS)
        elif fault == "deep":
            for _ in range(draw(st.sampled_from((3, 30)))):
                parent[key] = [parent[key]]
        else:
            parent[key] = draw(values)
    return root[0]
