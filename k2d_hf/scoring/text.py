"""Mixed tokens: the one tokenisation that every error rate, table and filter of this package is counted over.

One token per Han, kana or Hangul character, one per character of a script that is written without blanks (Thai, Lao,
Khmer, Burmese), one per word of any other: the N of the mixed error rate (Eq. 3).
"""

import re
import threading
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import regex

from k2d_hf.scoring.variants import fold_variants

# U+3006, U+3031-3035 and U+30FC belong to no single script in Unicode, yet are written as kana.
CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\u3006\u3031-\u3035\u30fc"
# Scripts of South East Asia that put no blank between words, so that only a dictionary finds them: those of the line
# breaking class SA (Unicode, UAX 14), and their kin Javanese and Balinese. Tibetan parts its syllables by a mark.
UNSPACED = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Tai_Viet}\p{Ahom}"
    r"\p{Javanese}\p{Balinese}"
)
CHARACTER_SCRIPTS = frozenset(
    ("Han", "kana", "Hangul", "Thai", "Lao", "Khmer", "Myanmar", "Tai", "New", "Ahom", "Javanese", "Balinese")
)
"""Scripts, as `writing.script_of` names them, of which a token is a character."""
# A character of theirs is an extended grapheme cluster (UAX 29), with the spacing marks of Burmese that those leave
# apart: a token has a letter. And NFKC takes SARA AM (Thai, Lao) in two, of which the second is one.
CLUSTER = rf"(?=[[{UNSPACED}]&&\p{{L}}])\X(?:[[{UNSPACED}]&&\p{{M}}]|(?<=\u0e4d)\u0e32|(?<=\u0ecd)\u0eb2)*+"
_LETTER = rf"[\p{{L}}--[{CHARACTERS}{UNSPACED}]]"
_INNER = rf"[[\p{{L}}\p{{M}}]--[{CHARACTERS}{UNSPACED}]]"
_DIGIT = r"[\p{N}--\p{Han}]"

# Marks belong to the word, or every Indic word would break at its vowel signs. Possessive quantifiers keep it linear.
# The first two alternatives match what the others would, the commonest tokens, without the slow set arithmetic. The
# first alone matches several tokens at once, and no other matches what begins with a Han character of that block.
_RUN = regex.compile(
    rf"(?V1)[\u4e00-\u9fff]++|[a-z]++(?!{_INNER}|')"
    rf"|[[{CHARACTERS}]&&[\p{{L}}\p{{N}}]]"
    rf"|{_LETTER}{_INNER}*+(?:'{_LETTER}{_INNER}*+)*+"
    rf"|{CLUSTER}"
    rf"|{_DIGIT}++(?:[.,]{_DIGIT}++)*+"
)
# Single letters only, from the first to the last: "u.s.a." is an acronym, "study.so" and "v.so" are sloppy full stops.
_ACRONYM = regex.compile(
    rf"(?V1)(?<![{_INNER}'])(?<!{_INNER}\.){_LETTER}\p{{M}}*+(?:\.{_LETTER}\p{{M}}*+)++\.?+(?!{_INNER})"
)
_HAN = regex.compile(r"(?V1)[\p{Han}&&[\p{L}\p{N}]]")
_UNSPACED_LETTER = regex.compile(rf"(?V1)[[{UNSPACED}]&&\p{{L}}]")
# The tone mark comes before the rest of SARA AM in what NFKC makes of one, behind it where it was typed in two pieces.
_SARA_AM = re.compile("\u0e4d([\u0e48-\u0e4b])(?=\u0e32)|\u0ecd([\u0ec8-\u0ecb])(?=\u0eb2)")
# What code-switched Mandarin consists of once it is folded: ASCII without capitals, the main block of Han, punctuation.
# A text of nothing else has the same runs by `re`, in less than half the time.
_UNUSUAL = re.compile("[^\x00-@\\[-\x7f\u4e00-\u9fff\u3000-\u3002\u3008-\u3011\u2014\u201c\u201d]")
_USUAL_RUN = re.compile("[\u4e00-\u9fff]+|[a-z]+(?:'[a-z]+)*|[0-9]+(?:[.,][0-9]+)*")
_SPECIAL_TOKEN = regex.compile(r"<\|[^|]*\|>")
# Lone surrogates are no text, and the converter cannot encode them.
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
# Curly apostrophes become straight ones, as does the geresh of Hebrew. Soft hyphen, joiners, direction marks and the
# stroke that lengthens Arabic go: they change how a word is drawn, not which word it is.
INVISIBLE = "\u00ad\u061c\u0640\u200c\u200d\u200e\u200f\u2060"
APOSTROPHES = "'\u2018\u2019\u201b\u02bc\u05f3"
_FOLDS = {
    **dict.fromkeys(map(ord, APOSTROPHES), "'"),
    **dict.fromkeys(map(ord, INVISIBLE), ""),
}
_TO_FOLD = re.compile(f"[{''.join(map(chr, _FOLDS))}]")
# Digits of other scripts become those of ASCII, as either is written in speech of one language: २०२३ and 2023. Marks
# within a word go: gershayim, or a quotation mark for it, in Hebrew (צה״ל), and the dot of Catalan (col·lecció).
_DIGITS = {
    code: str(digit) for code in range(0x80, 0x20000) if (digit := unicodedata.decimal(chr(code), None)) is not None
}
WITHIN_WORDS = r"(?<=\p{Hebrew}\p{M}*)[\"\u05f4](?=\p{Hebrew})|(?<=[lL])\u00b7(?=[lL])"
_WITHIN_WORDS = regex.compile(WITHIN_WORDS)
_TO_FOLD_LATE = re.compile(f'["\u05f4\u00b7{"".join(map(chr, _DIGITS))}]')
# Marks are put into order pair by pair, which takes a second for twenty thousand. No word has as many as are left.
_MOST_MARKS = 256
_MANY_MARKS = regex.compile(rf"(\p{{M}}{{{_MOST_MARKS}}})\p{{M}}++")
# NFKC maps these alike, but one of them makes it rewrite all of the text: most Chinese needs no more than these.
_WIDE_MARKS = tuple((mark, unicodedata.normalize("NFKC", mark)) for mark in "，？！：；（）…\u3000")

