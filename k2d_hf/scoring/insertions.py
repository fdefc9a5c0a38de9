"""Insertions of a transcript against its reference, by script: English in a Chinese lecture, or Han in an English one.

Error rates hide it: the Mandarin part of a set without Mandarin has no rate, and marks are no tokens at all.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import regex

from k2d_hf.scoring.text import drop_special_tokens, is_han

MARKS = "marks"
LONGEST_ROW = 6
"""Times that a mark, or up to three in turn, may stand in a row: six dots are still an ellipsis (……)."""

_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
_BLANKS_BETWEEN_MARKS = regex.compile(r"(?<=[\p{P}\p{S}])\s++(?=[\p{P}\p{S}])")
_ROW_OF_MARKS = regex.compile(rf"([\p{{P}}\p{{S}}]{{1,3}}?)\1{{{LONGEST_ROW},}}+")


@lru_cache(maxsize=1 << 16)
def script_of(token: str) -> str:
    """The script of a token of `mixed_tokens`: `Han`, `Latin`, `Thai`, ..., `kana` of either kind, or `digits`."""
    if is_han(token):
        return "Han"
    if unicodedata.category(token[0])[0] == "N":
        return "digits"
    name = unicodedata.name(token[0], "other").partition(" ")[0]
    return "kana" if name in _KANA else name.capitalize()


def by_script(tokens: Sequence[str]) -> dict[str, list[str]]:
    """The tokens of each script, in order."""
    parts: dict[str, list[str]] = {}
    for token in tokens:
        parts.setdefault(script_of(token), []).append(token)
    return parts


def marks_in_rows(text: str) -> int:
    """Marks of `text` that stand in a row, the same one to three again and again, more than `LONGEST_ROW` times."""
    marks = _BLANKS_BETWEEN_MARKS.sub("", drop_special_tokens(text))
    return sum(len(match.group()) for match in _ROW_OF_MARKS.finditer(marks))


def added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """Sum of two counts by script."""
    return {script: one.get(script, 0) + other.get(script, 0) for script in {**one, **other}}


def insertions_text(insertions: Mapping[str, int]) -> str:
    """`12 Han, 3 Latin, 223 marks`: the largest first, marks last; empty where nothing was inserted."""
    order = sorted(insertions, key=lambda script: (script == MARKS, -insertions[script], script))
    return ", ".join(f"{insertions[script]:,} {script}" for script in order if insertions[script])
