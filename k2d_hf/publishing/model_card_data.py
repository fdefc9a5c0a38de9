"""The facts of a student's card, grouped by their source; an unknown one is None and is left out.

No path of the user's data is in here, and no transcript unless the user allows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index

from k2d_hf.publishing.card_names import hub_id, hub_languages, licence_fields, one_line
from k2d_hf.transcription.decoding import NOT_EVALUATED
from k2d_hf.transcription.transcribers import DecodingOptions

TAGS = ("k2d", "knowledge-distillation", "code-switching", "whisper")
TASK = "automatic-speech-recognition"
ONLY_SET = "evaluation recordings of the recipe"
WORDS = "WER (Whisper's English normaliser)"
RATES = {
    "mer": ("mer", "Mixed error rate"),
    "wer": ("wer", WORDS),
    "zh_cer": ("cer", "Mandarin CER"),
    "en_wer": ("wer", "English WER"),
}


@dataclass(frozen=True)
class DataFacts:
    """The chunks that a student learns from; lengths are in seconds."""

    chunks: int  # those that were labelled
    seconds: float
    kept: int | None = None  # by validation; None where there was none
    kept_seconds: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)  # chunks by reason
    languages: list[str] = field(default_factory=list)  # codes, of what was kept, as the teacher was given them
    means: dict[str, float] = field(default_factory=dict)  # over what was kept: `mer`, `per`, `distance` where measured
    read_seconds: float | None = None  # the length of the recordings that they come from
    given: dict[str, float] = field(default_factory=dict)  # besides them: seconds with a given text, by source
    mixed_in: list[str] = field(default_factory=list)  # codes of further languages that stand in the kept labels


@dataclass(frozen=True)
class TrainingFacts:
    """Facts from the trainer; they can be stored as JSON."""

    loss: dict[str, float]  # weights, and the temperature
    arguments: dict[str, Any]  # those of training that differ from their defaults
    batch_size: int  # chunks in one step, over all processes and accumulated batches
    processes: int
    device: str  # `cpu`, or the name of the GPU
    chunks: int | None  # in an epoch
    steps: int  # done, as are the epochs
    epochs: float | None
    seconds: float | None  # None while it lasts, or where it was interrupted
    soft_targets: bool | None  # whether they were on disk; False has the teacher in memory, None is no KL
    shares_encoder: bool | None  # whether the student's is the teacher's; None where that was not compared
    adapters: str | None  # kind and rank of those that were trained in place of the weights
    evaluated: dict[str, dict[str, float]]  # figures against the labels, by set; the name of a single one is empty
    versions: dict[str, str]  # of the libraries
    sources: list[dict[str, Any]] = field(default_factory=list)  # of chunks, where some have a given text


@dataclass(frozen=True)
class EvaluatedSet:
    """Results of models on recordings with references.

    `figures` of each model are as `Evaluation.figures` gives them; that of the student is called `student`, and has the
    figures of its ways of use under `ways`. `dataset` is the set's id on the Hub, with `config` and `split` there.
    """

    figures: Mapping[str, Mapping[str, Any]]
    name: str = ""  # in the recipe; empty of its only set
    dataset: str | None = None
    config: str | None = None
    split: str | None = None
    task: str | None = None  # `task_id` of a benchmark of the Hub that the set is

    @property
    def title(self) -> str:
        """What the set is called where its name alone stands for it."""
        return hub_id(self.dataset) or one_line(self.name) or ONLY_SET


@dataclass(frozen=True)
class Sample:
    """A recording's reference and the student's text, which a card shows the beginning of."""

    name: str  # of the test set; empty of the only one
    reference: str
    text: str


@dataclass(kw_only=True, repr=False, eq=False)
class K2DModelCardData(ModelCardData):
    """The facts of a card; `to_dict` is its metadata, as the Hub reads it, and `render_card` makes the card.

    The fields of one group come from the same source, named above them.
    """

    # the user
    model_name: str = "Whisper student"
    model_id: str | None = None  # user/name of the student on the Hub
    language: list[str] = field(default_factory=list)
    license: str | None = None  # by default the teacher's
    license_name: str | None = None
    license_link: str | None = None
    tags: list[str] = field(default_factory=list)  # besides our own
    datasets: list[str] = field(default_factory=list)  # ids on the Hub
    revision: str | None = None  # branch of the student's repository; None is the main one
    ctranslate2: bool = False  # whether an export for faster-whisper lies beside the student
    ggml: bool = False  # likewise one for whisper.cpp
    decoding: DecodingOptions = NOT_EVALUATED  # how it decodes by default
    # the recipe and labelling
    teacher: str | None = None
    base_model: str | None = None  # the teacher's id on the Hub
    beam_size: int | None = None  # of the teacher's search
    recordings: str | None = None  # the data set of the Hub, with configuration and split
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a stage, those not at the paper's value
    auxiliary: str | None = None
    auxiliary_is_teacher: bool = False
    more_auxiliaries: list[str] = field(default_factory=list)
    auxiliaries_by: str = "median"  # how one distance is made of those of several
    encoder_layers: str | None = None
    encoder_neurons: str | None = None  # of each layer, where not all are kept
    decoder_layers: str | None = None
    begins_with: str | None = None
    language_mix: dict[str, float] | None = None  # shares in the embedding that the language token begins with
    parameters: int | None = None
    teacher_parameters: int | None = None
    # validation
    data: DataFacts | None = None
    metric: str | None = None
    threshold: float | None = None
    demands: list[str] = field(default_factory=list)  # of the judges beyond the distance, a phrase each
    # the trainer
    training: TrainingFacts | None = None
    training_log: list[dict[str, Any]] = field(default_factory=list)
    adapters_alone: bool = False  # whether the folder holds adapters, and not the student
    # evaluation
    evaluations: list[EvaluatedSet] = field(default_factory=list)
    machine: str | None = None  # where speed was measured
    samples: list[Sample] = field(default_factory=list)  # only what the user allows to be shown

    @property
    def languages(self) -> list[str]:
        """The user's, or else those of the data: that which was given to the teacher, and others in what it wrote."""
        of_data = [*self.data.languages, *self.data.mixed_in] if self.data else ()
        return hub_languages(self.language) or hub_languages(of_data)

    @property
    def given_language(self) -> str | None:
        """The one that models are given: that of the labels, or the user's; None where there are several, or none."""
        of_data = self.data.languages if self.data else []
        languages = of_data if len(of_data) == 1 else self.languages
        return languages[0] if len(languages) == 1 else None

    def to_dict(self) -> dict[str, Any]:
        """The metadata in front of a card, with keys of the Hub alone."""
        teacher = hub_id(self.base_model)
        metadata: dict[str, Any] = {
            "language": self.languages,
            **licence_fields(vars(self)),
            "library_name": "peft" if self.adapters_alone else "transformers",
            "pipeline_tag": TASK,
            # The Hub would guess the relation from the files. It knows adapter, quantized, merge and finetune: a
            # student starts from its teacher's weights and is trained on. Adapters belong to the untrained student,
            # which has no id.
            "base_model": None if self.adapters_alone else teacher,
            "base_model_relation": "finetune" if teacher and not self.adapters_alone else None,
            "datasets": [name for name in self.datasets if hub_id(name)],
            "tags": list(dict.fromkeys([*TAGS, *(one_line(tag) for tag in self.tags if one_line(tag))])),
        }
        if results := self._results():
            metadata["model-index"] = eval_results_to_model_index(one_line(self.model_name), results)
        return {name: value for name, value in metadata.items() if value}

    def _results(self) -> list[EvalResult]:
        """A row for every rate measured, in percent."""
        results: list[EvalResult] = []
        # sets of one type are taken for one set, whatever their names
        types = chain(["evaluation"], (f"evaluation-{number}" for number in count(2)))
        for measured in self.evaluations:
            where: dict[str, Any] = {"dataset_type": hub_id(measured.dataset)}
            if where["dataset_type"]:
                part = {"config": measured.config, "split": measured.split}
                where |= {f"dataset_{name}": one_line(value) for name, value in part.items() if value}
            where["dataset_name"] = measured.title
            where["dataset_type"] = where["dataset_type"] or next(types)
            results += _rates(measured.figures.get("student", {}), "", **where)
        for name, figures in (self.training.evaluated if self.training else {}).items():
            title = one_line(name) or "evaluation chunks of the training"
            results += _rates(figures, ", against the labels", dataset_type=next(types), dataset_name=title)
        return results


def _rates(figures: Mapping[str, Any], against: str, **where: Any) -> list[EvalResult]:
    rates = {name: (kind, figures.get(key)) for key, (kind, name) in RATES.items()}
    rates |= {title: (title.rpartition(" ")[2].lower(), rate) for title, rate in (figures.get("parts") or {}).items()}
    return [
        EvalResult(
            task_type=TASK,
            metric_type=kind,
            metric_name=name + against,
            metric_value=round(100 * rate, 2),
            **where,
        )
        for name, (kind, rate) in rates.items()
        if rate is not None and math.isfinite(rate)
    ]
