"""Segments and their packing into chunks of at most 30 s (K2D, section on realistic pseudo-labelling).

Pure functions: the teacher's segments come in, chunks come out, and whatever is dropped is listed.
"""

from __future__ import annotations

import logging
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

logger = logging.getLogger(__name__)

PASSED_OVER = "passed over"  # reason: the teacher wrote nothing about the span, and no chunk has it
PASSED_OVER_INSIDE = "passed over in a chunk"  # likewise between two segments of one chunk, which has it without text
# Seconds from which on such a span is listed. People pause for less between two sentences, and no sentence is shorter.
LEAST_LISTED = 2.0


@dataclass(frozen=True)
class Segment:
    """One timestamped utterance: `start` and `end` in seconds, `text` as the teacher wrote it.

    `confidence` is what the engine measured of the window that it was decoded in, where that was asked for: a number by
    name, those of `Engine.confidence`.
    """

    start: float
    end: float
    text: str
    confidence: Mapping[str, float] | None = field(default=None, compare=False)

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.end - self.start


@dataclass(frozen=True)
class DroppedSpan:
    """A span that reaches no chunk, with the reason."""

    start: float
    end: float
    reason: str


def exceeds(duration: float, max_duration: float) -> bool:
    """Whether `duration` is longer than `max_duration`, both in seconds, to the nearest sample: 30.0 s does not."""
    # Some durations that a float can hold are more samples than one can.
    return duration > max_duration + 1 or round(duration * SAMPLE_RATE) > round(max_duration * SAMPLE_RATE)


def valid_segments(
    segments: Iterable[Segment], *, recording_duration: float, max_duration: float = CHUNK_SECONDS
) -> tuple[list[Segment], list[DroppedSpan]]:
    """Part the teacher's segments into those that can be packed and the spans that cannot.

    Segments come out in order of time. One past the end of the recording (windows of 30 s are padded with silence) is
    cut at the end, one from before the start at the start, and the part cut off is listed; one longer than
    `max_duration` is dropped.

    Args:
        segments: what the teacher wrote, in seconds from the recording's start.
        recording_duration: seconds of audio that there are.
        max_duration: the longest chunk, in seconds.

    Returns:
        The segments to pack, and the spans dropped; their durations sum to those of the input, of which a segment
        whose start or end is no finite number has none: it is listed from 0 to 0 s.

    Raises:
        K2DError: if `recording_duration` is no number of seconds.
    """
    if not 0 <= recording_duration < math.inf:
        raise K2DError(f"a recording of {recording_duration} s: give its duration in seconds")
    segments = list(segments)
    timed = [segment for segment in segments if _has_times(segment)]
    kept: list[Segment] = []
    dropped = [DroppedSpan(0.0, 0.0, "no time")] * (len(segments) - len(timed))
    for segment in sorted(timed, key=lambda s: (s.start, s.end)):
        start, end = segment.start, segment.end
        if segment.duration <= 0:
            dropped.append(DroppedSpan(start, end, "no duration"))
            continue
        if exceeds(segment.duration, max_duration):
            dropped.append(DroppedSpan(start, end, f"longer than {max_duration:g} s"))
            continue
        if start < 0:
            dropped.append(DroppedSpan(start, min(end, 0.0), "before the start"))
        if end > recording_duration:
            dropped.append(DroppedSpan(max(start, recording_duration), end, "past the end"))
        inside = replace(segment, start=max(start, 0.0), end=min(end, recording_duration))
        if inside.start < inside.end:
            if inside.text.strip():
                kept.append(inside)
            else:
                dropped.append(DroppedSpan(inside.start, inside.end, "no text"))
    return kept, dropped


def _has_times(segment: Segment) -> bool:
    return math.isfinite(segment.start) and math.isfinite(segment.end)


def pack_segments(segments: Iterable[Segment], max_duration: float = CHUNK_SECONDS) -> list[list[Segment]]:
    """Pack segments greedily, in order, into chunks of at most `max_duration` seconds.

    A segment joins the chunk unless the chunk would then be too long, in which case a new chunk starts with it. Every
    segment ends up in exactly one chunk; one that is longer than `max_duration` by itself is left out with a warning.

    Raises:
        K2DError: if a segment ends before it starts, starts before the one before it or before 0, or has no times.
    """
    chunks: list[list[Segment]] = []
    chunk_end = previous_start = 0.0
    for segment in segments:
        if not _has_times(segment) or segment.end < segment.start or segment.start < previous_start:
            times = f"{segment.start} to {segment.end} s"
            raise K2DError(f"segments must be in order of time from 0 on, and end after they start, not {times}")
        previous_start = segment.start
        if exceeds(segment.duration, max_duration):
            logger.warning(
                "left out a segment longer than %g s: %.2f to %.2f s", max_duration, segment.start, segment.end
            )
            continue
        if chunks and not exceeds(max(chunk_end, segment.end) - chunks[-1][0].start, max_duration):
            chunks[-1].append(segment)
            chunk_end = max(chunk_end, segment.end)
        else:
            chunks.append([segment])
            chunk_end = segment.end
    return chunks


