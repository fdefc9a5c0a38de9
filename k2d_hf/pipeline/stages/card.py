"""The card of a run's student: its facts from the files that the stages left, then the one renderer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.distillation.settings import deciding_training
from k2d_hf.evaluation.timing import MEASUREMENT, timed_together
from k2d_hf.files.settings import deciding
from k2d_hf.models.checkpoint import Checkpoint, count_parameters
from k2d_hf.models.parts import layer_indices
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.publishing.card_names import has_id, hub_id, public_name, read_licence
from k2d_hf.validation.judges import JUDGES, demands, limits_of

if TYPE_CHECKING:
    from k2d_hf.publishing.model_card_data import K2DModelCardData, TrainingFacts


class Card(Stage):
    """Everything that is known of a student to its card."""

    name = "card"
    output = "student/README.md"

    def depends(self, run: RunState) -> list[Any]:
        """All settings, the names of the models, and every stage before."""
        before = [stage for stage in run.planned if stage not in (self.name, "push")]
        settings = {**deciding(run.recipe), "distil": deciding_training(run.recipe.distil)}
        return [settings, run.teacher.name, run.auxiliary.name, run.ran(*before)]

    def run(self, run: RunState, job: Job) -> str:
        """Write README.md beside the student."""
        return str(write_card(run.folder, run.recipe, teacher=run.teacher, auxiliary=run.auxiliary, origin=run.origin))


def write_card(
    directory: Path,
    recipe: Recipe,
    *,
    teacher: Checkpoint,
    auxiliary: Checkpoint,
    origin: Checkpoint | None = None,
    **given: Any,
) -> Path:
    """Write `student/README.md` of a run, with what is `given`: fields of `K2DModelCardData`, such as `license="mit"`.

    The run's `directory` has `validated` or `mixed`, `student` and, where there was evaluation data, `evaluation.json`.
    """
    from k2d_hf.publishing.card_rendering import render_card

    data = gather_facts(directory, recipe, teacher=teacher, auxiliary=auxiliary, origin=origin)
    for name, value in given.items():
        setattr(data, name, value)
    path = directory / "student" / "README.md"
    render_card(data).save(path)
    return path


def gather_facts(
    directory: Path, recipe: Recipe, *, teacher: Checkpoint, auxiliary: Checkpoint, origin: Checkpoint | None = None
) -> K2DModelCardData:
    """Collect the facts of a run from its files; what is in a missing file stays unknown.

    The student has layers of `origin`, which is the teacher where it is not given.
    """
    from k2d_hf.publishing.card_facts import data_facts, settings_for_card
    from k2d_hf.publishing.model_card_data import EvaluatedSet, K2DModelCardData

    student = directory / "student"
    own, begun = (_read(folder / "config.json", {}) for folder in (student, (origin or teacher).path))
    licence: dict[str, Any] = dict(read_licence(teacher.path))
    figures = _read(directory / "evaluation.json", {}) if recipe.evaluation is not None else {}
    judged = ("metric", "threshold", *(judge.setting for judge in JUDGES))
    chunks, read = data_facts(load_chunks(directory / recipe.labels)), _read(directory / "labelling.json", {})
    evaluated, data = EvaluatedSet(figures), recipe.evaluation
    if data is not None and hub_id(data.source) is not None:  # the path of one that is not of the Hub stays out
        evaluated = replace(evaluated, dataset=data.source, config=data.config, split=data.split)
    return K2DModelCardData(
        # the user
        model_name=recipe.name,
        model_id=recipe.hub.repo_id,
        **licence,
        revision=recipe.hub.revision,
        ctranslate2=recipe.hub.adds_ctranslate2,
        ggml=recipe.hub.adds_ggml,
        decoding=recipe.decoding,
        # the recipe and labelling
        teacher=public_name(teacher),
        base_model=teacher.name if has_id(teacher) else None,
        beam_size=recipe.label.beam_size,
        settings={  # those that are not at the paper's value, less those that have a row
            "labelling": settings_for_card(recipe.label, besides=("beam_size",)),
            "validation": settings_for_card(recipe.validate, besides=judged),
            "soft targets": settings_for_card(recipe.targets, besides=("enabled",)),
        },
        auxiliary=public_name(auxiliary),
        auxiliary_is_teacher=teacher.path == auxiliary.path,
        begins_with=_begins_with(recipe),
        encoder_layers=_layers(own, begun, "encoder_layers", recipe.student.encoder_layers),
        decoder_layers=_layers(own, begun, "decoder_layers", recipe.student.decoder_layers),
        parameters=count_parameters(student),
        teacher_parameters=count_parameters(teacher.path),
        # validation
        data=chunks and replace(chunks, read_seconds=read.get("seconds")),
        metric=recipe.validate.metric,
        threshold=recipe.validate.threshold,
        demands=demands(limits_of(vars(recipe.validate))),
        # the trainer
        training=_training(student, recipe),
        training_log=_read(student / "training_log.json", []),
        # evaluation
        evaluations=[evaluated] if figures else [],
        machine=_machine(figures),
    )


def _training(student: Path, recipe: Recipe) -> TrainingFacts | None:
    """What the trainer left beside the student. Without a teacher in memory it does not know whose encoder that is."""
    from k2d_hf.publishing.model_card_data import TrainingFacts

    stored = _read(student / "training_facts.json", None)
    if stored is None:
        return None
    training = TrainingFacts(**stored)
    settings = recipe.distil
    copied = recipe.student.encoder_layers is None and settings.get("freeze_encoder", True) and not settings.get("peft")
    return replace(training, shares_encoder=True) if training.shares_encoder is None and copied else training


def _machine(figures: dict[str, Any]) -> str | None:
    """Where the models were timed, which need not be where the card is written; None where nobody knows."""
    return next(iter(figures.values()))[MEASUREMENT].get("machine") if timed_together(figures.values()) else None


def _begins_with(recipe: Recipe) -> str | None:
    """What a recipe's student begins with, if not with its teacher; of a folder its name, and not where it lies."""
    init = recipe.student.init
    if init is None:
        return None
    first = init if isinstance(init, str) else init[0]
    return Path(first).name if Path(first).exists() else first


def _layers(student: dict[str, Any], origin: dict[str, Any], name: str, chosen: int | list[int] | None) -> str | None:
    """`2 of 32 (0, 31)`, or what of it is known."""
    kept, total = student.get(name), origin.get(name)
    if kept is None or total is None or chosen is None:
        return str(kept) if kept is not None else None
    return f"{kept} of {total} ({', '.join(map(str, layer_indices(chosen, total, what=name)))})"


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
