"""K2DTrainer: transformers' Seq2SeqTrainer with the loss of K2D's stage 3."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import (
    EvalPrediction,
    Seq2SeqTrainer,
    TrainerCallback,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from k2d_hf.checkpoints import load_whisper, resolve_checkpoint
from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.collator import K2DDataCollator
from k2d_hf.distillation.encoder_states import EncoderStates, fits_disk
from k2d_hf.distillation.losses import Head, LossSums, LossWeights, check_vocabulary, distillation_loss
from k2d_hf.distillation.measures import MixedErrorRateMetric, RunningSums
from k2d_hf.distillation.parties import (
    base_whisper,
    decode,
    encode,
    is_frozen,
    output_embedding,
    same_weights,
    student_hidden,
)
from k2d_hf.distillation.rows import training_rows
from k2d_hf.errors import K2DError
from k2d_hf.whisper_tokens import IGNORED

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig

logger = logging.getLogger(__name__)


class K2DTrainer(Seq2SeqTrainer):
    """Distils a student from a teacher on validated pseudo-labels.

    A `Seq2SeqTrainer` that adds the loss: cross-entropy on the labels, KL from the teacher, KL from the auxiliary,
    weights of chunks (see `k2d_hf.distillation.losses`). Processor, collator and metric have defaults. Where the
    student's encoder is frozen and equals the teacher's, weight by weight, it runs once for both.

    Args:
        model: the student, or its checkpoint.
        args: settings; the defaults are the paper's loss.
        teacher_model: the teacher or its checkpoint; needed where `args.kl_weight` is not 0.
        auxiliary_model: likewise; needed where `args.auxiliary_weight` is not 0.
        train_dataset: chunks as `validate_labels` gives them; those with `keep` false are left out.
        eval_dataset: chunks likewise.
        processing_class: the student's processor; by default the one saved with student or teacher.
        data_collator: by default a `K2DDataCollator` with the settings of `args`.
        compute_metrics: by default the mixed error rate, with `args.predict_with_generate`.
        peft_config: adapters to train instead of the student's own weights.
        **kwargs: as for `Seq2SeqTrainer`.

    Raises:
        K2DError: if a party that the loss needs is missing, or vocabularies or mel bins differ.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration | str | Path,
        args: K2DTrainingArguments | None = None,
        *,
        teacher_model: WhisperForConditionalGeneration | str | Path | None = None,
        auxiliary_model: WhisperForConditionalGeneration | str | Path | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: WhisperProcessor | None = None,
        data_collator: Callable[[Any], dict[str, Tensor]] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = args or K2DTrainingArguments(output_dir="k2d-student")
        processing_class = processing_class or _find_processor(model, teacher_model)
        student: Any = load_whisper(model) if isinstance(model, (str, Path)) else model
        self.teacher: Any = _party("teacher", teacher_model, student, weight=args.kl_weight)
        self.auxiliary: Any = _party("auxiliary", auxiliary_model, student, weight=args.auxiliary_weight)
        self.loss_weights = LossWeights(args.ce_weight, args.kl_weight, args.auxiliary_weight, args.temperature)
        if peft_config is not None:
            student = _with_adapters(student, peft_config, freeze_encoder=args.freeze_encoder)
        base = base_whisper(student)
        output_embedding(base)
        if args.freeze_encoder:
            base.freeze_encoder()
        self.shares_encoder = (
            self.teacher is not None
            and is_frozen(base.model.encoder)
            and same_weights(base.model.encoder, self.teacher.model.encoder)
        )
        if data_collator is None:
            data_collator = _collator(processing_class, args, base)
        if isinstance(data_collator, K2DDataCollator):
            train_dataset = training_rows(train_dataset, data_collator, what="training")
            eval_dataset = training_rows(eval_dataset, data_collator, what="evaluation")
        if compute_metrics is None and args.predict_with_generate:
            compute_metrics = MixedErrorRateMetric(processing_class)
        self.args: K2DTrainingArguments
        super().__init__(
            model=student,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=data_collator,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        # compute_loss divides by the tokens of the whole accumulated batch, so that n steps of one equal one of n
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        self._sums = {mode: RunningSums() for mode in ("train", "eval")}
        for party in (self.teacher, self.auxiliary):
            if party is not None:
                party.to(self.args.device)
        if self.shares_encoder and isinstance(teacher_model, (str, Path)):
            self.teacher.model.encoder = base.get_encoder()  # the teacher's own copy would only take memory
        if isinstance(data_collator, K2DDataCollator):
            self.add_callback(_EpochToCollator(data_collator))
        _tell_language(base, args, train_dataset)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, after the frozen encoder has run once over all chunks, where that pays."""
        if self._keeps_encoder_states():
            self._write_encoder_states()
        return super().train(*args, **kwargs)

    def _keeps_encoder_states(self) -> bool:
        several_epochs = self.args.num_train_epochs > 1 if self.args.max_steps <= 0 else True
        return (
            self.args.keep_encoder_states
            and several_epochs
            and self.shares_encoder
            and self.auxiliary is None
            and isinstance(self.data_collator, K2DDataCollator)
            and hasattr(self.train_dataset, "select")
            and fits_disk(len(self.train_dataset), self.teacher, self._encoder_states_dir)
        )

    @property
    def _encoder_states_dir(self) -> Path:
        return Path(self.args.encoder_states_dir or Path(self.args.output_dir) / "encoder_states")

    def _write_encoder_states(self) -> None:
        """Run the encoder over the chunks whose states are not on disk yet, each process over its share."""
        collator: Any = self.data_collator
        encoder_of = base_whisper(self.accelerator.unwrap_model(self.model))
        states = EncoderStates(self._encoder_states_dir, encoder_of.model.encoder)
        rows: Any = self.train_dataset
        mine = states.missing(rows)[self.args.process_index :: self.args.world_size]
        size = self.args.per_device_train_batch_size
        for at in range(0, len(mine), size):
            chunks = [rows[index] for index in mine[at : at + size]]
            features = collator.features(chunks).to(self.args.device)
            with self.compute_loss_context_manager():
                batch = encode(encoder_of, features).float().cpu().numpy()
            for chunk, one in zip(chunks, batch, strict=True):
                states.write(chunk, one)
        self.accelerator.wait_for_everyone()
        collator.encoder_states = states

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
            inputs: `input_features` [B, mel bins, frames], `decoder_input_ids` and `labels` [B, L] (-100 where not
                supervised), and where used `chunk_weights` [B].
            return_outputs: whether to return `(loss, {"loss": loss})`.
            num_items_in_batch: supervised tokens of all accumulated batches; those of this one if None.
        """
        sums = self.loss_sums(model, inputs)
        self._sums["train" if model.training else "eval"].add(sums)
        loss = sums.total / (num_items_in_batch if num_items_in_batch is not None else max(sums.tokens, 1))
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * (self.accelerator.num_processes if self.args.n_gpu <= 1 else self.args.n_gpu)
        return (loss, {"loss": loss}) if return_outputs else loss

    def loss_sums(self, model: nn.Module, inputs: dict[str, Tensor]) -> LossSums:
        """Loss and components of one batch, summed over its supervised tokens."""
        base = base_whisper(self.accelerator.unwrap_model(model))
        labels = inputs["labels"]
        supervised = labels != IGNORED
        states = inputs.get("encoder_states")
        if states is None and self.shares_encoder:
            states = encode(base, inputs["input_features"])
        hidden = student_hidden(model, base, inputs, states)
        token_weights = None
        if "chunk_weights" in inputs:
            token_weights = inputs["chunk_weights"][:, None].expand_as(labels)[supervised]
        return distillation_loss(
            Head(hidden[supervised], output_embedding(base)),
            labels[supervised],
            teacher=self._help(self.teacher, inputs, supervised, states),
            auxiliary=self._help(self.auxiliary, inputs, supervised, None),
            weights=self.loss_weights,
            token_weights=token_weights,
        )

    def _help(
        self,
        party: WhisperForConditionalGeneration | None,
        inputs: dict[str, Tensor],
        supervised: Tensor,
        states: Tensor | None,
    ) -> Head | None:
        """Hidden states of teacher or auxiliary, for the same decoder inputs as the student's."""
        if party is None:
            return None
        if states is None:
            states = encode(party, inputs["input_features"])
        hidden = decode(party, states, inputs["decoder_input_ids"])
        return Head(hidden[supervised], output_embedding(party))

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Tensor | None, Tensor | None]:
        """Loss of a batch and, with `predict_with_generate`, the tokens that the student writes by itself."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        if prediction_loss_only or not self.args.predict_with_generate:
            return loss, None, None
        settings = {name: value for name, value in (gen_kwargs or self._gen_kwargs).items() if value is not None}
        with torch.no_grad(), self.compute_loss_context_manager():
            base = base_whisper(self.accelerator.unwrap_model(model))
            tokens = base.generate(inputs["input_features"], return_timestamps=False, **settings)
        return loss, tokens, inputs["labels"]

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, with loss and components averaged over tokens and not over batches."""
        sums = self._sums["eval"] = RunningSums()
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        averages = sums.averages(self.accelerator, has_teacher=self.teacher is not None)
        metrics: Any = output.metrics
        metrics.update({f"{prefix}_{name}": value for name, value in averages.items()})
        self._sums["train"].pause()
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with each component of the loss, agreement and supervised tokens per second."""
        if "loss" in logs:
            sums = self._sums["train"]
            averages = sums.averages(self.accelerator, has_teacher=self.teacher is not None)
            averages.pop("loss", None)  # the Trainer's own is the same, over the same steps
            logs = {**logs, **averages, **sums.speed(self.accelerator)}
            self._sums["train"] = RunningSums()
        super().log(logs, start_time)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's, with the same draws of timestamps and prompts at every evaluation."""
        collator = self.data_collator
        self.data_collator = collator.for_evaluation() if isinstance(collator, K2DDataCollator) else collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collator


