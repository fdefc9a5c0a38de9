"""What validation thinks of each segment of a chunk, where it judges segments: which are trusted, and their length.

Such a chunk has the column `segment_verdicts`, one for each of its `segments`. A chunk without is judged as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from k2d_hf.data.chunk_schema import SEGMENT_VERDICTS

READ = ("keep", "duration", "segments", SEGMENT_VERDICTS)  # columns by which seconds are counted


def trusted_segments(chunk: Mapping[str, Any]) -> list[bool] | None:
    """Whether each segment of a chunk is trusted; None where it was judged as one."""
    verdicts = chunk.get(SEGMENT_VERDICTS)
    return None if verdicts is None else [verdict["drop_reason"] is None for verdict in verdicts]


def distrusted_seconds(chunk: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Reason and length of each distrusted segment of a chunk that is kept, whose tokens have no weight in the loss."""
    if not chunk["keep"] or chunk.get(SEGMENT_VERDICTS) is None:
        return
    for segment, verdict in zip(chunk["segments"], chunk[SEGMENT_VERDICTS], strict=True):
        if verdict["drop_reason"] is not None:
            yield verdict["drop_reason"], segment["end"] - segment["start"]


def kept_seconds(chunk: Mapping[str, Any]) -> float:
    """Seconds of a chunk that are learned from: all of one that is kept, but for its distrusted segments."""
    if not chunk["keep"]:
        return 0.0
    if chunk.get(SEGMENT_VERDICTS) is None:
        return chunk["duration"]
    return float(chunk["duration"]) - math.fsum(seconds for _, seconds in distrusted_seconds(chunk))
