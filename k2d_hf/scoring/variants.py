"""Variants of Han characters that Traditional to Simplified leaves apart: 妳 and 你, 甚麼 and 什麼, 著 where it is 着.

Part of the one tokenisation: a sentence of Taiwan is the mainland's, character by character. The table is data, with
its sources.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_ENTRY = re.compile(r"([^][\s]+)\[([^]]+)\]")


class _Table(NamedTuple):
    gate: re.Pattern[str]  # finds a character without which nothing is to be folded
    characters: Mapping[int, str]
    words: re.Pattern[str]
    targets: Mapping[str, str]  # of what `words` matches
    zhu: re.Pattern[str]  # words in which 着 is 著, as a group, and such as only look like them


def fold_variants(text: str) -> str:
    """`text`, which is Simplified but for what OpenCC leaves, with one character or spelling for each variant.

    The same whichever of 著 and 着 it has: 著 stays, or comes back, in words where it is read zhù (著作, 显著).
    """
    table = _table()
    if not table.gate.search(text):
        return text
    text = table.words.sub(lambda match: table.targets[match.group()], text.translate(table.characters))
    if "着" not in text:
        return text
    return table.zhu.sub(lambda match: match[0].replace("着", "著") if match.lastindex else match[0], text)


@cache
def _table() -> _Table:
    sections = _sections()
    characters = {ord("著"): "着"}
    for target, variants in _ENTRY.findall(sections["characters"]):
        characters |= dict.fromkeys(map(ord, variants), target)
    targets = {
        variant: target for target, variants in _ENTRY.findall(sections["words"]) for variant in variants.split()
    }
    odd = {character for variant, target in targets.items() for character in set(variant) - set(target)}
    basic = "".join(character for character in (*map(chr, characters), *odd) if character <= "\uffff")
    zhu = sections["zhu"].replace("著", "着").split()
    return _Table(
        # What lies beyond the Basic Plane comes as one range: each alone would be compared with every character.
        gate=re.compile(f"[着{basic}\U00020000-\U0003ffff]"),
        characters=characters,
        words=re.compile(_any_of(targets)),
        targets=targets,
        zhu=re.compile(f"{_any_of(sections['zhe'].split())}|({_any_of(zhu)})"),
    )


def _any_of(words: Iterable[str]) -> str:
    """A pattern: of words that begin alike the longest."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))


def _sections() -> dict[str, str]:
    """The table's text by the headings above it, without comments."""
    text = files("k2d_hf.scoring").joinpath("data", "han_variants.txt").read_text(encoding="utf-8")
    _, *parts = re.split(r"(?m)^\[(\w+)\]$", re.sub("(?m)^#.*", "", text))
    return dict(zip(parts[::2], parts[1::2], strict=True))
