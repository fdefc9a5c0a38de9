"""Two transcripts of the same speech, aligned by phonemes: what of one belongs to which part of the other.

An alignment is a minimal one over phones (Levenshtein, unit costs), so a word that is spelt otherwise, or written in
the other script, is still the same word. Validation judges segments by it, and distillation weighs tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import regex
from rapidfuzz.distance import Levenshtein

from k2d_hf.scoring.phonemes import PAPER_PHONES, Phones, phone_codes
from k2d_hf.scoring.pinyin import pinyin_words
from k2d_hf.scoring.text import CHARACTERS, CLUSTER, UNSPACED, mixed_runs, to_simplified

Span = tuple[int, int]

# Han characters come in runs, as neighbours decide how one is read; others that no blank parts come one by one.
_PIECE = regex.compile(
    rf"(?V1)(?P<han>[\p{{Han}}&&[\p{{L}}\p{{N}}]]++)|[{CHARACTERS}]|{CLUSTER}|[^\s{CHARACTERS}{UNSPACED}]++|\S"
)


@dataclass(frozen=True)
class Piece:
    """A word or character of a text: where it stands, and its phones as codes (`scoring.phonemes.phone_codes`)."""

    start: int
    end: int
    codes: str


@dataclass(frozen=True)
class _Stretch:
    """A stretch of an alignment, `first` of one string and `other` of the other: all equal, or all edited."""

    equal: bool
    first: Span
    other: Span


def pieces_of(text: str, phones: Phones = PAPER_PHONES) -> list[Piece]:
    """The words and Han characters of a text, with their phones; of punctuation alone there are none.

    >>> [text[piece.start:piece.end] for text in ["用 GPU 來train"] for piece in pieces_of(text)]
    ['用', 'GPU', '來', 'train']
    """
    simplified = to_simplified(text)
    if len(simplified) != len(text):  # places in it would be wrong; what is read one by one then loses its context
        simplified = text
    return list(_pieces(text, simplified, phones))


def _pieces(text: str, simplified: str, phones: Phones) -> Iterator[Piece]:
    for match in _PIECE.finditer(text):
        start, end = match.span()
        words = pinyin_words(simplified[start:end]) if match["han"] else [text[start:end]]
        for word in words:
            yield Piece(start, start + len(word), phone_codes(mixed_runs(word), **phones))
            start += len(word)


def counterparts(parts: Sequence[str], other: str, phones: Phones = PAPER_PHONES) -> list[Span]:
    """Where in another transcript each part of a text is, as spans of its characters.

    What stands between two parts in the other alone belongs to both: nobody knows which of them left it out. Where an
    error spans the end of a part, it is shared out in proportion to the phones.

    >>> other = "今天講 machine learning 很重要"
    >>> [other[start:end] for start, end in counterparts(["今天講機器學習", "很重要"], other)]
    ['今天講 machine learning', '很重要']
    """
    of_parts = ["".join(piece.codes for piece in pieces_of(part, phones)) for part in parts]
    pieces = pieces_of(other, phones)
    path = _stretches("".join(of_parts), "".join(piece.codes for piece in pieces))
    middles = [begin + end for begin, end in _phone_spans(pieces)]  # twice the middle of each
    cuts = [_cuts(path, boundary) for boundary in list(accumulate(map(len, of_parts)))[:-1]]
    begins = [0, *(bisect_right(middles, 2 * least) for least, _ in cuts)]
    ends = [*(bisect_right(middles, 2 * most) for _, most in cuts), len(pieces)]
    return [
        (pieces[begin].start, pieces[end - 1].end) if begin < end else (0, 0)
        for begin, end in zip(begins, ends, strict=True)
    ][: len(parts)]


def agreements(text: str, other: str, phones: Phones = PAPER_PHONES) -> list[tuple[Span, bool]]:
    """Each word and Han character of a text: its span, and whether the other transcript has all its phones there.

    Both are read by the same `phones`. What has no phones, such as punctuation, agrees.

    >>> [agrees for _, agrees in agreements("我们用GPU", "我門用CPU")]
    [True, True, True, False]
    """
    pieces, others = pieces_of(text, phones), pieces_of(other, phones)
    path = _stretches("".join(piece.codes for piece in pieces), "".join(piece.codes for piece in others))
    edited = [stretch.first for stretch in path if not stretch.equal]
    spans = _phone_spans(pieces)
    return [
        ((piece.start, piece.end), not any(first < end and begin < last for first, last in edited))
        for piece, (begin, end) in zip(pieces, spans, strict=True)
    ]


def _phone_spans(pieces: Sequence[Piece]) -> list[Span]:
    ends = list(accumulate(len(piece.codes) for piece in pieces))
    return list(zip([0, *ends][: len(ends)], ends, strict=True))


def _stretches(one: str, other: str) -> list[_Stretch]:
    """An alignment of two strings, neighbouring edits in one stretch: their order within it says nothing."""
    path: list[_Stretch] = []
    for step in Levenshtein.opcodes(one, other):
        equal = step.tag == "equal"
        first, second = (step.src_start, step.src_end), (step.dest_start, step.dest_end)
        if path and not equal and not path[-1].equal:
            before = path.pop()
            first, second = (before.first[0], first[1]), (before.other[0], second[1])
        path.append(_Stretch(equal, first, second))
    return path


def _cuts(path: Sequence[_Stretch], boundary: int) -> Span:
    """Where the other string is cut at a boundary of the first: the least and the most that belongs to what is before.

    They differ where something was put in right there.
    """
    least = most = 0
    for stretch in path:
        (begin, end), (other_begin, other_end) = stretch.first, stretch.other
        if begin == end == boundary:
            return other_begin, other_end
        if begin < boundary <= end:
            share = (boundary - begin) / (end - begin)
            least = most = other_begin + round(share * (other_end - other_begin))
    return least, most
