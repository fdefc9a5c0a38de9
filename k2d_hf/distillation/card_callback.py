"""The card of a trainer: facts gathered while they happen, and written where the Trainer wants its card.

`K2DTrainer` adds the callback itself. Losses are in the Trainer's own log, which a resumed training has from its start;
chunks are read when a card is written, and not while training waits.
"""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from k2d_hf.distillation.models import base_whisper
from k2d_hf.distillation.settings import TRAINER_NOT_ON_CARD, DistillationSettings
from k2d_hf.models.language_mix import mix_of
from k2d_hf.publishing.card_facts import LOSS, data_facts, library_versions, settings_for_card
from k2d_hf.publishing.card_names import hub_id, names_of, teacher_licence
from k2d_hf.publishing.card_rendering import render_card
from k2d_hf.publishing.model_card_data import TAGS, DataFacts, K2DModelCardData, TrainingFacts
from k2d_hf.transcription.decoding import carried_decoding

# Texts among the Trainer's own settings that are a choice; others are paths, tokens or names of machines and projects.
CHOICES = ("train_sampling_strategy",)
MEASURED = ("loss", "ce", "kl", "auxiliary_kl", "encoder_mse", "agreement", "mer")
_LOSS_OF_SET = re.compile(r"eval_(?:(?P<name>.*)_)?loss")


