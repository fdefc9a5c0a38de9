"""K2DTrainer: transformers' Seq2SeqTrainer with the loss of K2D's stage 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import EvalPrediction, WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.construction import (
    check_arguments,
    open_frozen_models,
    open_metrics,
    open_student,
    prepare_student,
)
from k2d_hf.distillation.evaluating import EvaluatingTrainer
from k2d_hf.distillation.initial_weights import InitialWeights
from k2d_hf.distillation.loss.losses import (
    Head,
    LossSums,
    LossWeights,
    distillation_loss,
    stored_targets,
    supervised_positions,
    weights_at,
    with_encoder_distance,
)
from k2d_hf.distillation.models import (
    base_whisper,
    check_encoders,
    clean_inputs,
    encode,
    is_frozen,
    output_embedding,
    same_weights,
    student_hidden,
    teacher_head,
)
from k2d_hf.distillation.on_policy import as_many_tokens, is_on_policy, with_own_labels
from k2d_hf.distillation.sharding import check_sharding, sums_in_forward

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from peft import PeftConfig

_PROJECTIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class K2DTrainer(EvaluatingTrainer):
    """Distils a student from a teacher on validated pseudo-labels.

    A `Seq2SeqTrainer` that adds the loss: cross-entropy on the labels, KL from the teacher, KL from the auxiliary,
    weights of chunks (see `k2d_hf.distillation.loss.losses`). Processor, collator and metric have defaults. Where the
    student's encoder is frozen and equals the teacher's, weight by weight, it runs once for both. Under FSDP the
    student is sharded; teacher and auxiliary, which are frozen, are complete in every process.

    Args:
        model: the student, or its checkpoint.
        args: settings; the defaults are the paper's loss.
        model_init: makes a student for each training, or for each trial of a search over settings, in place of `model`.
        teacher_model: the teacher or its checkpoint; needed where `args.kl_weight` is not 0 and the chunks hold no
            soft targets (`k2d_hf.distillation.targets`). With soft targets and without a teacher, none is in memory.
        auxiliary_model: likewise, where `args.auxiliary_weight` is not 0.
        teacher_embedding: the teacher's output layer [V, d], where the soft targets are its hidden states and the
            student does not begin with the same.
        train_dataset: chunks as `validate_labels` gives them, those with `keep` true, or utterances with `audio` and
            `text`. A stream of them (`datasets.IterableDataset`) needs `args.max_steps`.
        eval_dataset: likewise.
        processing_class: the student's processor; by default the one saved with student or teacher.
        data_collator: by default a `K2DDataCollator` with the settings of `args`.
        compute_metrics: by default the mixed error rate; it needs `args.predict_with_generate`.
        peft_config: adapters to train instead of the student's own weights. They are saved with `base.json`, which
            names what they were trained on; a student that was given in memory is saved beside them, in `base/`.
        **kwargs: as for `Seq2SeqTrainer`.

    Raises:
        K2DError: if a model that the loss needs is missing, soft targets are of another temperature, vocabularies or
            mel bins differ, the student is to be sharded by DeepSpeed ZeRO-3, or a setting asks for what this loss
            does not have (`k2d_hf.distillation.construction`).
    """

    args: K2DTrainingArguments

    def __init__(
        self,
        model: WhisperForConditionalGeneration | str | Path | None = None,
        args: K2DTrainingArguments | None = None,
        *,
        model_init: Callable[..., WhisperForConditionalGeneration] | None = None,
        teacher_model: WhisperForConditionalGeneration | str | Path | None = None,
        auxiliary_model: WhisperForConditionalGeneration | str | Path | None = None,
        teacher_embedding: Tensor | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: WhisperProcessor | None = None,
        data_collator: Callable[[Any], dict[str, Tensor]] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        self.args = args = check_arguments(args)

        # Student
        student, students, processing_class = open_student(
            model, model_init, processing_class, teacher_model, args=args, ready=self._ready
        )
        base, self.processing_class, self._peft_config = base_whisper(student), processing_class, peft_config

        # Teacher and auxiliary
        self.teacher, self.auxiliary, self.stored, self.stored_embedding = open_frozen_models(
            teacher_model, auxiliary_model, base, train_dataset, args, teacher_embedding
        )
        self._bound_to_embedding = teacher_embedding is None

        # Data
        compute_metrics = open_metrics(args, compute_metrics, processing_class)
        rows, eval_rows, data_collator = self._open_data(train_dataset, eval_dataset, data_collator, student=base)

        # Trainer
        student = self._ready(student)
        if students is not None:
            students.first = student
        super().__init__(
            model=None if students else student,
            model_init=students,
            args=args,
            train_dataset=rows,
            eval_dataset=eval_rows,
            processing_class=processing_class,
            data_collator=data_collator,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        # compute_loss divides by the tokens of the whole accumulated batch, so that n steps of one equal one of n
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        self._open_saving(model, teacher_model, auxiliary_model, train_dataset)

        # Sharding and devices, which accelerate knows
        check_sharding(args, self.accelerator, sharded=self.is_fsdp_enabled)
        self._place_frozen_models(base, own_teacher=isinstance(teacher_model, (str, Path)))

    def _ready(self, student: Any) -> Any:
        """A student as the settings ask for it; also what it shares with the teacher is found out."""
        student = prepare_student(
            student,
            self.args,
            self.processing_class,
            self._peft_config,
            language=self._language,
            stored_embedding=self.stored_embedding if self._bound_to_embedding else None,
        )
        self.initial = InitialWeights(student) if self.args.initial_share else None
        encoder = base_whisper(student).model.encoder
        self.encoder_is_frozen = is_frozen(encoder)
        self.shares_encoder = (
            self.teacher is not None and self.encoder_is_frozen and same_weights(encoder, self.teacher.model.encoder)
        )
        if self.args.encoder_weight:
            check_encoders(base_whisper(student), self.teacher, frozen=self.encoder_is_frozen)
        return student

    def _place_frozen_models(self, student: Any, *, own_teacher: bool) -> None:
        """Move what the KL terms take to the device; a teacher that was loaded here gives up a copy of an encoder."""
        for model in filter(None, (self.teacher, self.auxiliary)):
            model.to(self.args.device)
        if self.stored_embedding is not None:
            self.stored_embedding = self.stored_embedding.to(self.args.device)
        if self.shares_encoder and own_teacher:
            self.teacher.model.encoder = student.get_encoder()

    @property
    def loss_weights(self) -> LossWeights:
        """Weights and temperature of the loss, as the settings have them now: a search over settings changes them."""
        args = self.args
        return LossWeights(args.ce_weight, args.kl_weight, args.auxiliary_weight, args.temperature, args.divergence)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of the design, averaged over supervised tokens (K2D, stage 3).

        Args:
            model: the student, as wrapped.
            inputs: `input_features` [B, mel bins, frames] (or `encoder_states` [B, frames / 2, d]),
                `decoder_input_ids` and `labels` [B, L] (-100 where not supervised), and where used
                `chunk_weights` [B], `token_weights` [B, L] and soft targets, `teacher_hidden` [B, L, d] or
                `teacher_top_ids` and `teacher_top_logprobs` [B, L, k].
            return_outputs: whether to return `(loss, {"loss": loss})`.
            num_items_in_batch: supervised tokens of all accumulated batches; those of this one if None.
        """
        sums = self.loss_sums(model, inputs)
        self._sums["train" if model.training else "eval"].add(sums)
        if num_items_in_batch is None:
            loss = sums.total / max(sums.tokens, 1)
        else:
            # DDP averages over processes what counts all their tokens; DataParallel's batch is complete
            averaged = self.args.average_tokens_across_devices
            scale = self.accelerator.num_processes if averaged else 1 / max(self.args.n_gpu, 1)
            loss = scale * sums.total / torch.as_tensor(num_items_in_batch).clamp(min=1)
        return (loss, {"loss": loss}) if return_outputs else loss

    def loss_sums(self, model: nn.Module, inputs: dict[str, Tensor]) -> LossSums:
        """Loss and components of one batch, summed over its supervised tokens."""
        base = base_whisper(self.accelerator.unwrap_model(model))
        if self.is_fsdp_enabled:

            def sums_of(hidden: Tensor, states: Tensor | None) -> LossSums:
                return self._sums_of(base, inputs, hidden, states if self.shares_encoder else None)

            return sums_in_forward(model, base, inputs, sums_of, frozen_encoder=self.encoder_is_frozen)
        states = self._frozen_states(base, inputs)
        share = self.args.on_policy if model.training else 0.0
        if share and is_on_policy(share, seed=self.args.seed, step=self.state.global_step):
            return self._on_policy_sums(model, base, inputs, states)
        hidden, own_states = student_hidden(model, base, inputs, states)
        inputs, states = clean_inputs(inputs, states if self.shares_encoder else None)
        if not self.args.encoder_weight:
            return self._sums_of(base, inputs, hidden, states)
        with self.accelerator.autocast():
            states = encode(self.teacher, inputs["input_features"])
        sums = self._sums_of(base, inputs, hidden, states)
        labels, weights = inputs["labels"], inputs.get("chunk_weights")
        return with_encoder_distance(sums, own_states, states, labels, weight=self.args.encoder_weight, weights=weights)

    def _on_policy_sums(
        self, model: nn.Module, base: WhisperForConditionalGeneration, inputs: dict[str, Tensor], states: Tensor | None
    ) -> LossSums:
        """The sums of a step whose labels the student writes, counted as those that the batch came with."""
        temperature = self.args.on_policy_temperature
        with self.accelerator.autocast():
            own = encode(base, inputs["input_features"]) if states is None else states
            written = with_own_labels(base, inputs, own, temperature=temperature)
        hidden, _ = student_hidden(model, base, written, states)
        written, states = clean_inputs(written, states if self.shares_encoder else None)
        sums = self._sums_of(base, written, hidden, states, ce=0.0)
        return as_many_tokens(sums, len(supervised_positions(inputs["labels"])[0]))

    def _sums_of(
        self,
        base: WhisperForConditionalGeneration,
        inputs: dict[str, Tensor],
        hidden: Tensor,
        states: Tensor | None,
        **other_weights: Any,
    ) -> LossSums:
        """The sums, from the student's last hidden states [B, L, d] and those of the teacher's encoder, if it ran."""
        labels = inputs["labels"]
        positions = supervised_positions(labels)  # once: a GPU is waited for each time
        in_memory = {"teacher": (self.teacher, states), "auxiliary": (self.auxiliary, None)}
        with self.accelerator.autocast():
            targets: dict[str, Any] = {
                name: teacher_head(model, inputs, positions, known)
                for name, (model, known) in in_memory.items()
                if model
            }
        targets |= {name: stored_targets(name, inputs, positions, self.stored_embedding) for name in self.stored}
        with torch.autocast(labels.device.type, enabled=False):  # the loss chooses its number formats itself
            return distillation_loss(
                Head(hidden[positions], output_embedding(base)),
                labels[positions],
                **targets,
                weights=replace(self.loss_weights, **other_weights),
                token_weights=weights_at(inputs, positions),
                projection_dtype=_PROJECTIONS.get(self.accelerator.mixed_precision),
            )
