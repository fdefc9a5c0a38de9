"""Segments to the lines of subtitles: bounded in columns and in seconds, ending where sentences do.

Pure functions, for Mandarin and English in one sentence: a Han character takes two columns and may end a line, a word
is torn only where it is longer than a line. Used by the writers of SRT and WebVTT (`transcript_files`); no part of the
method.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import regex

from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.errors import K2DError
from k2d_hf.terminal.screen import columns_of
from k2d_hf.transcription.transcribers import Word

MAX_COLUMNS = 42  # of a line: 42 Latin letters or 21 Han characters
MAX_LINES = 2  # of a subtitle
MAX_SECONDS = 7.0  # that a subtitle stays
LONGEST_PAUSE = 1.0  # s within a subtitle; a longer one ends it
# Columns a second below which a long segment is taken for speech and then silence: half as fast as people speak.
SLOWEST = 6.0

_LETTER = regex.compile(r".[\p{M}\p{Cf}]*+", regex.DOTALL)  # with the marks that are drawn onto it
_SENTENCE_END = ".!?。！？…｡"
_CLAUSE_END = ",;:，、；：､—"
_CLOSING = "'\"’”)]}»」』）》〉】〕"
_OPENING = "\"'“‘([{«「『（《〈【〔"
_ABBREVIATION = re.compile(r"\W*(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|[A-Z])\.", re.ASCII)
# What a subtitle costs, and its end by where that is. Two short sentences share one, two that half fill it do not.
_COST = 0.3
_COST_OF_LINE = 1e3  # so that there are as few as there can be
_AFTER_SENTENCE, _AFTER_CLAUSE, _AFTER_WORD = 0.0, 0.5, 2.0


@dataclass(frozen=True)
class Piece:
    """What stays together: a word, or a Han character, with the punctuation that goes with it; times in seconds."""

    start: float
    end: float
    text: str  # with the space before it, if there is one
    ends_segment: bool = False

    @cached_property
    def columns(self) -> int:
        """Columns of a screen, with the space before it."""
        return columns_of(self.text)

    @cached_property
    def columns_alone(self) -> int:
        """Columns at the beginning of a line, where it needs no space."""
        return self.columns - (self.text[:1] == " ")

    @cached_property
    def end_cost(self) -> float:
        """What it costs to end a line after it."""
        text = self.text.rstrip(_CLOSING)
        if text.endswith(tuple(_SENTENCE_END)) and not _ABBREVIATION.fullmatch(text.strip()):
            return _AFTER_SENTENCE
        return _AFTER_CLAUSE if self.ends_segment or text.endswith(tuple(_CLAUSE_END)) else _AFTER_WORD


def subtitles(
    segments: Sequence[Segment],
    words: Sequence[Sequence[Word]] | None = None,
    *,
    columns: int = MAX_COLUMNS,
    lines: int = MAX_LINES,
    seconds: float = MAX_SECONDS,
) -> list[Segment]:
    """The subtitles of a recording, in order: each stays for a time, and its text has line breaks where it is long.

    No character is lost but spaces at line breaks. Without the times of words, a segment's time is shared out among its
    characters by their columns. A segment that is too long for its text (Whisper's times reach over silence) has it at
    its beginning.

    Args:
        segments: what a model wrote, in seconds from the recording's start.
        words: the words of each segment.
        columns: most columns of a line, of which a Han character takes two.
        lines: most lines of a subtitle.
        seconds: longest time that a subtitle stays.

    Raises:
        K2DError: for less than two columns, one line, or no time.

    >>> for one in subtitles([Segment(0.0, 6.0, "今天講 machine learning。我們用 GPU。")], columns=26, lines=1):
    ...     print(f"{one.start:.1f} {one.end:.1f} {one.text}")
    0.0 4.1 今天講 machine learning。
    4.1 6.0 我們用 GPU。
    """
    if columns < 2 or lines < 1 or not seconds > 0:
        raise K2DError(f"subtitles of {lines} lines of {columns} columns for {seconds:g} s: at least 1, 2 and above 0")
    costs = partial(_subtitle_costs, columns=columns, lines=lines, seconds=seconds)
    shown = [
        Segment(part[0].start, part[-1].end, "\n".join(_lines(part, columns)))
        for run in _runs(pieces(segments, words, columns=columns, seconds=seconds))
        for part in _parted(run, costs)
    ]
    return _timed(shown, segments, seconds)


def pieces(
    segments: Sequence[Segment],
    words: Sequence[Sequence[Word]] | None = None,
    *,
    columns: int = MAX_COLUMNS,
    seconds: float = MAX_SECONDS,
) -> list[Piece]:
    """What subtitles are made of, with times; a word of more columns than a line has is cut."""
    found: list[Piece] = []
    before = ""
    for index, segment in enumerate(segments):
        text = " ".join(segment.text.split())
        if not text:
            continue
        times = _times(text, segment, words[index] if words is not None else (), seconds)
        space = " " if len(join_texts([before[-1:], text])) > len(before[-1:]) + len(text) else ""
        before = text
        for begin, end in _cuts(text, columns):
            first = begin + (text[begin] == " ")
            written = text[begin:end] if begin else space + text[:end]
            found.append(Piece(times[first][0], times[end - 1][1], written, end == len(text)))
    return found


def _cuts(text: str, columns: int) -> list[tuple[int, int]]:
    """Where the pieces of a text begin and end; the space before a piece is its own."""
    found: list[tuple[int, int]] = []
    begin = taken = at = 0
    for letter in _LETTER.findall(text):
        width = columns_of(letter) if letter != " " else 0
        torn = at > begin and text[at - 1] != " " and taken + width > columns
        if at and (torn or _may_break(text[at - 1], letter[0])):
            found.append((begin, at))
            begin, taken = at, 0
        taken += width
        at += len(letter)
    return [*found, (begin, len(text))]


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters; what is written without spaces may be parted anywhere."""
    if " " in (before, after):
        return after == " "
    if before in _OPENING and before not in _CLOSING or after in _CLOSING + _SENTENCE_END + _CLAUSE_END:
        return False
    return _is_wide(before) or _is_wide(after)


def _is_wide(letter: str) -> bool:
    return unicodedata.east_asian_width(letter) in "WF" and "HANGUL" not in unicodedata.name(letter, "")


def _times(text: str, segment: Segment, words: Sequence[Word], seconds: float) -> list[tuple[float, float]]:
    """Start and end of each character, in seconds."""
    start, end = segment.start, max(segment.start, segment.end)
    if "".join(word.text for word in words).split() == text.split():
        shared = [time for word in words for time in _shared("".join(word.text.split()), word.start, word.end)]
        letters = iter(shared)
        return [next(letters) if letter.strip() else (start, start) for letter in text]
    spoken = columns_of(text) / SLOWEST
    if end - start > seconds and spoken < end - start:
        end = start + spoken
    return _shared(text, start, end)


def _shared(text: str, start: float, end: float) -> list[tuple[float, float]]:
    """The time from `start` to `end`, shared out among characters by their columns."""
    whole, before, times = max(columns_of(text), 1), 0, []
    for letter in text:
        after = before + columns_of(letter)
        times.append((start + (end - start) * before / whole, start + (end - start) * after / whole))
        before = after
    return times


def _runs(all_pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces between which there are no long pauses."""
    runs: list[list[Piece]] = []
    for piece in all_pieces:
        if not runs or piece.start - runs[-1][-1].end > LONGEST_PAUSE:
            runs.append([])
        runs[-1].append(piece)
    return runs


_Costs = Callable[[Sequence[Piece], int], Iterator[float]]  # of the parts that begin at an index, by their length


def _parted(run: Sequence[Piece], costs: _Costs) -> list[Sequence[Piece]]:
    """The cheapest way to part a run: the sum of the parts' costs and of their ends'."""
    best: list[tuple[float, int]] = [(math.inf, 0)] * (len(run) + 1)  # cost of all up to here, begin of the last part
    best[0] = (0.0, 0)
    for begin in range(len(run)):
        so_far = best[begin][0] + (run[begin - 1].end_cost if begin else 0.0)
        for end, cost in enumerate(costs(run, begin), begin + 1):
            if so_far + cost < best[end][0]:
                best[end] = so_far + cost, begin
    parts: list[Sequence[Piece]] = []
    end = len(run)
    while end:
        parts.append(run[best[end][1] : end])
        end = best[end][1]
    return parts[::-1]


def _subtitle_costs(run: Sequence[Piece], begin: int, *, columns: int, lines: int, seconds: float) -> Iterator[float]:
    """Costs of subtitles that begin at an index, while they fit, filled line by line; one piece always does."""
    count, taken, whole = 1, 0, 0
    for at in range(begin, len(run)):
        width = run[at].columns if taken else run[at].columns_alone
        if taken + width > columns and at > begin:
            count, taken, width = count + 1, 0, run[at].columns_alone
        taken, whole = taken + width, whole + width
        duration = run[at].end - run[begin].start
        if (count > lines or duration > seconds) and at > begin:
            return
        yield _COST + max(whole / (columns * lines), duration / seconds) ** 2


def _line_costs(run: Sequence[Piece], begin: int, *, columns: int) -> Iterator[float]:
    """Likewise of lines, of which there are to be as few as there can be, and of similar width."""
    taken = 0
    for at in range(begin, len(run)):
        taken += run[at].columns if taken else run[at].columns_alone
        if taken > columns and at > begin:
            return
        yield _COST_OF_LINE + (2 * taken / columns) ** 2


def _lines(part: Sequence[Piece], columns: int) -> list[str]:
    """The lines of a subtitle."""
    lines = _parted(part, partial(_line_costs, columns=columns))
    return ["".join(piece.text for piece in line).strip() for line in lines]


def _timed(shown: Sequence[Segment], segments: Sequence[Segment], seconds: float) -> list[Segment]:
    """Subtitles that stay up to the end of their segment if there is time, at most `seconds`, none over the next."""
    ends = sorted(segment.end for segment in segments)
    timed: list[Segment] = []
    for at, one in enumerate(shown):
        following = shown[at + 1].start if at + 1 < len(shown) else math.inf
        later = bisect_left(ends, one.end)
        end = min(ends[later] if later < len(ends) else one.end, one.start + seconds, max(following, one.start))
        timed.append(Segment(round(one.start, 3), round(end, 3), one.text))
    return timed
