"""Segments of a chunk, each judged by itself: the distance of the teacher's text from what the auxiliary has there.

Beyond the paper, which drops a chunk of up to 30 s for 3 s of it that are wrong. The auxiliary's transcript of a chunk
has no times, so it is shared out among the segments by an alignment of phonemes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from k2d_hf.data.chunking import join_texts
from k2d_hf.scoring.alignment import Span, counterparts
from k2d_hf.scoring.text import drop_special_tokens
from k2d_hf.validation.combining import reason_to_drop
from k2d_hf.validation.distance import (
    LOOP_MAX_COUNT,
    LOOP_NGRAM,
    LabelComparison,
    compare_labels,
    distances_of,
    is_looping,
    joint_distance,
)
from k2d_hf.validation.judges import measures
from k2d_hf.validation.settings import ValidateSettings


@dataclass(frozen=True)
class JudgedSegment:
    """A segment of a chunk, as the column `segments` has it, and the verdict on it."""

    segment: Mapping[str, Any]
    comparison: LabelComparison
    reason: str | None  # why it is distrusted; None where it is not
    span: Span  # what the auxiliary has of it: characters of its transcript
    further: Sequence[tuple[LabelComparison, Span]] = ()  # the same of each auxiliary beside the first

    @property
    def seconds(self) -> float:
        """Its length."""
        return float(self.segment["end"] - self.segment["start"])

    def verdict(self) -> dict[str, Any]:
        """What the column `segment_verdicts` has of it."""
        compared = asdict(self.comparison)
        del compared["auxiliary_loops"]  # of the chunk
        return {**compared, "drop_reason": self.reason}


def usable_segments(chunk: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The segments of a chunk, if they have times in order and are its text; none where the chunk is one unit."""
    segments = chunk.get("segments") or ()
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    in_order = all(math.isfinite(time) for time in times) and all(s["start"] < s["end"] for s in segments)
    starts = [segment["start"] for segment in segments]
    in_order = in_order and starts == sorted(starts)
    return segments if in_order and join_texts(s["text"] for s in segments) == chunk["text"] else ()


def judge_segments(
    segments: Sequence[Mapping[str, Any]],
    auxiliary_text: str,
    settings: ValidateSettings,
    labelled: Mapping[str, float | None] | None = None,
    further_texts: Sequence[str] = (),
) -> list[JudgedSegment]:
    """Each segment of a chunk with its own distance from the auxiliary's transcript of the whole chunk, and a verdict.

    Where there are `further_texts`, of more auxiliaries, the distance of a segment is that of all.

    A segment that takes part in a loop of the chunk loops (Eq. 1), even where it says its part of it once, and so do
    those after it: their times are those of a decoder that lost the thread. A transcript of the auxiliary that loops
    condemns no segment of the chunk (Eq. 5): which of them it still knew is not known.
    The judges beyond the distance measure each segment by itself, but for what was `labelled`, measured of the chunk
    when it was labelled: that holds for each of its segments.
    """
    texts = [segment["text"] for segment in segments]
    loops, judged = looping_parts(texts), []
    compared = [_compared(texts, loops, one, settings) for one in (auxiliary_text, *further_texts)]
    for segment, *by_each in zip(segments, *compared, strict=True):
        (first, span), *further = by_each
        distance = float(joint_distance([one.distance for one, _ in by_each], settings.auxiliaries_by))
        comparison = replace(first, distance=distance)
        alone = {"text": segment["text"], "duration": segment["end"] - segment["start"]}
        known = {**(labelled or {}), **measures(alone, vars(settings))}
        reason = reason_to_drop(comparison, known, vars(settings))
        judged.append(JudgedSegment(segment, comparison, reason, span, further))
    return judged


def _compared(
    texts: Sequence[str], loops: Sequence[bool], auxiliary_text: str, settings: ValidateSettings
) -> list[tuple[LabelComparison, Span]]:
    """The text of each segment beside what an auxiliary has of it, and where that is in its transcript."""
    compared, auxiliary_loops, phones = [], is_looping(auxiliary_text), settings.phones
    for text, looping, span in zip(texts, loops, counterparts(texts, auxiliary_text, phones), strict=True):
        one = compare_labels(text, auxiliary_text[slice(*span)], normalise_by=settings.normalise_by, **phones)
        distance = float(distances_of(looping, auxiliary_loops, one.mer, one.per)[settings.metric])
        compared.append((LabelComparison(looping, auxiliary_loops, one.mer, one.per, distance), span))
    return compared


def looping_parts(texts: Sequence[str], ngram: int = LOOP_NGRAM, max_count: int = LOOP_MAX_COUNT) -> list[bool]:
    """Which parts of a text are lost to a loop (Eq. 1, of the whole): from the first that takes part in it on.

    A part takes part where it has characters of an n-gram that occurs more than `max_count` times in the whole.

    >>> looping_parts(["今天講", "謝謝大家收看", "謝謝大家收看" * 5, "再見"])
    [False, True, True, True]
    """
    texts = [" ".join(drop_special_tokens(text).split()) for text in texts]
    whole = join_texts(texts)
    if not is_looping(whole, ngram, max_count):
        return [False] * len(texts)
    grams = [whole[start : start + ngram] for start in range(len(whole) - ngram + 1)]
    counts = Counter(grams)
    first = next(start for start, gram in enumerate(grams) if counts[gram] > max_count)
    ends = [len(join_texts(texts[: count + 1])) for count in range(len(texts))]
    return [end > first for end in ends]


def runs_of(judged: Sequence[JudgedSegment]) -> list[list[JudgedSegment]]:
    """Neighbouring segments of the same verdict together: all trusted, or all distrusted for the same reason."""
    runs: list[list[JudgedSegment]] = []
    for one in judged:
        if runs and runs[-1][-1].reason == one.reason:
            runs[-1].append(one)
        else:
            runs.append([one])
    return runs


def mean_distance(judged: Sequence[JudgedSegment], further: int | None = None) -> float:
    """Mean distance of some segments, by their seconds: at most the threshold where each of them is.

    It is the one by which they were judged, or that from a `further` auxiliary alone.
    """
    seconds = math.fsum(one.seconds for one in judged)
    distances = [(one.comparison if further is None else one.further[further][0]).distance for one in judged]
    mean = math.fsum(one.seconds * distance for one, distance in zip(judged, distances, strict=True)) / seconds
    return min(max(mean, min(distances)), max(distances))  # and not by a rounding beyond all of them


def main_reason(judged: Sequence[JudgedSegment]) -> str | None:
    """Why a chunk is dropped, by most of its seconds; None where a segment of it is trusted."""
    if any(one.reason is None for one in judged):
        return None
    seconds: Counter[str] = Counter()
    for one in judged:
        seconds[str(one.reason)] += one.seconds  # type: ignore[assignment]
    return max(seconds, key=lambda reason: seconds[reason])


def trusted_end(judged: Sequence[JudgedSegment]) -> str | None:
    """The text of the trusted segments that a chunk ends with, for the prompt of the next; None without any."""
    last = runs_of(judged)[-1]
    return None if last[0].reason is not None else join_texts(one.segment["text"] for one in last)
