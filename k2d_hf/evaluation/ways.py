"""The ways of use that a student's card shows, each with what it did: the card claims of none what another measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k2d_hf.scoring.error_rates import MixedErrors, mixed_errors

PIPELINE = "pipeline"  # of transformers: float32, which is what a student is stored in, whatever the device
FASTER_WHISPER = "faster-whisper"
SETTINGS: Mapping[str, Mapping[str, str]] = {
    PIPELINE: {"engine": "transformers", "dtype": "float32"},
    FASTER_WHISPER: {"engine": "faster-whisper"},
}
# Of an evaluation's figures those that a card shows of a way; of older runs some are unknown.
FIGURES_OF_A_WAY = (
    *("engine", "dtype", "device", "threads", "beam_size", "temperature_fallback", "recordings", "audio_seconds"),
    *("mer", "looping_outputs", "rtf"),
)


def is_measured(way: str, figures: Mapping[str, Any], *, batch_size: int) -> bool:
    """Whether an evaluation with these figures was of this way: same engine and number format, a recording at a time.

    Args:
        way: one of `SETTINGS`.
        figures: as `Evaluation.figures` gives them.
        batch_size: recordings in one pass; faster-whisper takes them one after the other, whatever it is.
    """
    alone = batch_size == 1 or way == FASTER_WHISPER
    return alone and all(figures.get(name) == value for name, value in SETTINGS[way].items())


def way_figures(figures: Mapping[str, Any], *, differs: float | None = None) -> dict[str, Any]:
    """The figures that a card shows of a way.

    Args:
        figures: of the evaluation of that way, as `Evaluation.figures` gives them.
        differs: share of mixed tokens by which its text differs from that of the evaluation proper; None where it is
            that evaluation.
    """
    return {**{name: figures.get(name) for name in FIGURES_OF_A_WAY}, "differs": differs}


def text_difference(way: Sequence[Mapping[str, Any]], proper: Sequence[Mapping[str, Any]]) -> float | None:
    """Mixed error rate of what a way wrote against what the evaluation proper did; None if not of as many recordings.

    They are compared by position, as a recording that has no name is called by its row, which a part of a set changes.

    Args:
        way: transcripts with `hypothesis`.
        proper: those of the evaluation, of the same recordings in the same order.
    """
    if len(way) != len(proper):
        return None
    pairs = zip(proper, way, strict=True)
    return sum((mixed_errors(one["hypothesis"], other["hypothesis"]) for one, other in pairs), MixedErrors()).mer
