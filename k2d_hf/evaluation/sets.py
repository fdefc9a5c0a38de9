"""Test sets: recordings with how they are scored, the file of their figures, and averages over sets that are alike.

The paper measures on four sets, two of them of its own domain. A recipe has one without a name, or several by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

from k2d_hf.data.recordings import advice_on_references
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.long_form import check_measurable, load_long_form
from k2d_hf.scoring.normalisers import MIXED

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.data.settings import EvaluationDataSettings

UNNAMED = ""  # the name of the set of a recipe that has one without a name
_SETS = "sets"  # the key in `evaluation.json` below which named sets are

Figures: TypeAlias = Mapping[str, Any]
ByModel: TypeAlias = Mapping[str, Figures]


@dataclass(frozen=True)
class EvaluationSet:
    """Recordings with references, the language that models are given for them, and the normaliser of their rates.

    Without a `language` each recording has its own, or the model's; `normaliser` is one of
    `k2d_hf.scoring.normalisers.NORMALISERS`.
    """

    recordings: Dataset
    language: str | None = None
    normaliser: str = MIXED


@dataclass(frozen=True)
class MacroAverage:
    """Rates averaged over sets, each counted once whatever its length."""

    sets: list[str]
    language: str | None
    mer: dict[str, float]  # by model
    wer: dict[str, float]  # likewise; empty where the sets have none


def load_set(data: EvaluationDataSettings, language: str | None = None) -> EvaluationSet:
    """The set that settings describe; `language` is that of sets that give none.

    Raises:
        K2DError: if its recordings cannot be read, or none of them can be measured.
    """
    recordings = load_long_form(**data.reading)
    if not any(recordings["reference"]):
        advice = advice_on_references(recordings)
        raise K2DError(f"none of {len(recordings)} recordings in {data.source} has a reference; {advice}")
    check_measurable(recordings)
    return EvaluationSet(recordings, data.language or language, data.normaliser)


def figures_of_sets(content: Mapping[str, Any]) -> dict[str, ByModel]:
    """Figures by set and model out of the content of `evaluation.json`; that of one set has them by model alone."""
    inner = content.get(_SETS)
    if list(content) == [_SETS] and isinstance(inner, Mapping) and "mer" not in inner:
        return dict(inner)
    return {UNNAMED: content} if content else {}


def file_of_sets(figures: Mapping[str, ByModel]) -> dict[str, Any]:
    """The content of `evaluation.json`, of which `figures_of_sets` gives the figures back."""
    return dict(figures[UNNAMED]) if list(figures) == [UNNAMED] else {_SETS: dict(figures)}


def macro_averages(figures: Mapping[str, ByModel]) -> list[MacroAverage]:
    """An average of each group of sets that are of one language and normaliser, and measured with the same models.

    Rates of different languages have no mean: a tenth of the characters and a tenth of the words are not as much.
    """
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, models in figures.items():
        first = next(iter(models.values()))
        key = (first.get("language"), first.get("normaliser", MIXED), *models)
        groups.setdefault(key, []).append(name)
    return [_average(names, figures) for names in groups.values() if len(names) > 1]


def _average(names: Sequence[str], figures: Mapping[str, ByModel]) -> MacroAverage:
    def mean(rate: str) -> dict[str, float]:
        rates = {model: [figures[name][model].get(rate) for name in names] for model in figures[names[0]]}
        known = {model: [value for value in values if value is not None] for model, values in rates.items()}
        return {model: fmean(values) for model, values in known.items() if len(values) == len(names)}

    language = next(iter(figures[names[0]].values())).get("language")
    return MacroAverage(list(names), language, mean("mer"), mean("wer"))
