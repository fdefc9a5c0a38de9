"""How fast a label would have been spoken: text that nobody can say in the time it is given is no label.

Goes beyond the paper: the teacher's timestamps are learned too, and a long text in a moment is wrong in one of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex

from k2d_hf.models.whisper_tokens import TIMESTAMP_SECONDS
from k2d_hf.scoring.text import mixed_runs, split_runs

SYLLABLES_OF_A_WORD = 2  # or of a number: 15 Han characters a second are as many syllables as 7.5 words
_ONE_CHARACTER = regex.compile(r"\X")


def spoken_syllables(text: str) -> int:
    """Syllables of `text`, roughly, and the same for every mixture of scripts.

    By mixed tokens: one of a single character (Han, kana, Hangul, a letter, a digit) counts as one syllable, any other
    word or number as two. Punctuation is not spoken.
    """
    return sum(map(_syllables, split_runs(mixed_runs(text))))


@lru_cache(maxsize=1 << 16)
def _syllables(token: str) -> int:
    return 1 if _ONE_CHARACTER.fullmatch(token) else SYLLABLES_OF_A_WORD


def speaking_rate(row: Mapping[str, Any]) -> float:
    """The highest rate at which a segment of a chunk, or the whole of it, would have been spoken.

    Args:
        row: with `text` and `duration` (s), and where they are known `segments` with `start`, `end` (s) and `text`.

    Returns:
        Syllables a second. A span may have lasted a step of Whisper's timestamps (0.02 s) longer than they say, so that
        a segment of no duration has a finite rate too: 50 for each of its syllables. 0 where nothing is said.
    """
    spans = [(segment["end"] - segment["start"], segment["text"]) for segment in row.get("segments") or ()]
    return max(_rate(seconds, text) for seconds, text in [*spans, (row["duration"], row["text"])])


def _rate(seconds: float, text: str) -> float:
    lasted = seconds if seconds > 0 else 0.0  # neither backwards nor NaN
    return spoken_syllables(text) / (lasted + TIMESTAMP_SECONDS)
