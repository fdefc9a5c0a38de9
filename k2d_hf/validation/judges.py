"""Judges of a label: measures of a chunk, each with a limit of its own, beyond which the chunk is dropped.

They go beyond the paper, so each is off until its setting gives a limit. Everything else about a judge follows from
its entry in `JUDGES`: the setting with its option and argument, the column of validated chunks, the reason that drops
are counted by, what cards, reports and the documentation write of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import regex

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
    # of a row as labelling writes it, and the settings of validation; a finite number
    measure: Callable[[Mapping[str, Any], Mapping[str, Any]], float]
    description: str  # of the measure, for cards

    @property
    def column(self) -> str:
        """Of validated chunks, which holds the measure."""
        return self.name.replace(" ", "_")

    def reason(self, limit: float) -> str:
        """Why a chunk beyond the limit is dropped, as a stable string to count by."""
        return f"{self.name} > {limit:g}"


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
)
_REASON = re.compile("|".join(rf"{re.escape(judge.name)} > [\d.e+-]+" for judge in JUDGES))


def with_limits(cls: type[T]) -> type[T]:
    """The settings of validation, before they become a dataclass, with one more for the limit of each judge."""
    for judge in JUDGES:
        cls.__annotations__[judge.setting] = "float | None"
        setattr(cls, judge.setting, setting(None, judge.help, least=judge.least, after_model=True))
    return cls


def measures(row: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, float]:
    """What every judge measures of a chunk, by column; `settings` are those of validation."""
    return {judge.column: judge.measure(row, settings) for judge in JUDGES}


def judged_reason(measured: Mapping[str, float], limits: Mapping[str, float]) -> str | None:
    """The first judge's reason to drop a chunk; None where all keep it. A measure of exactly the limit is kept."""
    beyond = (judge for judge in JUDGES if measured[judge.column] > limits.get(judge.setting, math.inf))
    return next((judge.reason(limits[judge.setting]) for judge in beyond), None)


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


def demands(limits: Mapping[str, float]) -> list[str]:
    """What kept chunks have by the limits that are set: `speaking rate of at most 15 syllables a second`."""
    given = [(judge, limits[judge.setting]) for judge in JUDGES if judge.setting in limits]
    return [f"{judge.name} of at most {limit:g} {judge.unit}" for judge, limit in given]


def describe_validation(settings: Mapping[str, Any]) -> str:
    """How chunks were judged, for cards: metric, threshold, and what else kept chunks have."""
    by_segment = settings.get("unit") == "segment"
    unit = [f"each segment by itself ({settings['keep']})"] if by_segment else []
    threshold = f"threshold {settings['threshold']:g}"
    return ", ".join([settings["metric"], threshold, *unit, *demands(limits_of(settings))])


def is_judged(reason: str | None) -> bool:
    """Whether a chunk was dropped by a judge, and so at every threshold of the distance."""
    return reason is not None and _REASON.fullmatch(reason) is not None
