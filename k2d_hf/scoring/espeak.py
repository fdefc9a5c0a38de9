"""Phonemes in IPA by espeak-ng (extra `espeak`), for language pairs other than Mandarin-English.

The second alphabet of the phoneme error rate. The library keeps one global state, hence the lock: scale by processes.
"""

import re
import threading
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.extras import install_hint
from k2d_hf.scoring.text import is_han, is_unspaced

_HAN_VOICE = "cmn"
# espeak-ng writes Mandarin tones after the vowel as digits, the digit 3 in the shape of U+025C.
_TONES = re.compile("[0-9.\u025c]")
_lock = threading.Lock()


def ipa_phones(tokens: Iterable[str], *, language: str) -> list[str]:
    """IPA phones of the output of `mixed_tokens`, without stress and tone, every token at least one phone.

    `language` is an espeak-ng voice (`en-us`, `hi`, `es`, ...). Han characters are read by the Mandarin voice, in runs:
    any other voice reads each of them as "Chinese letter", and so makes all of them equal. Characters of scripts
    without blanks, such as Thai, are read in complete runs too, for their letters are no words.

    Raises K2DError for an unknown voice, or where the extra `espeak` is not installed.
    """
    phones: list[str] = []
    for voice, group in groupby(tokens, lambda token: _HAN_VOICE if is_han(token) else language):
        for unspaced, spoken in groupby(group, lambda token: is_han(token) or is_unspaced(token)):
            for part in ["".join(spoken)] if unspaced else spoken:
                phones.extend(_read(part, voice))
    return phones


@lru_cache(maxsize=1 << 16)
def _read(spoken: str, language: str) -> tuple[str, ...]:
    separator, backend = _backend(language)
    with _lock:
        (written,) = backend.phonemize([spoken], separator=separator, strip=True)
    if language == _HAN_VOICE:
        written = _TONES.sub("", written)
    # What the voice cannot read stands for itself: silence is never an answer.
    return tuple(written.replace("|", " ").split()) or tuple(spoken)


@cache
def _backend(language: str) -> tuple[Any, Any]:
    try:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper
        from phonemizer.separator import Separator
    except ImportError as error:
        raise K2DError(f"phonemes in IPA need espeak-ng: {install_hint('espeak')}") from error
    with _lock:
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        if not EspeakBackend.is_supported_language(language):
            raise K2DError(f"espeak-ng has no voice {language!r}: give one such as en-us, es or hi")
        backend = EspeakBackend(language, with_stress=False, language_switch="remove-flags")
    return Separator(phone=" ", word="|"), backend
