"""Silence and noise as lessons: windows without speech, whose label is empty. Beyond the paper, which has none.

A student that only ever met speech writes some into a pause. What the teacher passed over may be a pause, or speech
that it left out. So a second model is asked, the voice detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

from k2d_hf.data.chunk_schema import MEASURING, features_of_writer
from k2d_hf.data.chunking import LEAST_LISTED
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS
from k2d_hf.transcription.speech import Times

MARGIN = 0.3  # s around speech that count as speech: breath, and the detector's own uncertainty


def silent_windows(
    spoken: Iterable[Times], seconds: float, *, least: float = LEAST_LISTED, most: float = CHUNK_SECONDS
) -> list[Times]:
    """The windows of a recording that no speech touches, cut to at most `most` seconds.

    Args:
        spoken: spans of speech: the teacher's segments and what the detector found, in any order, in seconds.
        seconds: length of the recording.
        least: the shortest window, in seconds.
        most: the longest, likewise.

    >>> silent_windows([(5.0, 9.0), (0.5, 2.0)], 50.0)
    [(2.0, 5.0), (9.0, 39.0), (39.0, 50.0)]
    """
    windows: list[Times] = []
    silent_from = 0.0
    for start, end in [*sorted(spoken), (seconds, seconds)]:
        while min(start, seconds) - silent_from >= least:
            window = (silent_from, min(start, seconds, silent_from + most))
            windows.append(window)
            silent_from = window[1]
        silent_from = max(silent_from, end)
    return windows


def choose(windows: Sequence[Any], chunks: int, share: float, *, seed: str) -> list[Any]:
    """So many of the windows that they are a share of all rows, in order of time.

    A recording of few chunks has its fraction of a window as a probability, drawn by `seed`, so that the share is right
    over many.
    """
    random = Random(seed)
    wanted = int(share / (1.0 - share) * chunks + random.random())
    return sorted(random.sample(list(windows), min(wanted, len(windows))))


def with_silences(chunks: Sequence[dict[str, Any]], windows: Iterable[Sequence[float]]) -> list[dict[str, Any]]:
    """Chunks of a recording and silent windows, in order of time: rows of the data contract.

    A window's row has an empty text, no segment, null for what is measured of labels, and the text of the chunk before
    it as `previous_text`. Its `next_start` is None, as what follows is no part of the lesson.
    """
    measures, silent = set(features_of_writer(MEASURING)), []
    for start, end in windows:
        before = [chunk["text"] for chunk in chunks if chunk["start"] < start]
        measured = dict.fromkeys(measures & set(chunks[0]))
        times = {"start": start, "duration": round(end - start, 7), "segments": [], "next_start": None}
        silent.append({**chunks[0], **measured, **times, "text": "", "previous_text": before[-1] if before else None})
    return sorted([*chunks, *silent], key=lambda row: row["start"])