@dataclass(frozen=True)
class Coverage:
    """What becomes of the seconds of a recording: its duration is `in_chunks` + `listed` + `unlisted`."""

    in_chunks: float  # seconds that lie in a chunk, pauses within it included
    listed: float  # seconds in no chunk that are listed: in `passed_over`, or among the segments that were dropped
    unlisted: float  # seconds in no chunk, in spans too short to be listed
    passed_over: list[DroppedSpan]  # about which the teacher wrote nothing, in no chunk or inside one, in order of time


def coverage(
    chunks: Sequence[Sequence[Segment]], dropped: Iterable[DroppedSpan], *, recording_duration: float
) -> Coverage:
    """Find what of a recording reached a chunk, and the spans that the teacher passed over.

    Args:
        chunks: of the recording, as `pack_segments` gives them.
        dropped: its segments that reached none, as `valid_segments` gives them: listed already, so not listed again.
        recording_duration: seconds of audio that there are.
    """
    known = [(span.start, span.end) for span in dropped]
    in_chunks = [(chunk[0].start, max(segment.end for segment in chunk)) for chunk in chunks]
    outside = _uncovered([*in_chunks, *known], 0.0, recording_duration)
    gaps = [(*gap, PASSED_OVER) for gap in outside]
    for chunk, (start, end) in zip(chunks, in_chunks, strict=True):
        pauses = _uncovered([*((segment.start, segment.end) for segment in chunk), *known], start, end)
        gaps += [(*gap, PASSED_OVER_INSIDE) for gap in pauses]
    passed_over = [
        DroppedSpan(_seconds(start), _seconds(end), reason)
        for start, end, reason in sorted(gaps, key=lambda gap: gap[0])
        if _seconds(end - start) >= LEAST_LISTED
    ]
    in_no_chunk = math.fsum(end - start for start, end in _uncovered(in_chunks, 0.0, recording_duration))
    unlisted = math.fsum(end - start for start, end in outside if _seconds(end - start) < LEAST_LISTED)
    return Coverage(recording_duration - in_no_chunk, in_no_chunk - unlisted, unlisted, passed_over)


def _uncovered(spans: Iterable[tuple[float, float]], start: float, end: float) -> list[tuple[float, float]]:
    """What none of the spans covers from `start` to `end`, in order of time."""
    free: list[tuple[float, float]] = []
    for first, last in sorted(span for span in spans if span[0] < span[1]):
        if min(first, end) > start:
            free.append((start, min(first, end)))
        start = max(start, last)
    return [*free, (start, end)] if start < end else free


def is_unspaced(character: str) -> bool:
    """Whether the character belongs to a script or punctuation that is written without spaces; Korean is not."""
    return unicodedata.east_asian_width(character) in "WF" and "HANGUL" not in unicodedata.name(character, "")


def join_texts(texts: Iterable[str]) -> str:
    """Texts of consecutive segments as one line: a space between them unless a neighbour is written without."""
    joined = ""
    for text in (text.strip() for text in texts):
        if joined and text and not is_unspaced(joined[-1]) and not is_unspaced(text[0]):
            joined += " "
        joined += text
    return joined


def _seconds(difference: float) -> float:
    """A difference of two times without its float noise, still exact to the sample: 42.34 - 12.34 is 30.0."""
    return round(difference, 7)


def chunk_rows(recording: str, chunks: Sequence[Sequence[Segment]], *, language: str | None) -> list[dict[str, Any]]:
    """Rows of the data contract for the chunks of one recording, in order.

    Returns:
        Dictionaries with `recording`, `start` and `duration` (s), `segments` (times from the chunk's start), `text`,
        `previous_text` (None for the first chunk), `next_start` (where the next chunk starts, in seconds from this
        one's start; None for the last) and `language`.
    """
    rows: list[dict[str, Any]] = []
    next_starts = [*(chunk[0].start for chunk in chunks[1:]), None]
    for chunk, next_start in zip(chunks, next_starts, strict=bool(chunks)):
        start = chunk[0].start
        rows.append(
            {
                "recording": recording,
                "start": start,
                "duration": _seconds(max(segment.end for segment in chunk) - start),
                "segments": [
                    {"start": _seconds(s.start - start), "end": _seconds(s.end - start), "text": s.text} for s in chunk
                ],
                "text": join_texts(segment.text for segment in chunk),
                "previous_text": rows[-1]["text"] if rows else None,
                "next_start": None if next_start is None else _seconds(next_start - start),
                "language": language,
            }
        )
    return rows