class _EpochToCollator(TrainerCallback):
    """Tells the collator the epoch, for which it draws timestamps and prompts anew."""

    def __init__(self, collator: K2DDataCollator) -> None:
        self.collator = collator

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.collator.epoch = int(state.epoch or 0)


def _find_processor(*sources: Any) -> WhisperProcessor:
    """The processor saved with the first of the models that has one."""
    for source in sources:
        name = (
            source if isinstance(source, (str, Path)) else getattr(getattr(source, "config", None), "name_or_path", "")
        )
        if name:
            return WhisperProcessor.from_pretrained(resolve_checkpoint(str(name)).path)
    raise K2DError("no processor: give processing_class, or a model that was loaded from a checkpoint")


def _party(
    name: str, model: Any, student: WhisperForConditionalGeneration, *, weight: float
) -> WhisperForConditionalGeneration | None:
    """Teacher or auxiliary, ready to help: loaded, checked against the student, frozen."""
    if weight == 0:
        return None
    if model is None:
        raise K2DError(f"{'kl_weight' if name == 'teacher' else 'auxiliary_weight'} is {weight}: give {name}_model")
    party = load_whisper(model) if isinstance(model, (str, Path)) else model
    base = base_whisper(student)
    check_vocabulary(name, party.config.vocab_size, base.config.vocab_size)
    if party.config.num_mel_bins != base.config.num_mel_bins:
        raise K2DError(
            f"{name} hears {party.config.num_mel_bins} mel bins, student {base.config.num_mel_bins}: "
            "large-v3 and the others cannot be mixed; create the student from the teacher"
        )
    return party.eval().requires_grad_(False)


