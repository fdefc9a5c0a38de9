"""Mixed tokens: the one tokenisation that every error rate, table and filter of this package is counted over.

One token per Han, kana or Hangul character, one per word of any other script: the N of the mixed error rate (Eq. 3).
"""

import threading
import unicodedata
from functools import cache, lru_cache
from typing import Any

import regex

# U+3006, U+3031-3035 and U+30FC belong to no single script in Unicode, yet are written as kana.
_CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\u3006\u3031-\u3035\u30fc"
_LETTER = rf"[\p{{L}}--[{_CHARACTERS}]]"
_INNER = rf"[[\p{{L}}\p{{M}}]--[{_CHARACTERS}]]"
_DIGIT = r"[\p{N}--\p{Han}]"

# Marks belong to the word, or every Indic word would break at its vowel signs. Possessive quantifiers keep it linear.
# The first two alternatives match what the others would, the commonest tokens, without the slow set arithmetic.
_TOKEN = regex.compile(
    rf"(?V1)[\u4e00-\u9fff]|[a-z]++(?!{_INNER}|')"
    rf"|[[{_CHARACTERS}]&&[\p{{L}}\p{{N}}]]"
    rf"|{_LETTER}{_INNER}*+(?:'{_LETTER}{_INNER}*+)*+"
    rf"|{_DIGIT}++(?:[.,]{_DIGIT}++)*+"
)
# Single letters only, from the first to the last: "u.s.a." is an acronym, "study.so" and "v.so" are sloppy full stops.
_ACRONYM = regex.compile(
    rf"(?V1)(?<![{_INNER}'])(?<!{_INNER}\.){_LETTER}\p{{M}}*+(?:\.{_LETTER}\p{{M}}*+)++\.?+(?!{_INNER})"
)
_HAN = regex.compile(r"(?V1)[\p{Han}&&[\p{L}\p{N}]]")
_SPECIAL_TOKEN = regex.compile(r"<\|[^|]*\|>")
# Lone surrogates are no text, and the converter cannot encode them.
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_CURLY_APOSTROPHE = regex.compile("[\u2018\u2019\u201b\u02bc]")
# Soft hyphen, joiners and direction marks: they change how a word is drawn, not which word it is.
_INVISIBLE = regex.compile("[\u00ad\u061c\u200c-\u200f\u2060]")

_converter_lock = threading.Lock()


def mixed_tokens(text: str) -> list[str]:
    """Tokens of `text` for the mixed error rate, in order.

    Special tokens `<|...|>` are dropped; curly apostrophes, compatibility forms (NFKC), case and dotted acronyms are
    folded; Traditional becomes Simplified over the whole string. Then one token per Han, kana or Hangul character, one
    per digit run (inner `.` and `,` stay) and one per run of letters and marks of any other script (inner apostrophes
    stay). Letters and digits part: `GPT-4` and `gpt4` are both `gpt`, `4`. Numbers are not spelled out.
    """
    text = drop_special_tokens(text)
    if text.isascii():
        text = text.lower()
    else:
        text = _INVISIBLE.sub("", _CURLY_APOSTROPHE.sub("'", text))
        # Lower-casing can open a composition that did not exist before (J + caron), hence the second normalisation.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if "." in text:
        text = _ACRONYM.sub(lambda match: match.group().replace(".", ""), text)
    return _TOKEN.findall(to_simplified(text))


def drop_special_tokens(text: str) -> str:
    """`text` with a blank in place of each Whisper token `<|...|>`: what stood on its two sides stays apart."""
    return _SPECIAL_TOKEN.sub(" ", text)


def to_simplified(text: str) -> str:
    """`text` with Traditional Chinese as Simplified (OpenCC `t2s`): characters only, vocabulary is left as it is.

    Give whole strings: the reading of some characters depends on their neighbours (乾燥, 乾隆).
    """
    return text if text.isascii() else _converter().convert(_SURROGATE.sub(" ", text))


@lru_cache(maxsize=1 << 16)
def is_han(token: str) -> bool:
    """Whether a token of `mixed_tokens` is a Han character (Mandarin CER) or not (English WER)."""
    return _HAN.match(token) is not None


def _converter() -> Any:
    with _converter_lock:
        return _load_converter()


@cache
def _load_converter() -> Any:
    import opencc

    return opencc.OpenCC("t2s")
