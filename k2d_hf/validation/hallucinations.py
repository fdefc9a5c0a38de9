"""Subtitle credits and ends of videos, which Whisper writes where nobody speaks: how much of a label is one of those.

The phrases are data, a file for each language, with their sources. They are looked for in labels of any language:
Whisper ends a Mandarin lecture with English ones, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote
from k2d_hf.scoring.text import mixed_tokens

ANYTHING = "*"  # in a phrase: up to so many tokens, such as a name
LONGEST_NAME = 12


def hallucinated_share(row: Mapping[str, Any], phrases: Sequence[str] = ()) -> float:
    """The largest share of a segment of a chunk, or of its whole label, that is a known hallucination.

    A segment is a line that Whisper wrote by itself, with times: one that is nothing else was made up, whatever the
    rest of the chunk, and the student would learn to make it up, too. Within a longer line the same words may be said.

    Args:
        row: with `text`, and where they are known `segments` with `text`.
        phrases: more of them, beside those of this package; `*` stands for up to 12 tokens.

    Returns:
        0 to 1, over mixed tokens; 0 where there are none.
    """
    texts = dict.fromkeys([*(segment["text"] for segment in row.get("segments") or ()), row["text"]])
    pattern = _pattern(tuple(phrases))
    return max(_share(text, pattern) for text in texts)


def checked_phrases(phrases: str | Sequence[str] | None) -> list[str] | None:
    """Phrases as a list; K2DError for one that has no word, which would be found everywhere."""
    if phrases is None:
        return None
    listed = [phrases] if isinstance(phrases, str) else list(phrases)
    for phrase in listed:
        if not isinstance(phrase, str) or set(_tokens(phrase)) <= {ANYTHING}:
            raise K2DError(f"known_phrases: {quote(phrase)} has no word; write a phrase, in which * stands for a name")
    return listed


def _share(text: str, pattern: re.Pattern[str]) -> float:
    tokens = mixed_tokens(text)
    found = sum(match.group().count(" ") for match in pattern.finditer("".join(f"{token} " for token in tokens)))
    return found / len(tokens) if tokens else 0.0


@lru_cache(maxsize=16)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern of all phrases, over tokens with a blank behind each; of those that begin alike the longest."""
    known = {tuple(_tokens(phrase)) for phrase in (*_built_in(), *phrases)}
    return re.compile(r"(?<!\S)(?:" + "|".join(map(_expression, sorted(known, key=len, reverse=True))) + ")")


def _expression(tokens: Sequence[str]) -> str:
    lazily = "".join(rf"(?:\S+ ){{0,{LONGEST_NAME}}}?" if one == ANYTHING else re.escape(one) + " " for one in tokens)
    return lazily.removesuffix("?") if tokens[-1] == ANYTHING else lazily


def _tokens(phrase: str) -> list[str]:
    first, *rest = phrase.split(ANYTHING)
    return [*mixed_tokens(first), *(token for part in rest for token in (ANYTHING, *mixed_tokens(part)))]


@lru_cache(maxsize=1)
def _built_in() -> tuple[str, ...]:
    """The phrases of this package."""
    folder = files("k2d_hf.validation").joinpath("data")
    lists = [one for one in folder.iterdir() if one.name.startswith("hallucinations.")]
    lines = [line.strip() for one in lists for line in one.read_text(encoding="utf-8").splitlines()]
    return tuple(sorted({line for line in lines if line and not line.startswith("#")}))