class ModelCardCallback(TrainerCallback):
    """Gathers the facts of a training for its card.

    Teacher, auxiliary and chunks are those that the trainer was given: models, checkpoints or None, and the chunks with
    those that validation dropped.
    """

    def __init__(self, trainer: Any, *, teacher: Any, auxiliary: Any, train_dataset: Any) -> None:
        self.trainer = trainer
        self.teacher, self.base_model = names_of(teacher) if teacher is not None else (None, None)
        self.auxiliary = names_of(auxiliary)[0] if auxiliary is not None else None
        self.chunks = train_dataset
        self.given: dict[str, Any] = {}  # fields that the user set
        self.arguments: dict[str, Any] | None = None
        self.evaluated: dict[str, dict[str, float]] = {}
        self._by_step: dict[tuple[str, int], dict[str, float]] = {}
        self._started: float | None = None
        self._seconds: float | None = None
        self._data: DataFacts | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the arguments before training changes them; a resumed one has its figures in its log."""
        self.arguments = arguments_for_card(args)
        self._seconds, self._started = None, time.perf_counter() if state.global_step == 0 else None
        for row in state.log_history:
            self._note(row, row.get("step", 0))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Note the figures of an evaluation set."""
        self._note(metrics or {}, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note how long it took; where the best checkpoint was loaded, figures are those of that one."""
        if self._started is not None:
            self._seconds = time.perf_counter() - self._started
        if args.load_best_model_at_end:
            best = {name: f for (name, step), f in self._by_step.items() if step == state.best_global_step}
            self.evaluated.update(best)

    def on_push_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Bring the card up to date before files go to the Hub; one that is not ours is left alone."""
        path = Path(args.output_dir) / "README.md"
        if self.trainer.is_world_process_zero() and (not path.exists() or f"- {TAGS[1]}\n" in path.read_text("utf-8")):
            self._write(path)

    def create(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write `README.md` to the output folder, on the first process; what is given holds for later cards, too.

        The arguments are those of the Trainer. By default the languages are those of the chunks, the licence is that of
        the card beside the teacher, or OpenAI's, and the title the name of the repository. A student has one task, and
        evaluation sets the names in `eval_dataset`, so `tasks`, `dataset` and `dataset_args` are not used.
        """
        lists = {"language": language, "tags": tags, "datasets": dataset_tags}
        given: dict[str, Any] = {name: [one] if isinstance(one, str) else one for name, one in lists.items()}
        given |= {"license": license, "model_name": model_name, "base_model": finetuned_from}
        self.given |= {name: value for name, value in given.items() if value}
        if self.trainer.is_world_process_zero():
            self._write(Path(str(self.trainer.args.output_dir)) / "README.md")

    def card_data(self) -> K2DModelCardData:
        """All that is known by now."""
        trainer, teacher = self.trainer, self.trainer.teacher
        student: Any = base_whisper(trainer.accelerator.unwrap_model(trainer.model))
        if self._data is None:
            self._data = data_facts(self.chunks)
        data = self._data
        if data is not None and not data.languages:
            data = replace(data, languages=[getattr(student.generation_config, "language", None) or ""])
        model_id = hub_id(getattr(trainer, "hub_model_id", None) or trainer.args.hub_model_id)
        source = teacher.config.name_or_path if teacher is not None else None
        own = "license" in self.given  # a licence may have a name and a link, too
        licence = teacher_licence(source, self.base_model) if source and not own else {}
        known = {
            "model_name": model_id.split("/")[1] if model_id else "Whisper student",
            "model_id": model_id,
            "revision": getattr(trainer.args, "hub_revision", None),
            "decoding": carried_decoding(student.generation_config.to_dict()),
            **licence,
            "teacher": self.teacher,
            "base_model": self.base_model,
            "auxiliary": self.auxiliary,
            "encoder_layers": _layers(student, teacher, "encoder_layers"),
            "encoder_neurons": _neurons(student, teacher),
            "decoder_layers": _layers(student, teacher, "decoder_layers"),
            "language_mix": mix_of(vars(student.config)),
            "parameters": student.num_parameters(),
            "teacher_parameters": teacher.num_parameters() if teacher is not None else None,
            "data": data,
            "training": self.training_facts(),
            "training_log": trainer.state.log_history,
            "adapters_alone": hasattr(trainer.model, "peft_config"),
        }
        return K2DModelCardData(**{**known, **self.given})

    def training_facts(self) -> TrainingFacts | None:
        """What the trainer knows; None before it has trained."""
        if self.arguments is None:
            return None
        trainer, args, state = self.trainer, self.trainer.args, self.trainer.state
        rows = trainer.train_dataset
        has_kl = trainer.teacher is not None or "teacher" in trainer.stored
        return TrainingFacts(
            loss={name: getattr(args, name) for name in LOSS},
            arguments=self.arguments,
            batch_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            processes=args.world_size,
            device=torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else args.device.type,
            chunks=trainer.chunks_in_epoch if hasattr(rows, "__len__") else None,
            sources=trainer.mixture.facts() if trainer.mixture is not None else [],
            steps=state.global_step,
            epochs=state.epoch,
            seconds=self._seconds,
            soft_targets="teacher" in trainer.stored if has_kl else None,
            shares_encoder=trainer.shares_encoder if trainer.teacher is not None else None,
            adapters=_adapters(trainer.model),
            evaluated=self.evaluated,
            versions=library_versions(),
        )

    def _note(self, metrics: dict[str, Any], step: int) -> None:
        """Keep the figures of evaluation sets, whose loss is `eval_loss` or, of a set called dev, `eval_dev_loss`."""
        for key in metrics:
            if match := _LOSS_OF_SET.fullmatch(key):
                prefix = key.removesuffix("loss")
                figures = {name: float(metrics[prefix + name]) for name in MEASURED if prefix + name in metrics}
                name = match["name"] or ""
                self.evaluated[name] = self._by_step[name, step] = figures

    def _write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        render_card(self.card_data()).save(path)


def arguments_for_card(args: Any) -> dict[str, Any]:
    """Training arguments other than the defaults: numbers, switches and one-word choices, in the dataclass's order.

    Never a path, a token, the name of a run, or the weights of the loss, which a card shows in any case.
    """
    ours = {entry.name for entry in dataclasses.fields(DistillationSettings)}

    def belongs(name: str) -> bool:
        text = isinstance(getattr(args, name), str) and not isinstance(getattr(args, name), Enum)
        return name not in TRAINER_NOT_ON_CARD and (name in ours or name in CHOICES or not text)

    return {name: value for name, value in settings_for_card(args, besides=LOSS).items() if belongs(name)}


def _layers(student: Any, teacher: Any, name: str) -> str:
    kept = getattr(student.config, name)
    return str(kept) if teacher is None else f"{kept} of {getattr(teacher.config, name)}"


def _neurons(student: Any, teacher: Any) -> str | None:
    """Of each encoder layer, where they are others than the teacher's."""
    if teacher is None or student.config.encoder_ffn_dim == teacher.config.encoder_ffn_dim:
        return None
    return _layers(student, teacher, "encoder_ffn_dim")


def _adapters(model: Any) -> str | None:
    """`LORA, rank 8`."""
    if (config := getattr(model, "peft_config", {}).get("default")) is None:
        return None
    rank = getattr(config, "r", None)
    return f"{config.peft_type.value}{f', rank {rank}' if rank else ''}"
