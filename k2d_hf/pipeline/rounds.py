"""Rounds: the student of one is the teacher of the next. Beyond the paper, which has one.

The first rounds adapt the teacher to the speech (all its layers, by adapters); the last makes the small student, out of
better labels and of a teacher that need not be learned anew (noisy-student training, arXiv 1911.04252, without noise).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.files.settings import check_names, read_settings
from k2d_hf.pipeline.recipe import Recipe, read_distil
from k2d_hf.publishing.settings import HubSettings
from k2d_hf.validation.calibrate import validated_labels

SECTIONS = ("label", "validate", "mix", "student", "targets", "distil", "report")  # that a round may change
# What the rounds before the last change in the recipe, unless its `adapt` says otherwise; as in recipes/adapt.
ADAPT: dict[str, dict[str, Any]] = {
    "student": {
        "decoder_layers": None,
        "encoder_layers": None,
        "encoder_neurons": None,
        "init": None,
        "language_mix": None,
    },
    "distil": {
        "peft": {
            "r": 32,
            "lora_alpha": 64,
            "target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
        },
        "num_train_epochs": 6,
        "max_steps": -1,
        "learning_rate": 5e-4,
        "warmup_steps": 10,
        "lr_scheduler_type": "linear",
        "initial_share": 0.0,
    },
    "report": {"student": False},  # nobody is to use it, and its transcripts take a minute
}


def rounds_of(recipe: Recipe) -> list[Recipe]:
    """The recipe of each round, the last in the recipe's own folder, those before it in `round-1`, `round-2`, ...

    The last alone is evaluated: the recipe's teacher, what the rounds before made of it, and the student.

    Raises:
        K2DError: for an `adapt` that is no part of a recipe.
    """
    rounds: list[Recipe] = []
    teacher = recipe.teacher
    adapting = _adapting(recipe)  # with one round, too, so that a wrong setting is found
    for number in range(1, recipe.rounds):
        folder = recipe.directory / f"round-{number}"
        name = f"{recipe.name[:70]}-round-{number}"
        rounds.append(replace(adapting, name=name, teacher=teacher, output=str(folder)))
        teacher = str(folder / "student")
    if not rounds:
        return [replace(recipe, adapt={})]
    original = recipe.evaluate.adapted_from or recipe.teacher
    return [
        *rounds,
        replace(recipe, teacher=teacher, evaluate=replace(recipe.evaluate, adapted_from=original), rounds=1, adapt={}),
    ]


def _adapting(recipe: Recipe) -> Recipe:
    """The recipe with what its rounds before the last change; none of these is pushed, or measured before the last."""
    if not recipe.adapt and recipe.rounds == 1:
        return recipe
    where = f"{recipe.name}: adapt"
    check_names(recipe.adapt, SECTIONS, where=where)
    changed = read_settings(Recipe, merge(asdict(recipe), merge(ADAPT, recipe.adapt)), where=where)
    distil = read_distil(changed.distil, where=where, section="distil", elsewhere=True)
    return replace(changed, distil=distil, evaluation=None, hub=HubSettings(), rounds=1, adapt={})


def planned_rounds(recipe: Recipe) -> list[Recipe]:
    """The same for a plan: a teacher that an earlier round has yet to make is planned as the first one."""
    first, *later = rounds_of(recipe)
    made = [Path(str(each.teacher)).exists() for each in later]
    taught = [each if there else replace(each, teacher=first.teacher) for each, there in zip(later, made, strict=True)]
    return [first, *taught]


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, which go into its sections.

    >>> merge({"distil": {"seed": 1, "max_steps": 5}}, {"distil": {"max_steps": 9}})
    {'distil': {'seed': 1, 'max_steps': 9}}
    """
    merged = dict(values)
    for name, change in changes.items():
        within = merged.get(name)
        merged[name] = {**within, **change} if isinstance(within, Mapping) and isinstance(change, Mapping) else change
    return merged


def label_quality(validated: Path, references: str) -> dict[str, float]:
    """How good a round's labels are: `mer`, of all chunks, `kept_mer`, of those kept, and `kept`, their share.

    Where segments were judged, they take the place of chunks.
    A true MER counts as 1 at most, and by the chunk's seconds, so that a loop weighs no more than the speech it hides.
    Chunks without reference do not count.
    """
    chunks = load_chunks(validated)
    labels = validated_labels(chunks, references)
    keep = labels.keep
    assert labels.true_mer is not None
    assert keep is not None
    known = ~np.isnan(labels.true_mer)
    rates, seconds = np.minimum(labels.true_mer, 1.0), labels.seconds

    def mean(chosen: np.ndarray) -> float:
        return float(np.average(rates[chosen], weights=seconds[chosen])) if chosen.any() else float("nan")

    return {"mer": mean(known), "kept_mer": mean(known & keep), "kept": float(seconds[keep].sum() / seconds.sum())}


def compare_labels(qualities: Sequence[Mapping[str, float]]) -> list[str]:
    """Lines that say how good the labels of each round were, and whether another round promises anything."""
    lines = [
        f"round {number}: true MER of the labels {100 * one['mer']:.1f}%, of those kept {100 * one['kept_mer']:.1f}% "
        f"({100 * one['kept']:.0f}% of the speech)"
        for number, one in enumerate(qualities, start=1)
    ]
    last, before = qualities[-1]["mer"], qualities[-2]["mer"]
    if not last < before:
        lines.append(
            f"round {len(qualities)} had no better labels than round {len(qualities) - 1}: another will not help"
        )
    return lines
