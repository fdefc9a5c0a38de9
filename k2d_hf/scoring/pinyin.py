"""Mandarin in phones: toneless pinyin, as initials and finals, for the phoneme error rate (paper Eq. 4).

How a character is read depends on the word it stands in, so runs of characters are taken apart into such words first.
"""

from collections.abc import Iterable
from functools import cache, lru_cache
from operator import add

from k2d_hf.scoring.text import is_han

PINYIN_PREFIX = "zh:"
"""Keeps the pinyin `b` and the ARPAbet `B` of any spelling apart: the two inventories share no symbol."""


def pinyin_words(run: str) -> Iterable[str]:
    """The parts of a run of Simplified Han characters that can be read one by one, each by `pinyin_phones`."""
    odd = _odd_phrases()
    starts = odd.keys() & map(add, run, run[1:])
    if starts and any(phrase in run for start in starts for phrase in odd[start]):
        from pypinyin.seg.simpleseg import seg

        return seg(run)
    return run


def pinyin_phones(word: str) -> list[str]:
    """Initials and finals of a word, without tones; characters without a reading stand for themselves."""
    from pypinyin import Style, lazy_pinyin

    return [phone for syllable in lazy_pinyin(word, style=Style.NORMAL) for phone in _syllable_phones(syllable)]


@lru_cache(maxsize=4096)
def _syllable_phones(syllable: str) -> tuple[str, ...]:
    if is_han(syllable):
        return tuple(PINYIN_PREFIX + character for character in syllable)
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    parts = (to_initials(syllable, strict=True), to_finals(syllable, strict=True))
    # Interjections such as 嗯 (n) have no final, and some no part at all.
    return tuple(PINYIN_PREFIX + part for part in parts if part) or (PINYIN_PREFIX + syllable,)


@cache
def _odd_phrases() -> dict[str, list[str]]:
    """Phrases that are not read as their characters are read alone (银行, 音乐), by their first two characters.

    Where none occurs, it does not matter into which phrases a run is parted, and parting it is what takes time.
    """
    from pypinyin.constants import PHRASES_DICT, PINYIN_DICT
    from pypinyin.contrib.tone_convert import to_normal

    toneless = lru_cache(maxsize=4096)(to_normal)

    def as_alone(character: str, reading: str) -> bool:
        alone = PINYIN_DICT.get(ord(character), character).partition(",")[0]
        return reading == alone or toneless(reading) == toneless(alone)

    odd: dict[str, list[str]] = {}
    for phrase, readings in PHRASES_DICT.items():
        if not all(as_alone(character, reading[0]) for character, reading in zip(phrase, readings, strict=True)):
            odd.setdefault(phrase[:2], []).append(phrase)
    return odd