_converter_lock = threading.Lock()


def mixed_tokens(text: str) -> list[str]:
    """Tokens of `text` for the mixed error rate, in order.

    Special tokens `<|...|>` are dropped; curly apostrophes, compatibility forms (NFKC), digits of all scripts, case
    and dotted acronyms are folded; Traditional becomes Simplified over the complete string, and variants of one
    character become one. Then one token per Han, kana or Hangul character, one per character (grapheme cluster) of
    Thai, Lao, Khmer, Burmese and the scripts like them, one per digit run (inner `.` and `,` stay) and one per run
    of letters and marks of any other script (inner apostrophes stay). Letters and digits part: `GPT-4` and `gpt4`
    are both `gpt`, `4`. Numbers are not spelled out.
    """
    return split_runs(mixed_runs(text))


def mixed_runs(text: str) -> list[str]:
    """The tokens of `mixed_tokens(text)`, those of neighbouring Han characters in one piece, which is found faster.

    Only of the main block, and only where nothing at all stands between them: neighbours may come in several pieces.
    """
    text = drop_special_tokens(text)
    if text.isascii():
        text = text.lower()
    else:
        if _TO_FOLD.search(text):
            text = text.translate(_FOLDS)
        for wide, narrow in _WIDE_MARKS:
            text = text.replace(wide, narrow)
        if len(text) > _MOST_MARKS:
            text = _MANY_MARKS.sub(r"\1", text)
        # Lower-casing can open a composition that did not exist before (J + caron), hence the second normalisation.
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
        if _UNUSUAL.search(text):
            text = _fold_unusual(text)
    if "." in text:
        text = _ACRONYM.sub(lambda match: match.group().replace(".", ""), text)
    text = to_simplified(text)
    return (_RUN if _UNUSUAL.search(text) else _USUAL_RUN).findall(text)


def _fold_unusual(text: str) -> str:
    """What is to be folded in scripts other than Han and Latin, or at marks that are seldom."""
    if _TO_FOLD_LATE.search(text):
        text = _WITHIN_WORDS.sub("", text).translate(_DIGITS)
    if "\u0e4d" in text or "\u0ecd" in text:
        text = _SARA_AM.sub(lambda match: match.group()[::-1], text)
    return text


def split_runs(runs: Iterable[str]) -> list[str]:
    """`mixed_tokens(text)` from `mixed_runs(text)`."""
    return [token for run in runs for token in (run if "\u4e00" <= run < "\ua000" else (run,))]


def drop_special_tokens(text: str) -> str:
    """`text` with a blank in place of each Whisper token `<|...|>`: what stood on its two sides stays apart."""
    return _SPECIAL_TOKEN.sub(" ", text)


def to_simplified(text: str) -> str:
    """`text` with Traditional Chinese as Simplified: OpenCC's `t2s`, then `fold_variants` for what that leaves.

    Characters only: vocabulary is left as it is. Give complete strings: the reading of some characters depends on their
    neighbours (乾燥, 乾隆).
    """
    if text.isascii():
        return text
    # 着 first: `t2s` knows phrases with it (藉着), and none of those in which Taiwan writes 著 for it.
    return fold_variants(convert_han("t2s", text.replace("著", "着")))


def convert_han(conversion: str, text: str) -> str:
    """`text` as OpenCC converts it, such as by `t2s`; a lone surrogate, which is no text, becomes a blank."""
    with _converter_lock:
        converter = _load_converter(conversion)
    return converter.convert(_SURROGATE.sub(" ", text))


@lru_cache(maxsize=1 << 16)
def is_han(token: str) -> bool:
    """Whether a token of `mixed_tokens` is a Han character (Mandarin CER) or not (English WER)."""
    return _HAN.match(token) is not None


@lru_cache(maxsize=1 << 12)
def is_unspaced(token: str) -> bool:
    """Whether a token of `mixed_tokens` is a character of a script that is written without blanks, such as Thai."""
    return _UNSPACED_LETTER.match(token) is not None


@cache
def _load_converter(conversion: str) -> Any:
    import opencc

    return opencc.OpenCC(conversion)
