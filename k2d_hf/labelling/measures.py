"""Columns of chunks for judges that need more than a label: the teacher's confidence, and the languages of a recording.

Written where `label.measures` asks for them, and read by `validation.judges`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from k2d_hf.data.chunk_schema import MEASURING, features_of_writer
from k2d_hf.data.chunking import Segment
from k2d_hf.scoring.error_rates import script_of
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.transcription.transcribers import ENTROPY, NO_SPEECH_PROBABILITY, UNCERTAINTY

MISSING_LANGUAGE = "missing_language"
CONFIDENCE = (UNCERTAINTY, ENTROPY, NO_SPEECH_PROBABILITY)


def measured_columns(confidence: Collection[str]) -> list[str]:
    """The columns that labelling writes, of an engine whose segments carry that `confidence`."""
    return [name for name in features_of_writer(MEASURING) if name in confidence or name not in CONFIDENCE]


def lacking_confidence(columns: Collection[str], engine: str) -> str | None:
    """One line on what is not among these columns because the engine does not give it; None where nothing lacks."""
    lacking = [name for name in CONFIDENCE if name not in columns]
    return f"the engine {engine} does not give {' and '.join(lacking)} as it decodes here" if lacking else None


def with_measures(
    rows: Sequence[dict[str, Any]], chunks: Sequence[Sequence[Segment]], columns: Collection[str]
) -> list[dict[str, Any]]:
    """The rows of the chunks of one recording, with these columns.

    Uncertainty and entropy are the mean over the segments of a chunk by their seconds, the probability of no speech the
    highest of one. Each is null where no segment carries it.
    """
    missing = missing_language([row["text"] for row in rows])
    measured = [
        {**_confidence(chunk), MISSING_LANGUAGE: one} for chunk, one in zip(chunks, missing, strict=True)
    ]  # fmt: skip
    return [{**row, **{name: one[name] for name in columns}} for row, one in zip(rows, measured, strict=True)]


def _confidence(chunk: Sequence[Segment]) -> dict[str, float | None]:
    known = [(segment.duration, segment.confidence) for segment in chunk if segment.confidence]
    values = {
        name: [(seconds, one[name]) for seconds, one in known if one.get(name) is not None] for name in CONFIDENCE
    }
    means = {
        name: float(np.average([v for _, v in mean], weights=[s for s, _ in mean])) if mean else None
        for name, mean in values.items()
        if name != NO_SPEECH_PROBABILITY
    }
    return {**means, NO_SPEECH_PROBABILITY: max((v for _, v in values[NO_SPEECH_PROBABILITY]), default=None)}


def missing_language(texts: Sequence[str]) -> list[float]:
    """How many words of a language a stretch of a recording lacks, for each of its chunks, by the text of all of them.

    A teacher that silently translates writes minutes of a mixed lecture in one language. A stretch is a run of chunks
    without a token of one script. It would have some at that script's share of the recording: that many are missing. Of
    several scripts the one counts that most are missing of. A recording in one script misses nothing, and one with
    few words of another language never more than these.

    >>> missing_language(["今天講 learning", "我們來看看", "這裡要注意", "model 很重要"])
    [0.0, 1.0, 1.0, 0.0]
    """
    counts = [Counter(map(script_of, mixed_tokens(text))) for text in texts]
    for one in counts:
        one.pop("digits", None)
    total = sum(counts, Counter[str]())
    missing = [0.0] * len(texts)
    for script, tokens in total.items():
        for lacks, run in groupby(range(len(texts)), key=lambda index: not counts[index][script]):
            stretch = list(run)
            expected = tokens / total.total() * sum(counts[index].total() for index in stretch)
            for index in stretch if lacks else ():
                missing[index] = max(missing[index], expected)
    return missing
