"""Figures of errors, and the ways of use that a card shows, each with what it did: none has what another measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k2d_hf.evaluation.switching import SWITCHING, switching_of
from k2d_hf.scoring.error_rates import MixedErrors, mixed_errors
from k2d_hf.scoring.normalisers import MIXED, english_word_errors
from k2d_hf.scoring.parts import is_paper_pair, part_rates

PIPELINE = "pipeline"  # of transformers: float32, which is what a student is stored in, whatever the device
FASTER_WHISPER = "faster-whisper"
SETTINGS: Mapping[str, Mapping[str, str]] = {
    PIPELINE: {"engine": "transformers", "dtype": "float32"},
    FASTER_WHISPER: {"engine": "faster-whisper"},
}
COUNTS = ("substitutions", "deletions", "insertions", "reference_length")
# Of an evaluation's figures those that a card shows of a way; of older runs some are unknown.
FIGURES_OF_A_WAY = (
    *("engine", "dtype", "device", "threads", "beam_size", "temperature_fallback", "recordings", "audio_seconds"),
    *("mer", "looping_outputs", "rtf"),
)


def error_figures(pairs: Iterable[tuple[str, str]], language: str | None = None) -> dict[str, Any]:
    """Those of an evaluation's figures that follow from pairs of a reference and a hypothesis, and their language.

    Of another pair than Mandarin-English `zh_cer` and `en_wer` are None; its parts are in `parts`, by title.
    """
    pairs = list(pairs)
    errors = _errors(pairs)
    counts = {name: getattr(errors.mixed, name) for name in COUNTS}
    paper = is_paper_pair(errors, language)
    parts = (errors.zh_cer, errors.en_wer, {}) if paper else (None, None, part_rates(errors, language))
    rates = {"mer": errors.mer, **dict(zip(("zh_cer", "en_wer", "parts"), parts, strict=True))}
    scripts = {"insertions_by_script": dict(errors.insertions_by_script), SWITCHING: switching_of(pairs)}
    return {**rates, **counts, **scripts}


def rates_of_normaliser(normaliser: str, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The figures that a set's normaliser adds to those over mixed tokens: none, or a word error rate with counts."""
    if normaliser == MIXED:
        return {"normaliser": normaliser, "wer": None, "word_errors": None}
    errors = english_word_errors(pairs)
    counts = {name: getattr(errors, name) for name in COUNTS}
    return {"normaliser": normaliser, "wer": errors.rate, "word_errors": counts}


def is_measured(way: str, figures: Mapping[str, Any], *, batch_size: int) -> bool:
    """Whether an evaluation with these figures was of this way: its engine and number format, a recording at a time."""
    alone = batch_size == 1 or way == FASTER_WHISPER  # which takes them one after the other in any case
    return alone and all(figures.get(name) == value for name, value in SETTINGS[way].items())


def way_figures(figures: Mapping[str, Any], *, differs: float | None = None) -> dict[str, Any]:
    """The figures that a card shows of a way, from those of its evaluation, and by how much its text `differs`.

    That is a share of mixed tokens, against the text of the evaluation proper; None where it is that evaluation.
    """
    return {**{name: figures.get(name) for name in FIGURES_OF_A_WAY}, "differs": differs}


def text_difference(way: Sequence[Mapping[str, Any]], proper: Sequence[Mapping[str, Any]]) -> float | None:
    """Mixed error rate of what a way wrote against what the evaluation proper did; None if not of as many recordings.

    They are compared by position, as a recording that has no name is called by its row, which a part of a set changes.
    """
    if len(way) != len(proper):
        return None
    pairs = ((one["hypothesis"], other["hypothesis"]) for one, other in zip(proper, way, strict=True))
    return _errors(pairs).mer


def _errors(pairs: Iterable[tuple[str, str]]) -> MixedErrors:
    return sum((mixed_errors(reference, hypothesis) for reference, hypothesis in pairs), MixedErrors())
