"""Speed of models against each other: all in one process, in turns on each recording, noted as one measurement.

Real-time factors of different days or machines cannot be compared, so only figures of one measurement are ever divided
by each other: here, for tables, cards, reports and comparisons alike.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from k2d_hf.transcription.transcribers import Transcriber, Transcript

MEASUREMENT = "measurement"  # of an evaluation's figures: which models were timed together, when and where


def new_measurement(models: Iterable[str]) -> dict[str, Any]:
    """The identity of a measurement, with the names of the models that are timed in it."""
    return {
        "id": uuid.uuid4().hex[:16],
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": f"{platform.machine()}, {platform.system()}",
        "models": list(models),
    }


def timed_together(figures: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the speeds of some evaluations are of one measurement; those of which nobody knows are not."""
    found = [(one.get(MEASUREMENT) or {}).get("id") for one in figures]
    return bool(found) and None not in found and len(set(found)) == 1


def speed_up(slow: Mapping[str, Any], fast: Mapping[str, Any]) -> float | None:
    """How many times faster than the first the second is, by their figures; None where that was not measured."""
    if not timed_together([slow, fast]) or min(slow["rtf"], fast["rtf"]) <= 0:
        return None
    return slow["rtf"] / fast["rtf"]


def inverse(rtf: float) -> float | None:
    """RTFx of a real-time factor, as leaderboards give it: seconds of audio a second of work; None of 0."""
    return 1 / rtf if rtf > 0 else None


def transcribe_in_turns(
    transcribers: Sequence[Transcriber],
    recordings: Sequence[tuple[Callable[[], np.ndarray], Sequence[str | None]]],
    progress: Callable[[int, int], None],
    *,
    first: int = 0,
) -> tuple[list[list[Transcript]], list[float]]:
    """Have each model transcribe each recording, or each batch of them, before any goes on to the next.

    So a machine that is busy, or grows warm, in the meantime is so for all. Who begins changes from batch to batch.

    Args:
        transcribers: the models.
        recordings: of each what reads its audio, and its language for each model.
        progress: called with the index of a model and the number of recordings that it has done since.
        first: the model that begins.

    Returns:
        Transcripts of each model, and the seconds of work that they took it; reading audio is not counted.
    """
    transcripts: list[list[Transcript]] = [[] for _ in transcribers]
    worked = [0.0] * len(transcribers)
    size = max(transcriber.options.batch_size for transcriber in transcribers)
    for at in range(0, len(recordings), size):
        batch = recordings[at : at + size]
        audio = [read() for read, _ in batch]
        for turn in range(len(transcribers)):
            index = (first + at // size + turn) % len(transcribers)
            languages = [by_model[index] for _, by_model in batch]
            started = time.perf_counter()
            transcripts[index] += transcribers[index].transcribe(audio, languages)
            worked[index] += time.perf_counter() - started
            progress(index, len(audio))
    return transcripts, worked
