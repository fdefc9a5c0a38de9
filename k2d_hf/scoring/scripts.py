"""One script for Chinese labels: Whisper writes both, often in one recording, and students learn one.

Characters only: vocabulary, and with it what was said, stays. Error rates know no script, as `scoring.text` folds it.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from k2d_hf.scoring.text import convert_han, to_simplified

SCRIPTS = ("simplified", "traditional", "traditional-tw", "traditional-hk")
OTHERS_HAN = ("ja", "ko")  # languages whose Han characters are not Chinese ones
# OpenCC: the forms of Hong Kong and Taiwan become its own standard first, then those of one place.
_STANDARD = ("hk2t", "tw2t")
_REGIONS = {"traditional": None, "traditional-tw": "t2tw", "traditional-hk": "t2hk"}
_HAN = range(0x4E00, 0xA000)


def to_script(texts: Sequence[str], script: str) -> list[str]:
    """The texts of one recording, in order, in one of `SCRIPTS`.

    Some characters are Simplified in one text and Traditional in another (里 of 里面 and of 里長). If Traditional is
    wanted, they are converted only in texts that are Simplified, by their other characters, or where they have none, by
    those of the recording. `traditional` is the standard of OpenCC (裏, 爲), the other two what Taiwan and Hong Kong
    write.

    >>> to_script(["他在里面", "我们说话", "里長說話"], "traditional-tw")
    ['他在裡面', '我們說話', '里長說話']
    """
    if script == "simplified":
        return [to_simplified(text) for text in texts]
    marks = [_marks(text) for text in texts]
    simplified = sum(one.simplified for one in marks) > sum(one.traditional for one in marks)
    return [_to_traditional(text, _REGIONS[script], mark, simplified) for text, mark in zip(texts, marks, strict=True)]


def script_of(text: str) -> str | None:
    """`simplified` or `traditional`, by the characters that only one of them has; None where there are none.

    >>> [script_of(text) for text in ("我们说话", "我們說話", "里面", "okay")]
    ['simplified', 'traditional', None, None]
    """
    marks = _marks(text)
    if marks.simplified == marks.traditional:
        return None
    return "simplified" if marks.simplified > marks.traditional else "traditional"


class _Marks(NamedTuple):
    """How many characters of a text are Simplified alone, and Traditional alone."""

    simplified: int
    traditional: int


def _marks(text: str) -> _Marks:
    simplified, traditional = _one_script_alone()
    return _Marks(sum(c in simplified for c in text), sum(c in traditional for c in text))


def _to_traditional(text: str, region: str | None, marks: _Marks, simplified_recording: bool) -> str:
    if text.isascii():
        return text
    converted = convert_han("s2t", text)
    if marks.simplified <= marks.traditional and (any(marks) or not simplified_recording):
        # Phrases are converted to others of their length, so that each character has its own.
        alone = _one_script_alone().simplified
        if len(converted) == len(text):
            pairs = zip(text, converted, strict=True)
            converted = "".join(new if old in alone else old for old, new in pairs)
        else:
            converted = text
    for step in (*_STANDARD, *((region,) if region else ())):
        converted = convert_han(step, converted)
    return converted


class _Alone(NamedTuple):
    """Characters of one script alone."""

    simplified: frozenset[str]
    traditional: frozenset[str]


@cache
def _one_script_alone() -> _Alone:
    """Characters that OpenCC converts, and which Big5, the character set of Taiwan, has not, or has."""
    characters = list(map(chr, _HAN))
    as_traditional, as_simplified = (convert_han(name, "\n".join(characters)).split("\n") for name in ("s2t", "t2s"))
    big5 = {one for one in characters if one.encode("big5", errors="ignore")}
    return _Alone(
        frozenset(a for a, b in zip(characters, as_traditional, strict=True) if a != b and a not in big5),
        frozenset(a for a, b in zip(characters, as_simplified, strict=True) if a != b and a in big5),
    )