def _with_adapters(student: WhisperForConditionalGeneration, config: PeftConfig, *, freeze_encoder: bool) -> nn.Module:
    """The student with adapters; none in the encoder where that is frozen, unless the config says where."""
    from peft import get_peft_model

    if freeze_encoder and getattr(config, "exclude_modules", None) is None and hasattr(config, "exclude_modules"):
        config = copy.deepcopy(config)
        config.exclude_modules = r"model\.encoder\..*"
    return get_peft_model(student, config)


def _collator(
    processor: WhisperProcessor, args: K2DTrainingArguments, student: WhisperForConditionalGeneration
) -> K2DDataCollator:
    return K2DDataCollator(
        processor,
        language=args.language or getattr(student.generation_config, "language", None),
        task=args.task,
        timestamp_probability=args.timestamp_probability,
        previous_text_probability=args.previous_text_probability,
        chunk_weighting=args.chunk_weighting,
        seed=args.data_seed if args.data_seed is not None else args.seed,
        max_tokens=student.config.max_target_positions,
        pad_to_multiple_of=8 if torch.cuda.is_available() else 1,
    )


def _tell_language(student: WhisperForConditionalGeneration, args: K2DTrainingArguments, rows: Any) -> None:
    """Make the language of the labels the student's default, so that nobody has to type it."""
    config: Any = student.generation_config
    if not getattr(config, "is_multilingual", False):
        return
    language = args.language or getattr(config, "language", None)
    if language is None and "language" in (getattr(rows, "column_names", None) or []):
        languages = set(rows.unique("language"))
        language = languages.pop() if len(languages) == 1 else None
    config.language, config.task = language, args.task
    config.forced_decoder_ids = None
