"""Judges of a label: measures of a chunk, each with a limit of its own, beyond which the chunk is dropped.

They go beyond the paper, so each is off until its setting gives a limit. Everything else about a judge follows from
its entry in `JUDGES`: the setting with its option and argument, the column of validated chunks, the reason that drops
are counted by, what cards, reports and the documentation write of it.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import regex

from k2d_hf.data.chunk_schema import COLUMNS
from k2d_hf.errors import K2DError
from k2d_hf.files.settings import setting
from k2d_hf.models.whisper_tokens import TIMESTAMP_SECONDS
from k2d_hf.scoring.text import mixed_runs, split_runs
from k2d_hf.validation.hallucinations import hallucinated_share

T = TypeVar("T")

SYLLABLES_OF_A_WORD = 2  # or of a number: 15 Han characters a second are as many syllables as 7.5 words
_ONE_CHARACTER = regex.compile(r"\X")


def spoken_syllables(text: str) -> int:
    """Syllables of `text`, roughly, and the same for every mixture of scripts.

    By mixed tokens: one of a single character (Han, kana, Hangul, a letter, a digit) counts as one syllable, any other
    word or number as two. Punctuation is not spoken.
    """
    return sum(map(_syllables, split_runs(mixed_runs(text))))


@lru_cache(maxsize=1 << 16)
def _syllables(token: str) -> int:
    return 1 if _ONE_CHARACTER.fullmatch(token) else SYLLABLES_OF_A_WORD


def speaking_rate(row: Mapping[str, Any]) -> float:
    """The highest rate at which a segment of a chunk, or the whole of it, would have been spoken.

    The teacher's timestamps are learned too, and a long text in a moment is wrong in one of both.

    Args:
        row: with `text` and `duration` (s), and where they are known `segments` with `start`, `end` (s) and `text`.

    Returns:
        Syllables a second. A span may have lasted a step of Whisper's timestamps (0.02 s) longer than they say, so that
        a segment of no duration has a finite rate too: 50 for each of its syllables. 0 where nothing is spoken.
    """
    spans = [(segment["end"] - segment["start"], segment["text"]) for segment in row.get("segments") or ()]
    spans.append((row["duration"], row["text"]))
    return max(
        spoken_syllables(text) / ((seconds if seconds > 0 else 0.0) + TIMESTAMP_SECONDS)  # neither backwards nor NaN
        for seconds, text in spans
    )


def seconds_per_syllable(row: Mapping[str, Any]) -> float:
    """Seconds of a chunk for each syllable of its label: many where the label lacks speech, or speech lacks.

    Args:
        row: with `text` and `duration` (s).

    Returns:
        0 where the label is empty: that nobody speaks is no slow speech.
    """
    syllables = spoken_syllables(row["text"])
    return row["duration"] / syllables if syllables else 0.0


def compression_ratio(row: Mapping[str, Any]) -> float:
    """How much shorter zlib makes the text of a chunk: the ratio by which openai/whisper decodes a window again.

    It is taken of the label, not of a window, and so known of any label, whichever engine wrote it.

    Args:
        row: with `text`, of which the UTF-8 bytes count.

    Returns:
        Length by compressed length; 0 where the label is empty.
    """
    content = row["text"].strip().encode(errors="replace")
    return len(content) / len(zlib.compress(content)) if content else 0.0


@dataclass(frozen=True)
class Judge:
    """A measure of a chunk and its label, of which more is worse."""

    name: str  # of what is measured; the reason `NAME > LIMIT` begins with it
    setting: str  # of validation, which gives the limit; None is off
    help: str  # of that setting
    least: float  # the smallest limit
    example: float  # a limit that is of use
    cause: str  # why a label goes beyond the limit, for the documentation
    unit: str  # of the measure and its limit
    description: str  # of the measure, for cards
    # of a row as labelling writes it, and the settings of validation; a finite number. None: labelling measures it
    measure: Callable[[Mapping[str, Any], Mapping[str, Any]], float] | None = None

    @property
    def column(self) -> str:
        """Of validated chunks, which holds the measure; where labelling measures it, of labelled ones too."""
        return self.name.replace(" ", "_")

    def reason(self, limit: float) -> str:
        """Why a chunk beyond the limit is dropped, as a stable string to count by."""
        return f"{self.name} > {limit:g}"


def _described(column: str) -> str:
    return next(one.description for one in COLUMNS if one.name == column)


JUDGES = (
    Judge(
        name="speaking rate",
        setting="max_speaking_rate",
        help="Largest syllables a second of a label that is kept (a Han character 1, a word 2), such as 15, more than "
        "can be said; null is no limit.",
        least=1,
        example=15,
        cause="more than can be said in that time",
        unit="syllables a second",
        measure=lambda row, settings: speaking_rate(row),
        description="highest rate at which one of its segments would have been spoken, syllables a second",
    ),
    Judge(
        name="known hallucination",
        setting="max_known_hallucination",
        help="Largest share of a segment, or of the label, that is subtitle credits, thanks for watching or the like, "
        "such as 0.5; null is no limit.",
        least=0.01,
        example=0.5,
        cause="what Whisper writes where nobody speaks: subtitle credits, thanks for watching and the like",
        unit="of a segment",
        measure=lambda row, settings: hallucinated_share(row, settings.get("known_phrases") or ()),
        description="largest share of one of its segments, or of the label, that is a known hallucination",
    ),
    Judge(
        name="seconds per syllable",
        setting="max_seconds_per_syllable",
        help="Most seconds of a chunk for each syllable of a label that is kept, such as 1, slower than people speak; "
        "null is no limit.",
        least=0.01,
        example=1,
        cause="too few words for that time: the teacher left some out, or nobody speaks",
        unit="s",
        measure=lambda row, settings: seconds_per_syllable(row),
        description="seconds of the chunk for each syllable of its label",
    ),
    Judge(
        name="compression ratio",
        setting="max_compression_ratio",
        help="Largest compression ratio of a label that is kept, such as 2, for text that repeats itself; null is no "
        "limit.",
        least=0.1,
        example=2,
        cause="text that repeats itself, though not enough to be a loop",
        unit="to 1",
        measure=lambda row, settings: compression_ratio(row),
        description="length of its label by that of the label when zlib compressed it, in bytes",
    ),
    Judge(
        name="uncertainty",
        setting="max_uncertainty",
        help="Largest uncertainty of the teacher (minus the mean log-probability of its tokens, nats) in a label that "
        "is kept, such as 0.7; null is no limit; it takes label.measures.",
        least=0.001,
        example=0.7,
        cause="the teacher was not sure of what it wrote",
        unit="nats",
        description=_described("uncertainty"),
    ),
    Judge(
        name="entropy",
        setting="max_entropy",
        help="Largest mean entropy of the teacher's choice of each token (nats) in a label that is kept, such as 2; "
        "null is no limit; it takes label.measures.",
        least=0.001,
        example=2,
        cause="the teacher might as well have written something else",
        unit="nats",
        description=_described("entropy"),
    ),
    Judge(
        name="no speech probability",
        setting="max_no_speech_probability",
        help="Largest probability of no speech, by the teacher, in a label that is kept, such as 0.6; null is no "
        "limit; it takes label.measures.",
        least=0.001,
        example=0.6,
        cause="the teacher wrote something where it found no speech",
        unit="of a window",
        description=_described("no_speech_probability"),
    ),
    Judge(
        name="missing language",
        setting="max_missing_language",
        help="Most words or characters of another language that a stretch around a label that is kept may lack, by the "
        "rest of its recording, such as 20, for silent translation; null is no limit; it takes label.measures.",
        least=0.1,
        example=20,
        cause="minutes in one language of a recording that has two: the teacher translated, or nobody switched",
        unit="words",
        description=_described("missing_language"),
    ),
)
MEASURED = tuple(judge for judge in JUDGES if judge.measure is not None)  # by validation; the others by labelling
_REASON = re.compile("|".join(rf"{re.escape(judge.name)} > [\d.e+-]+" for judge in JUDGES))


def with_limits(cls: type[T]) -> type[T]:
    """The settings of validation, before they become a dataclass, with one more for the limit of each judge."""
    for judge in JUDGES:
        cls.__annotations__[judge.setting] = "float | None"
        setattr(cls, judge.setting, setting(None, judge.help, least=judge.least, after_model=True))
    return cls


def measures(row: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, float]:
    """What validation measures of a chunk, by column; `settings` are those of validation."""
    return {judge.column: judge.measure(row, settings) for judge in MEASURED if judge.measure is not None}


def labelled_measures(row: Mapping[str, Any]) -> dict[str, float | None]:
    """What labelling measured of a chunk, by column; None of what it did not."""
    return {judge.column: row.get(judge.column) for judge in JUDGES if judge.measure is None}


def check_measured(columns: Iterable[str], limits: Mapping[str, float]) -> None:
    """Raise K2DError for a limit of what labelling measures, where the chunks have no such column."""
    columns = set(columns)
    for judge in JUDGES:
        if judge.measure is None and judge.setting in limits and judge.column not in columns:
            raise K2DError(
                f"{judge.setting}: the chunks have no column {judge.column}; label them with measures (k2d label "
                "--measures), by an engine that gives it"
            )


def limits_of(settings: Mapping[str, Any]) -> dict[str, float]:
    """The limits that are set, by setting, from all settings of validation.

    Raises:
        K2DError: for a limit that is no number above 0.
    """
    given = {judge.setting: settings[judge.setting] for judge in JUDGES if settings.get(judge.setting) is not None}
    for name, limit in given.items():
        if not (isinstance(limit, (int, float)) and 0 < limit < math.inf):
            raise K2DError(f"{name} {limit!r}: give a number above 0, or None for no limit")
    return given


def is_judged(reason: str | None) -> bool:
    """Whether a chunk was dropped by a judge, and so at every threshold of the distance."""
    return reason is not None and _REASON.fullmatch(reason) is not None
