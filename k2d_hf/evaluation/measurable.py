"""Whether there is anything to measure a model by, asked before one is fetched or trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from k2d_hf.audio.reader import AudioError, audio_duration, span_within
from k2d_hf.data.recording_rows import span_of
from k2d_hf.data.recordings import advice_on_references
from k2d_hf.errors import K2DError
from k2d_hf.scoring.text import mixed_tokens


def check_measurable(recordings: Any) -> None:
    """Look for a recording with a reference and readable audio, by its header; the first one is enough.

    Args:
        recordings: rows with `recording` and `reference`.

    Raises:
        K2DError: if there is none.
    """
    count = 0
    for row in recordings:
        count += 1
        if mixed_tokens(row.get("reference") or "") and row.get("recording") and _is_audio(row):
            return
    raise nothing_to_measure(count, recordings)


def nothing_to_measure(count: int, recordings: Any) -> K2DError:
    """The error for `count` recordings of which none will do."""
    return K2DError(
        f"none of {count} recordings can be evaluated: each needs readable audio and a reference; "
        f"{advice_on_references(recordings)}"
    )


def _is_audio(row: Mapping[str, Any]) -> bool:
    path, (start, duration) = row["recording"], span_of(row)
    try:
        span_within(path, start, duration, audio_duration(path))
    except AudioError:
        return False
    return True
