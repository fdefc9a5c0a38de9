"""The card of a run's student: its facts from the files that the stages left, then the one renderer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.data.settings import EvaluationDataSettings
from k2d_hf.distillation.settings import deciding_training
from k2d_hf.evaluation.sets import UNNAMED, figures_of_sets
from k2d_hf.evaluation.timing import MEASUREMENT, timed_together
from k2d_hf.files.settings import deciding
from k2d_hf.models.checkpoint import Checkpoint, count_parameters
from k2d_hf.models.language_mix import mix_of
from k2d_hf.models.parts import layer_indices
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.publishing.card_names import has_id, hub_id, public_name, teacher_licence, teacher_name
from k2d_hf.validation.combining import demands
from k2d_hf.validation.judges import JUDGES

if TYPE_CHECKING:
    from k2d_hf.publishing.model_card_data import EvaluatedSet, K2DModelCardData, Sample, TrainingFacts


class Card(Stage):
    """Everything that is known of a student to its card."""

    name = "card"
    output = "student/README.md"

    def depends(self, run: RunState) -> list[Any]:
        """All settings, the names of the models, and every stage before."""
        before = [stage for stage in run.planned if stage not in (self.name, "push")]
        settings = {**deciding(run.recipe), "distil": deciding_training(run.recipe.distil)}
        models = [model.name for model in dict.fromkeys((run.original, run.teacher, *run.auxiliaries))]
        return [settings, *models, run.ran(*before)]

    def run(self, run: RunState, job: Job) -> str:
        """Write README.md beside the student."""
        models = {
            name: getattr(run, name) for name in ("teacher", "auxiliary", "more_auxiliaries", "origin", "original")
        }
        return str(write_card(run.folder, run.recipe, **models))


def write_card(
    directory: Path,
    recipe: Recipe,
    *,
    teacher: Checkpoint,
    auxiliary: Checkpoint,
    origin: Checkpoint | None = None,
    original: Checkpoint | None = None,
    more_auxiliaries: Sequence[Checkpoint] = (),
    **given: Any,
) -> Path:
    """Write `student/README.md` of a run, with what is `given`: fields of `K2DModelCardData`, such as `license="mit"`.

    Results on sets that are benchmarks of the Hub go to `student/.eval_results/`.

    The run's `directory` has `validated` or `mixed`, `student` and, where there was evaluation data, `evaluation.json`.
    """
    from k2d_hf.publishing.card_rendering import render_card
    from k2d_hf.publishing.eval_results import write_results

    models: dict[str, Any] = {"teacher": teacher, "auxiliary": auxiliary, "origin": origin, "original": original}
    data = gather_facts(directory, recipe, **models, more_auxiliaries=more_auxiliaries)
    for name, value in given.items():
        setattr(data, name, value)
    path = directory / "student" / "README.md"
    render_card(data).save(path)
    write_results(data.evaluations, directory / "student")
    return path


def gather_facts(
    directory: Path,
    recipe: Recipe,
    *,
    teacher: Checkpoint,
    auxiliary: Checkpoint,
    origin: Checkpoint | None = None,
    original: Checkpoint | None = None,
    more_auxiliaries: Sequence[Checkpoint] = (),
) -> K2DModelCardData:
    """Collect the facts of a run from its files; what is in a missing file stays unknown.

    The student has layers of `origin`, and the teacher was adapted from `original`: the teacher, where not given.
    """
    from k2d_hf.publishing.card_facts import data_facts, settings_for_card
    from k2d_hf.publishing.model_card_data import K2DModelCardData

    named = original or teacher  # an adapted one has the name of a folder of this run
    student = directory / "student"
    own, begun = (_read(folder / "config.json", {}) for folder in (student, (origin or teacher).path))
    licence: dict[str, Any] = dict(teacher_licence(named.path, hub_id(named.name) if has_id(named) else None))
    figures = figures_of_sets(_read(directory / "evaluation.json", {})) if recipe.evaluation_sets else {}
    judged = ("metric", "threshold", *(judge.setting for judge in JUDGES))
    recordings = hub_id(recipe.recordings.source)
    chunks, read = data_facts(load_chunks(directory / recipe.labels)), _read(directory / "labelling.json", {})
    return K2DModelCardData(
        # the user
        model_name=recipe.name,
        model_id=recipe.hub.repo_id,
        **licence,
        datasets=[name for name in (recipe.hub.data_repo_id, recordings) if name],
        samples=_samples(directory, recipe) if recipe.hub.sample_output else [],
        revision=recipe.hub.revision,
        ctranslate2=recipe.hub.adds_ctranslate2,
        ggml=recipe.hub.adds_ggml,
        decoding=recipe.decoding,
        # the recipe and labelling
        teacher=teacher_name(teacher, named),
        base_model=named.name if has_id(named) else None,
        beam_size=recipe.label.beam_size,
        settings={  # those that are not at the paper's value, less those that have a row
            "labelling": settings_for_card(recipe.label, besides=("beam_size",)),
            "validation": settings_for_card(recipe.validate, besides=judged),
            "soft targets": settings_for_card(recipe.targets, besides=("enabled",)),
        },
        recordings=recordings
        and ", ".join(filter(None, (recordings, recipe.recordings.config, recipe.recordings.split))),
        auxiliary=public_name(auxiliary),
        auxiliary_is_teacher=teacher.path == auxiliary.path,
        more_auxiliaries=list(map(public_name, more_auxiliaries)),
        auxiliaries_by=recipe.validate.auxiliaries_by,
        begins_with=_begins_with(recipe),
        language_mix=mix_of(own) or recipe.student.language_mix,
        encoder_layers=_layers(own, begun, "encoder_layers", recipe.student.encoder_layers),
        encoder_neurons=_neurons(own, begun, recipe.student.encoder_neurons),
        decoder_layers=_layers(own, begun, "decoder_layers", recipe.student.decoder_layers),
        parameters=count_parameters(student),
        teacher_parameters=count_parameters(teacher.path),
        # validation
        data=chunks and replace(chunks, read_seconds=read.get("seconds")),
        metric=recipe.validate.metric,
        threshold=recipe.validate.threshold,
        demands=demands(vars(recipe.validate)),
        # the trainer
        training=_training(student, recipe),
        training_log=_read(student / "training_log.json", []),
        # evaluation
        evaluations=[_evaluated(name, models, recipe.evaluation_sets.get(name)) for name, models in figures.items()],
        machine=_machine(next(iter(figures.values()), {})),
    )


def _evaluated(name: str, figures: Mapping[str, Any], data: EvaluationDataSettings | None) -> EvaluatedSet:
    """A test set with its figures; the path of one that is not of the Hub stays out."""
    from k2d_hf.publishing.model_card_data import EvaluatedSet

    measured = EvaluatedSet(figures, name)
    if data is None or hub_id(data.source) is None:
        return measured
    return replace(measured, dataset=data.source, config=data.config, split=data.split, task=data.benchmark_task)


def _samples(directory: Path, recipe: Recipe) -> list[Sample]:
    """What the student wrote at the beginning of the first recording of each set, beside its reference."""
    from k2d_hf.publishing.model_card_data import Sample

    samples: dict[str, Sample] = {}
    path = directory / "evaluation_transcripts.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if recipe.evaluation_sets and path.is_file() else ():
        row = json.loads(line)
        if row["model"] == "student":
            name = row.get("set", UNNAMED)
            samples.setdefault(name, Sample(name, row["reference"], row["hypothesis"]))
    return list(samples.values())


def _training(student: Path, recipe: Recipe) -> TrainingFacts | None:
    """What the trainer left beside the student. Without a teacher in memory it does not know whose encoder that is."""
    from k2d_hf.publishing.model_card_data import TrainingFacts

    stored = _read(student / "training_facts.json", None)
    if stored is None:
        return None
    training = TrainingFacts(**stored)
    begun, learned = recipe.student, recipe.distil
    copied = begun.has_whole_encoder and begun.init is None
    copied = copied and learned.get("freeze_encoder", True) and not learned.get("peft")
    return replace(training, shares_encoder=True) if training.shares_encoder is None and copied else training


def _machine(figures: Mapping[str, Any]) -> str | None:
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


def _neurons(student: dict[str, Any], origin: dict[str, Any], chosen: int | None) -> str | None:
    """`1024 of 2048`; None where the recipe keeps all of them."""
    kept, total = (config.get("encoder_ffn_dim") for config in (student, origin))
    return None if chosen is None or kept is None else f"{kept} of {total}"


def _read(path: Path, otherwise: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else otherwise
