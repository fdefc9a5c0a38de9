"""The parts of a mixed error rate under names that are true: of Mandarin-English those of the paper, else by script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from k2d_hf.scoring.error_rates import ErrorCounts, MixedErrors
from k2d_hf.scoring.text import CHARACTER_SCRIPTS
from k2d_hf.scoring.writing import DIGITS, HAN, LATIN, scripts_of

PAPER = ("zh", "en")  # languages of a set whose parts are the paper's
LEAST_SHARE = 0.05  # of the reference's tokens, from which on another script is a part; fewer are names


def is_paper_pair(errors: MixedErrors, language: str | None) -> bool:
    """Whether the parts of a set are Mandarin and English: by its language, else by the scripts of its references."""
    if language is not None:
        return language in PAPER
    return set(_written(errors.by_script)) <= {HAN, LATIN, DIGITS}


def part_rates(errors: MixedErrors, language: str | None) -> dict[str, float]:
    """Error rates of the tokens of one script alone, by title; none where a single script has all of the words.

    The scripts of the set's language go together under its code, others have their name: of Hindi with English words
    they are `hi WER` and `Latin WER`. Two languages of one script cannot be told apart.

    Args:
        errors: of all recordings of a set.
        language: Whisper's code; None is not known.
    """
    written = _written(errors.by_script)
    own = scripts_of(language) if language is not None else frozenset()
    least = LEAST_SHARE * sum(counts.reference_length for counts in written.values())
    parts: dict[str, ErrorCounts] = {}
    if kept := [script for script in written if script in own]:
        parts[f"{language} {_kind(kept)}"] = sum((written[script] for script in kept), ErrorCounts())
    for script, counts in sorted(written.items(), key=lambda item: -item[1].reference_length):
        if script not in own and script != DIGITS and counts.reference_length >= least:
            parts[f"{script} {_kind([script])}"] = counts
    return {title: counts.rate for title, counts in parts.items()} if len(parts) > 1 else {}


def _written(by_script: Mapping[str, ErrorCounts]) -> dict[str, ErrorCounts]:
    """The scripts of the references."""
    return {script: counts for script, counts in by_script.items() if counts.reference_length}


def _kind(scripts: Iterable[str]) -> str:
    """Of an error rate: by characters, or by words."""
    return "CER" if set(scripts) <= CHARACTER_SCRIPTS else "WER"
