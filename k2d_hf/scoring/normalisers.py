"""Normalisers of test sets: our mixed tokens, or the words that Whisper's English normaliser leaves.

Rates of mixed tokens are the method's. Word error rates after Whisper's normaliser (Radford et al., 2022, appendix C)
are what papers and leaderboards on English publish.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import resources

from k2d_hf.errors import K2DError
from k2d_hf.formatting import quote
from k2d_hf.scoring.error_rates import ErrorCounts, count_errors
from k2d_hf.scoring.text import drop_special_tokens

MIXED = "mixed"
WHISPER_ENGLISH = "whisper-english"
NORMALISERS = (MIXED, WHISPER_ENGLISH)


def check_normaliser(name: str) -> None:
    """Raise K2DError where there is no such normaliser."""
    if name not in NORMALISERS:
        raise K2DError(f"normaliser {quote(name)}: there is none of that name; give {' or '.join(NORMALISERS)}")


def english_words(text: str) -> list[str]:
    """The words of a text as the `EnglishTextNormalizer` of transformers leaves them.

    >>> english_words("Mr. Brown's colour isn't £20,000, uh, it's twenty-one.")
    ['mister', 'brown', 'is', 'color', 'is', 'not', '£20000', 'it', 'is', '21']
    """
    return _whisper_english()(drop_special_tokens(text)).split()


def english_word_errors(pairs: Iterable[tuple[str, str]]) -> ErrorCounts:
    """Counts over `english_words` of pairs of a reference and a hypothesis.

    A pair of whose reference nothing is left, such as "uh", is not counted, as leaderboards leave it out.
    """
    tokens = ((english_words(reference), english_words(hypothesis)) for reference, hypothesis in pairs)
    return sum((count_errors(*pair) for pair in tokens if pair[0]), ErrorCounts())


@lru_cache(maxsize=1)
def _whisper_english() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer(english_spellings())


def english_spellings() -> dict[str, str]:
    """British spellings and their American ones, with which Whisper's English normaliser works."""
    table = resources.files("k2d_hf.scoring") / "data" / "english_spellings.json"
    return json.loads(table.read_text(encoding="utf-8"))
