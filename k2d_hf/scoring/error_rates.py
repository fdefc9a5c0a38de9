"""Error counts between two token sequences, and mixed error rate with its Mandarin and English parts (paper Eq. 3).

Counts, not rates, are what adds up: a corpus is the sum of its examples, and its rate the rate of that sum. Insertions
by script (English in a Chinese lecture, or Han in an English one) show what rates hide: the Mandarin part of a set
without Mandarin has no rate, and marks are no tokens at all.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from operator import add

import regex
from rapidfuzz.distance import Levenshtein

from k2d_hf.scoring.text import drop_special_tokens, is_han, mixed_tokens

MARKS = "marks"
LONGEST_ROW = 6
"""Times that a mark, or up to three in turn, may stand in a row: six dots are still an ellipsis (……)."""

_KANA = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
_BLANKS_BETWEEN_MARKS = regex.compile(r"(?<=[\p{P}\p{S}])\s++(?=[\p{P}\p{S}])")
_ROW_OF_MARKS = regex.compile(rf"([\p{{P}}\p{{S}}]{{1,3}}?)\1{{{LONGEST_ROW},}}+")


@dataclass(frozen=True)
class ErrorCounts:
    """Edits that turn a reference of `reference_length` tokens into the hypothesis."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference_length: int = 0

    @property
    def errors(self) -> int:
        """S + D + I."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """(S + D + I) / N; above 1 where insertions abound.

        Without reference tokens there is no N: 0.0 if nothing was inserted (both empty), else 1.0 (exactly one empty).
        A rate of a corpus is that of the summed counts, so there the rule only applies where all references are empty.
        """
        if self.reference_length == 0:
            return 1.0 if self.insertions else 0.0
        return self.errors / self.reference_length

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True)
class MixedErrors:
    """Counts over all mixed tokens, over Han characters alone and over all other tokens alone; insertions by script."""

    mixed: ErrorCounts = ErrorCounts()
    mandarin: ErrorCounts = ErrorCounts()
    english: ErrorCounts = ErrorCounts()
    insertions_by_script: Mapping[str, int] = field(default_factory=dict)

    @property
    def mer(self) -> float:
        """Mixed error rate."""
        return self.mixed.rate

    @property
    def zh_cer(self) -> float | None:
        """Mandarin character error rate; None where the references hold no Han character."""
        return self.mandarin.rate if self.mandarin.reference_length else None

    @property
    def en_wer(self) -> float | None:
        """Error rate of everything that is not Han; None where the references hold no such token.

        By word, and by character where `mixed_tokens` gives characters: kana, Hangul, Thai and the scripts like it.
        """
        return self.english.rate if self.english.reference_length else None

    def __add__(self, other: "MixedErrors") -> "MixedErrors":
        return MixedErrors(
            self.mixed + other.mixed,
            self.mandarin + other.mandarin,
            self.english + other.english,
            dict(Counter(self.insertions_by_script) + Counter(other.insertions_by_script)),
        )


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> ErrorCounts:
    """Counts of one minimal alignment (Levenshtein, unit costs) of two token lists.

    S + D + I is the edit distance. Where several alignments are minimal, how it splits into S, D and I follows the
    library's choice, but D - I is always `len(reference) - len(hypothesis)`.
    """
    edits = Counter(edit.tag for edit in Levenshtein.editops(*_as_integers(reference, hypothesis)))
    return ErrorCounts(edits["replace"], edits["delete"], edits["insert"], len(reference))


def error_rate(reference: Sequence[str], hypothesis: Sequence[str]) -> float:
    """`count_errors(reference, hypothesis).rate`, without the split into S, D and I, which takes most of the time.

    Two strings are compared by character, several times as fast as lists.
    """
    if not reference:
        return 1.0 if hypothesis else 0.0
    if isinstance(reference, str) and isinstance(hypothesis, str):
        return Levenshtein.distance(reference, hypothesis) / len(reference)
    return Levenshtein.distance(*_as_integers(reference, hypothesis)) / len(reference)


def mixed_errors(reference: str, hypothesis: str) -> MixedErrors:
    """Mixed errors of one example, in total and split by language.

    The split counts align the Han characters of both texts alone, and all other tokens alone. A word that one side
    wrote in the other language is thus a deletion in one part and an insertion in the other, so the parts do not sum
    to the total.

    Insertions by script align the tokens of one script alone in the same way: what is in another script than the
    reference counts in full, so they do not sum to the total either. `marks` are no tokens: of them those
    count that stand in a row more often than the reference's, as they do where a model loops.
    """
    reference_tokens, hypothesis_tokens = mixed_tokens(reference), mixed_tokens(hypothesis)
    marks = _marks_in_rows(hypothesis) - _marks_in_rows(reference)
    return MixedErrors(
        mixed=count_errors(reference_tokens, hypothesis_tokens),
        mandarin=count_errors(_only(reference_tokens, han=True), _only(hypothesis_tokens, han=True)),
        english=count_errors(_only(reference_tokens, han=False), _only(hypothesis_tokens, han=False)),
        insertions_by_script=_insertions(reference_tokens, hypothesis_tokens) | ({MARKS: marks} if marks > 0 else {}),
    )


def _insertions(reference: list[str], hypothesis: list[str]) -> dict[str, int]:
    expected, written = _by_script(reference), _by_script(hypothesis)
    counts = {script: count_errors(expected.get(script, []), tokens).insertions for script, tokens in written.items()}
    return {script: count for script, count in counts.items() if count}


def _by_script(tokens: Sequence[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for token in tokens:
        parts.setdefault(script_of(token), []).append(token)
    return parts


@lru_cache(maxsize=1 << 16)
def script_of(token: str) -> str:
    """The script of a token of `mixed_tokens`: `Han`, `Latin`, `Thai`, ..., `kana` of either kind, or `digits`."""
    if is_han(token):
        return "Han"
    if unicodedata.category(token[0])[0] == "N":
        return "digits"
    name = unicodedata.name(token[0], "other").partition(" ")[0]
    return "kana" if name in _KANA else name.capitalize()


def _marks_in_rows(text: str) -> int:
    """Marks of `text` that stand in a row, the same one to three again and again, more than `LONGEST_ROW` times."""
    marks = _BLANKS_BETWEEN_MARKS.sub("", drop_special_tokens(text))
    return sum(len(match.group()) for match in _ROW_OF_MARKS.finditer(marks))


def insertions_text(insertions: Mapping[str, int]) -> str:
    """`12 Han, 3 Latin, 223 marks`: the largest first, marks last; empty where nothing was inserted."""
    order = sorted(insertions, key=lambda script: (script == MARKS, -insertions[script], script))
    return ", ".join(f"{insertions[script]:,} {script}" for script in order if insertions[script])


def _as_integers(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[list[int], list[int]]:
    """The library compares elements by hash alone; small integers are their own hash, so no two tokens can collide."""
    codes: dict[str, int] = {}
    return (
        [codes.setdefault(token, len(codes)) for token in reference],
        [codes.setdefault(token, len(codes)) for token in hypothesis],
    )


def _only(tokens: list[str], *, han: bool) -> list[str]:
    return [token for token in tokens if is_han(token) is han]
