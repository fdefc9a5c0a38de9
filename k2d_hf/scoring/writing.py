"""Scripts: that of a token, and those that a language is written in.

By them reports name the parts of an error rate, cards the second language of a student, and phonemes find a voice.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from k2d_hf.scoring.text import is_han

LATIN = "Latin"
HAN = "Han"
KANA = "kana"
DIGITS = "digits"

_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
# Of the languages of Whisper and espeak-ng those that are written in another script than Latin, or in two.
_SCRIPTS = {
    "Arabic": "ar fa ps sd ug ur",
    "Armenian": "hy hyw",
    "Bengali": "as bn bpy",
    "Cyrillic": "ba be bg cv kk ky mk mn nog ru sr tg tt uk",
    "Devanagari": "hi kok mr ne sa",
    "Ethiopic": "am",
    "Georgian": "ka",
    "Greek": "el grc",
    "Gujarati": "gu",
    "Gurmukhi": "pa",
    HAN: "cmn ja yue zh",
    "Hangul": "ko",
    "Hebrew": "he yi",
    KANA: "ja",
    "Kannada": "kn",
    "Khmer": "km",
    "Lao": "lo",
    LATIN: "sr",
    "Malayalam": "ml",
    "Myanmar": "my shn",
    "Oriya": "or",
    "Sinhala": "si",
    "Tamil": "ta",
    "Telugu": "te",
    "Thai": "th",
    "Tibetan": "bo",
}
_BY_LANGUAGE = {
    language: frozenset(script for script, listed in _SCRIPTS.items() if language in listed.split())
    for language in " ".join(_SCRIPTS.values()).split()
}
NOT_LATIN = frozenset(language for language, scripts in _BY_LANGUAGE.items() if LATIN not in scripts)


def scripts_of(language: str) -> frozenset[str]:
    """The scripts that a language is written in, by Whisper's or espeak-ng's code; Latin of one that is not listed.

    >>> sorted(scripts_of("ja")), sorted(scripts_of("pt-br"))
    (['Han', 'kana'], ['Latin'])
    """
    return _BY_LANGUAGE.get(language.partition("-")[0], frozenset((LATIN,)))


@lru_cache(maxsize=1 << 16)
def script_of(token: str) -> str:
    """The script of a token of `mixed_tokens`: `Han`, `Latin`, `Thai`, ..., `kana` of either kind, or `digits`.

    >>> [script_of(token) for token in ("今", "machine", "नमस्ते", "カ", "3.5")]
    ['Han', 'Latin', 'Devanagari', 'kana', 'digits']
    """
    if is_han(token):
        return HAN
    if unicodedata.category(token[0])[0] == "N":
        return DIGITS
    name = unicodedata.name(token[0], "other").partition(" ")[0]
    return KANA if name in _KANA else name.capitalize()
