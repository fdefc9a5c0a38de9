"""Weights of a label's tokens in the loss: 0 where validation distrusts the segment, less where the auxiliary differs.

Beyond the paper, in which every token of a kept chunk weighs 1. The label itself stays as it is: the student reads all
of it, and soft targets that are stored for its tokens fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from k2d_hf.data.chunking import join_texts
from k2d_hf.data.segment_verdicts import trusted_segments
from k2d_hf.distillation.settings import AGREEMENT, DISAGREED
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import LabelEncoder, plain_text
from k2d_hf.scoring.alignment import Span, agreements
from k2d_hf.scoring.phonemes import PAPER_PHONES, Phones


def has_weights(chunk: Mapping[str, Any], weighting: str) -> bool:
    """Whether a token of a chunk may weigh less than another."""
    if not all(trusted_segments(chunk) or ()):
        return True
    return _compares(chunk, weighting)


def _compares(chunk: Mapping[str, Any], weighting: str) -> bool:
    """Whether the text of a chunk is to be compared with the auxiliary's, and can be."""
    return weighting == AGREEMENT and chunk.get("auxiliary_text") is not None and not chunk.get("auxiliary_loops")


def label_weights(
    chunk: Mapping[str, Any],
    encoder: LabelEncoder,
    *,
    timestamps: bool,
    length: int,
    weighting: str,
    phones: Phones = PAPER_PHONES,
) -> list[float]:
    """Weight of each token of a chunk's label in one of its forms, `<|startoftranscript|>` to `<|endoftext|>`.

    A token of a distrusted segment weighs 0, its times and one that reaches into it among them; so does what follows
    the last segment, if that is distrusted. With `agreement` a token of text weighs `DISAGREED` where the word that it
    is of has no counterpart in the auxiliary's transcript (`scoring.alignment.agreements`); times weigh 1. A transcript
    that loops condemns nothing (Eq. 5).

    Args:
        chunk: with `text`, and where they are known `segments`, `segment_verdicts` and `auxiliary_text`.
        encoder: of the label.
        timestamps: whether the label has them.
        length: tokens of the label.
        weighting: `none` or `agreement`.
        phones: by which both texts are read there; those by which the chunk was validated.
    """
    if not has_weights(chunk, weighting):
        return [1.0] * length
    segments = chunk.get("segments") or []
    trusted = trusted_segments(chunk) or [True] * len(segments)
    timed = timestamps and bool(segments)
    texts, places = _texts_with_times(segments) if timed else _text_alone(chunk, segments)
    disagreed = _disagreed("\n".join(texts), chunk["auxiliary_text"], phones) if _compares(chunk, weighting) else []
    weights, at = [1.0] * encoder.start_length, 0
    for text, owned in zip(texts, places, strict=True):
        distrusted = [(at + first, at + last) for (first, last), owner in owned if not trusted[owner]]
        spans = [(at + first, at + last) for first, last in encoder.text_spans(text)]
        of_text = [0.0 if _meets(span, distrusted) else DISAGREED if _meets(span, disagreed) else 1.0 for span in spans]
        time = [0.0 if distrusted else 1.0] if timed else []
        weights += [*time, *of_text, *time] if timed else [1.0, *of_text]  # <|notimestamps|>
        at += len(text) + 1
    ending = length - len(weights)
    if ending not in (1, 2):  # <|endoftext|>, and before it where a segment begins that the window cuts off
        raise K2DError(f"weights of {len(weights)} tokens for a label of {length}: text and segments do not fit")
    return weights + [1.0 if not trusted or trusted[-1] else 0.0] * ending


def _texts_with_times(segments: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[tuple[Span, int]]]]:
    """The texts between times, and of which segment each is."""
    texts = [plain_text(segment["text"]) for segment in segments]
    return texts, [[((0, max(len(text), 1)), index)] for index, text in enumerate(texts)]


def _text_alone(
    chunk: Mapping[str, Any], segments: Sequence[Mapping[str, Any]]
) -> tuple[list[str], list[list[tuple[Span, int]]]]:
    """The text of a label without times, and which part of it is of which segment."""
    text = LabelEncoder.text_without_times(chunk["text"], segments)
    blank = len(text) - len(chunk["text"])
    joined = [join_texts(segment["text"] for segment in segments[: count + 1]) for count in range(len(segments))]
    ends = [len(plain_text(text[: blank + len(part)])) for part in joined]
    return [plain_text(text)], [[((first, last), at) for at, (first, last) in enumerate(pairwise([0, *ends]))]]


def _disagreed(text: str, auxiliary_text: str, phones: Phones) -> list[Span]:
    return [span for span, agrees in agreements(text, auxiliary_text, phones) if not agrees]


def _meets(span: Span, others: Iterable[Span]) -> bool:
    return any(first < span[1] and span[0] < last for first, last in others)
