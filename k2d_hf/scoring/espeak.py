"""Phonemes in IPA by espeak-ng (extra `espeak`), for language pairs other than Mandarin-English.

The second alphabet of the phoneme error rate. The library keeps one global state, hence the lock: scale by processes.
"""

import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

import regex

from k2d_hf.errors import K2DError
from k2d_hf.files.extras import install_hint
from k2d_hf.files.settings import did_you_mean
from k2d_hf.formatting import quote
from k2d_hf.scoring.text import is_han, is_unspaced
from k2d_hf.scoring.writing import DIGITS, HAN, KANA, script_of, scripts_of

# The voice of a script that the language of the run is not written in. Its own would spell such letters, or read all
# of them alike ("Chinese letter"). Scripts that no voice reads are not here.
_VOICES = {
    "Arabic": "ar", "Armenian": "hy", "Bengali": "bn", "Cyrillic": "ru", "Devanagari": "hi", "Ethiopic": "am",
    "Georgian": "ka", "Greek": "el", "Gujarati": "gu", "Gurmukhi": "pa", "Hangul": "ko", "Hebrew": "he", KANA: "ja",
    "Kannada": "kn", "Latin": "en-us", "Malayalam": "ml", "Myanmar": "my", "Oriya": "or", "Sinhala": "si",
    "Tamil": "ta", "Telugu": "te", "Thai": "th",
}  # fmt: skip
_HAN_VOICES = ("cmn", "yue")  # the others call each character "Chinese letter", that of Japanese among them
# Tones are digits after the vowel, the digit 3 in the shape of U+025C, a vowel of English.
_TONES = re.compile("[0-9.+]")
_TONES_WITH_THREE = re.compile("[0-9.+\u025c]")
_TONAL = ("cmn", "my", "shn", "th", "vi", "yue")
# espeak-ng has room for words of 160 bytes, and drops what is beyond.
_MOST_BYTES = 120
_CUT_AFTER = 16  # tokens of which one ends a piece of a long run, by what it is: an insertion moves no other end
_UNIT = regex.compile(r"\X")
_lock = threading.Lock()


def ipa_phones(tokens: Iterable[str], *, language: str) -> list[str]:
    """IPA phones of the output of `mixed_tokens`, without stress and tone, every token at least one phone.

    `language` is one of espeak-ng (`en-us`, `hi`, `es`, ...), whose voice reads numbers and what is in its scripts.
    What is in others is read by a voice of theirs: Latin by English, Han by Mandarin, and so on; characters that none
    reads stand for themselves. Han, kana and scripts without blanks, such as Thai, are read in runs, for their
    characters are no words.

    Raises K2DError for an unknown language, or where the extra `espeak` is not installed.
    """
    check_language(language)
    phones: list[str] = []
    for voice, spoken in groupby(tokens, lambda token: _voice_of(token, language)):
        for run, group in groupby(spoken, _is_in_runs):
            for part in _parts(group) if run else group:
                phones.extend(_read(part, voice))
    return phones


def check_language(language: str) -> None:
    """Raise K2DError where espeak-ng is not installed, or has no such language."""
    known = _languages()
    if language not in known:
        raise K2DError(
            f"espeak-ng has no language {quote(language)}: give one such as es, hi or en-us"
            f"{did_you_mean(language, known)}"
        )


def _voice_of(token: str, language: str) -> str | None:
    """The language of espeak-ng that reads a token, in a run of this one; None where none does."""
    script = script_of(token)
    if script == HAN:
        return language if language in _HAN_VOICES else _HAN_VOICES[0]
    return language if script == DIGITS or script in scripts_of(language) else _VOICES.get(script)


def _is_in_runs(token: str) -> bool:
    return is_han(token) or is_unspaced(token) or script_of(token) == KANA


def _parts(tokens: Iterable[str]) -> Iterator[str]:
    """A run in pieces that espeak-ng has room for; where they end depends on what stands there, not on the beginning.

    Two texts that differ in one place are cut alike elsewhere, so that they differ there alone.
    """
    part = ""
    for token in tokens:
        if part and len((part + token).encode()) > _MOST_BYTES:
            yield part
            part = ""
        part += token
        if zlib.crc32(token.encode()) % _CUT_AFTER == 0:
            yield part
            part = ""
    if part:
        yield part


@lru_cache(maxsize=1 << 16)
def _read(spoken: str, language: str | None) -> tuple[str, ...]:
    if language is None:
        return tuple(spoken)
    if len(spoken.encode()) > _MOST_BYTES and len(units := _UNIT.findall(spoken)) > 1:
        middle = len(units) // 2
        return _read("".join(units[:middle]), language) + _read("".join(units[middle:]), language)
    separator, backend = _backend(language)
    with _lock:
        (written,) = backend.phonemize([spoken], separator=separator, strip=True)
    written = (_TONES_WITH_THREE if language in _TONAL else _TONES).sub("", written)
    # What the voice cannot read stands for itself: silence is never an answer.
    return tuple(written.replace("|", " ").split()) or tuple(spoken)


@cache
def _languages() -> frozenset[str]:
    """The languages of espeak-ng; K2DError where it is not installed."""
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
    except ImportError as error:
        raise K2DError(f"phonemes in IPA need espeak-ng: {install_hint('espeak')}") from error
    with _lock:
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        return frozenset(EspeakBackend.supported_languages())


@cache
def _backend(language: str) -> tuple[Any, Any]:
    _languages()  # which finds the library
    from phonemizer.backend import EspeakBackend
    from phonemizer.separator import Separator

    with _lock:
        backend = EspeakBackend(language, with_stress=False, language_switch="remove-flags")
    return Separator(phone=" ", word="|"), backend
