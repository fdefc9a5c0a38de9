"""K2DTrainer: transformers' Seq2SeqTrainer with the loss of K2D's stage 3."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import get_token
from torch import Tensor, nn
from transformers import EvalPrediction, WhisperForConditionalGeneration, WhisperProcessor, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from k2d_hf.distillation.adapter_base import AdapterBase
from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.batches.collator import EpochToData, default_collator
from k2d_hf.distillation.batches.rows import check_targets, language_of
from k2d_hf.distillation.batches.streams import ChunkStream, chunk_stream, described, is_stream
from k2d_hf.distillation.batches.target_columns import check_embedding, has_targets, kind_of
from k2d_hf.distillation.construction import (
    FreshStudents,
    check_arguments,
    check_evaluation,
    check_processor,
    check_sampling,
    check_untied,
    load_student,
    number_format,
    warn_of_slow_bf16,
)
from k2d_hf.distillation.evaluating import EvaluatingTrainer
from k2d_hf.distillation.loss.losses import (
    Head,
    LossSums,
    LossWeights,
    SoftTargets,
    distillation_loss,
    with_encoder_distance,
)
from k2d_hf.distillation.measures import MixedErrorRateMetric, RunningSums
from k2d_hf.distillation.models import (
    base_whisper,
    check_encoders,
    encode,
    find_processor,
    helper,
    helping_head,
    is_frozen,
    output_embedding,
    same_weights,
    student_hidden,
    with_adapters,
)
from k2d_hf.distillation.sharding import check_loaded, loading_whole, prepare_sharding, sums_in_forward
from k2d_hf.distillation.targets.encoder_cache import keep_encoder_states, states_in_step
from k2d_hf.errors import K2DError
from k2d_hf.models.generation import complete_generation_config
from k2d_hf.models.student import set_language
from k2d_hf.models.student_folder import rewrite_config, saving_complete_processor
from k2d_hf.models.whisper_tokens import IGNORED
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from peft import PeftConfig

logger = logging.getLogger(__name__)

_PROJECTIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class K2DTrainer(EvaluatingTrainer):
    """Distils a student from a teacher on validated pseudo-labels.

    A `Seq2SeqTrainer` that adds the loss: cross-entropy on the labels, KL from the teacher, KL from the auxiliary,
    weights of chunks (see `k2d_hf.distillation.loss.losses`). Processor, collator and metric have defaults. Where the
    student's encoder is frozen and equals the teacher's, weight by weight, it runs once for both. Under FSDP the
    student is sharded; teacher and auxiliary, which are frozen, are whole in every process.

    Args:
        model: the student, or its checkpoint.
        args: settings; the defaults are the paper's loss.
        model_init: makes a student for each training, or for each trial of a search over settings, in place of `model`.
        teacher_model: the teacher or its checkpoint; needed where `args.kl_weight` is not 0 and the chunks hold no
            soft targets (`k2d_hf.distillation.targets`). With soft targets and without a teacher, none is in memory.
        auxiliary_model: likewise, where `args.auxiliary_weight` is not 0.
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
    rounds_states = False  # whether the frozen encoder gives in each step what would be kept, if there were room

    def __init__(
        self,
        model: WhisperForConditionalGeneration | str | Path | None = None,
        args: K2DTrainingArguments | None = None,
        *,
        model_init: Callable[..., WhisperForConditionalGeneration] | None = None,
        teacher_model: WhisperForConditionalGeneration | str | Path | None = None,
        auxiliary_model: WhisperForConditionalGeneration | str | Path | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: WhisperProcessor | None = None,
        data_collator: Callable[[Any], dict[str, Tensor]] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = check_arguments(args)
        if (model is None) == (model_init is None):
            raise K2DError("give either model, a student or its checkpoint, or model_init, which makes one")
        self._peft_config, self._language = peft_config, args.language
        students = None if model_init is None else FreshStudents(model_init, seed=args.seed, ready=self._ready)
        student: Any = students.first if students else load_student(model)
        processing_class = check_processor(processing_class or find_processor(model or student, teacher_model))
        base = base_whisper(student)
        self._tokenizer = processing_class.tokenizer
        complete_generation_config(base, lambda: self._tokenizer)
        check_untied(args, base)
        given = {"teacher": (teacher_model, args.kl_weight), "auxiliary": (auxiliary_model, args.auxiliary_weight)}
        needed = {"teacher": args.encoder_weight}  # in memory, whatever is stored of it
        columns = described(train_dataset)
        self.stored = [  # whose soft targets take the model's place
            name
            for name, (party, weight) in given.items()
            if weight and party is None and not needed.get(name) and has_targets(columns, name)
        ]
        self.stored_embedding: Tensor | None = None  # with which the teacher's stored hidden states become logits
        if "teacher" in self.stored and kind_of(columns) == "hidden":
            self.stored_embedding = output_embedding(base).detach().clone()  # the student's will change
            if not is_stream(train_dataset):
                check_embedding(train_dataset, self.stored_embedding)
        dtype = number_format(args)
        with loading_whole():
            self.teacher, self.auxiliary = (
                helper(name, party, base, 0.0 if name in self.stored else weight or needed.get(name, 0.0), dtype)
                for name, (party, weight) in given.items()
            )
        check_loaded(student=base, teacher=self.teacher, auxiliary=self.auxiliary)
        chunks = train_dataset
        self._own_collator = data_collator is None
        if data_collator is None:
            data_collator = default_collator(processing_class, args, base)
        check_sampling(args, train_dataset, data_collator)
        if compute_metrics is None and args.predict_with_generate:
            compute_metrics = MixedErrorRateMetric(processing_class)
        check_evaluation(args, compute_metrics)
        if is_stream(train_dataset):
            train_dataset = chunk_stream(train_dataset, data_collator, args, self.stored, self.stored_embedding)
        else:
            train_dataset = self._rows_for_loss(train_dataset, data_collator, args, what="training")
        eval_dataset = self._rows_for_loss(eval_dataset, data_collator, args, what="evaluation")
        self._language = args.language or language_of(train_dataset)
        student = self._ready(student, args)
        self._adapter_base = AdapterBase(model, str(args.output_dir), processing_class) if peft_config else None
        if students is not None:
            students.first = student
        super().__init__(
            model=None if students else student,
            model_init=students,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            data_collator=data_collator,
            compute_metrics=compute_metrics,
            **kwargs,
        )
        if is_deepspeed_zero3_enabled():
            raise K2DError("ZeRO-3 shards the embedding that the loss needs whole: use FSDP, DDP or ZeRO-2")
        if self.is_fsdp_enabled:
            if args.encoder_weight:
                raise K2DError("encoder_weight: not for a student that is sharded (FSDP); train it by DDP")
            prepare_sharding(self.accelerator)
        elif args.fsdp:
            logger.warning("fsdp is left out of account: accelerate shards on GPUs and their like, not on CPUs")
        warn_of_slow_bf16(args)
        # compute_loss divides by the tokens of the whole accumulated batch, so that n steps of one equal one of n
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        self._components = ["ce"]
        self._components += ["kl", "agreement"] * bool(self.teacher or "teacher" in self.stored)
        self._components += ["encoder_mse"] * bool(args.encoder_weight)
        self._components += ["auxiliary_kl"] * bool(self.auxiliary or "auxiliary" in self.stored)
        for party in filter(None, (self.teacher, self.auxiliary)):
            party.to(self.args.device)
        if self.stored_embedding is not None:
            self.stored_embedding = self.stored_embedding.to(self.args.device)
        if self.shares_encoder and isinstance(teacher_model, (str, Path)):
            self.teacher.model.encoder = base.get_encoder()  # the teacher's own copy would only take memory
        self.add_callback(EpochToData(lambda: self.data_collator))
        from k2d_hf.distillation.card_callback import ModelCardCallback  # a later part of the package

        self.card = ModelCardCallback(self, teacher=teacher_model, auxiliary=auxiliary_model, train_dataset=chunks)
        self.add_callback(self.card)

    @property
    def loss_weights(self) -> LossWeights:
        """Weights and temperature of the loss, as the settings have them now: a search over settings changes them."""
        return LossWeights(self.args.ce_weight, self.args.kl_weight, self.args.auxiliary_weight, self.args.temperature)

    def _ready(self, student: Any, args: K2DTrainingArguments | None = None) -> Any:
        """A student with adapters put in and parts frozen, as the settings ask for; also what it shares is found out.

        Args:
            student: as it was made or loaded.
            args: the settings, before the Trainer has them.
        """
        args = args or self.args
        base = base_whisper(student)
        complete_generation_config(base, lambda: self._tokenizer)
        if self._peft_config is not None:
            set_seed(args.seed)  # adapters begin at random
            student = with_adapters(student, self._peft_config, freeze_encoder=args.freeze_encoder)
        embedding = output_embedding(base)
        if self.stored_embedding is not None and not torch.equal(self.stored_embedding.to(embedding.device), embedding):
            raise K2DError("model_init: its embedding is not that of the teacher whose hidden states are stored")
        if args.freeze_encoder:
            base.freeze_encoder()
        if args.freeze_embeddings:
            for module in (base.model.decoder.embed_tokens, base.proj_out):  # mostly one and the same matrix
                module.requires_grad_(False)
        self.encoder_is_frozen = is_frozen(base.model.encoder)
        self.shares_encoder = (
            self.teacher is not None
            and self.encoder_is_frozen
            and same_weights(base.model.encoder, self.teacher.model.encoder)
        )
        if args.encoder_weight:
            check_encoders(base, self.teacher, frozen=self.encoder_is_frozen)
        set_language(base, self._language, args.task)
        return student

    def _hp_search_setup(self, trial: Any) -> None:
        """As the Trainer's; a collator of ours takes the settings of the trial too."""
        super()._hp_search_setup(trial)
        if trial is not None and self._own_collator:
            processor = check_processor(self.processing_class)
            self.data_collator = default_collator(processor, self.args, base_whisper(self.model))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, after the frozen encoder has run once over all chunks, where that pays.

        Raises:
            K2DError: as `ResumableTrainer.train` does, and if the last push to the Hub in the background failed.
        """
        check_targets(self.train_dataset, self.data_collator)
        if self.args.keep_encoder_states:
            keep_encoder_states(self)
        if self._adapter_base is not None and self.args.should_save:
            self._adapter_base.write(self.model)  # before it is sharded
        output = super().train(*args, **kwargs)
        if isinstance(self.train_dataset, ChunkStream):
            logger.info("training: %s", self.train_dataset.summary())
        self._check_pushes()
        return output

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card to `args.output_dir`; arguments as for the Trainer's, by `ModelCardCallback.create`."""
        self.card.create(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with saving_complete_processor(self):
            super()._save(output_dir, state_dict)
        if not self.args.should_save:
            return
        folder = Path(output_dir or str(self.args.output_dir))
        rewrite_config(folder)
        if self._adapter_base is not None:
            base_whisper(self.model).generation_config.save_pretrained(str(folder))  # PEFT saves adapters, and no more
            self._adapter_base.write(self.model)
            self._adapter_base.describe(folder)
        carry_decoding(str(folder), NOT_EVALUATED, replace=False)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        with saving_complete_processor(self):
            super()._push_from_checkpoint(checkpoint_folder)

    def _check_pushes(self) -> None:
        """Raise the error of a push that ran in the background, which the Trainer leaves there."""
        for job in getattr(getattr(self, "push_in_progress", None), "jobs", []):
            if error := job.exception():
                told = " ".join(str(error).split())
                if token := self.args.hub_token or get_token():
                    told = told.replace(token, "<token>")  # a server may send back what it was sent
                # not `from error`, whose text may hold it too
                raise K2DError(
                    f"training is done, but its push to {self.hub_model_id} failed: {told}; "
                    f"the checkpoints are in {self.args.output_dir}"
                ) from None

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
                `chunk_weights` [B] and soft targets, `teacher_hidden` [B, L, d] or
                `teacher_top_ids` and `teacher_top_logprobs` [B, L, k].
            return_outputs: whether to return `(loss, {"loss": loss})`.
            num_items_in_batch: supervised tokens of all accumulated batches; those of this one if None.
        """
        sums = self.loss_sums(model, inputs)
        self._sums["train" if model.training else "eval"].add(sums)
        if num_items_in_batch is None:
            loss = sums.total / max(sums.tokens, 1)
        else:
            # DDP averages over processes what counts all their tokens; DataParallel's batch is whole already
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
        states = inputs.get("encoder_states")
        if states is None and self.encoder_is_frozen:
            states = states_in_step(self, base, inputs["input_features"])
        hidden, own_states = student_hidden(model, base, inputs, states)
        if not self.args.encoder_weight:
            return self._sums_of(base, inputs, hidden, states if self.shares_encoder else None)
        with self.accelerator.autocast():
            heard = encode(self.teacher, inputs["input_features"])
        return with_encoder_distance(
            self._sums_of(base, inputs, hidden, heard),
            own_states,
            heard,
            weight=self.args.encoder_weight,
            tokens=(inputs["labels"] != IGNORED).sum(dim=1),
            weights=inputs.get("chunk_weights"),
        )

    def _sums_of(
        self, base: WhisperForConditionalGeneration, inputs: dict[str, Tensor], hidden: Tensor, heard: Tensor | None
    ) -> LossSums:
        """The sums, from the student's last hidden states [B, L, d] and those of the teacher's encoder, if it ran."""
        labels = inputs["labels"]
        supervised = (labels != IGNORED).nonzero(as_tuple=True)  # once: a GPU is waited for each time
        with self.accelerator.autocast():
            teacher = helping_head(self.teacher, inputs, supervised, heard) if self.teacher else None
            auxiliary = helping_head(self.auxiliary, inputs, supervised) if self.auxiliary else None
        stored = {name: self._stored_party(name, inputs, supervised) for name in self.stored}
        weights = inputs.get("chunk_weights")
        token_weights = None if weights is None else weights[:, None].expand_as(labels)[supervised]
        with torch.autocast(labels.device.type, enabled=False):  # the loss chooses its number formats itself
            return distillation_loss(
                Head(hidden[supervised], output_embedding(base)),
                labels[supervised],
                teacher=stored.get("teacher", teacher),
                auxiliary=stored.get("auxiliary", auxiliary),
                weights=self.loss_weights,
                token_weights=token_weights,
                projection_dtype=_PROJECTIONS.get(self.accelerator.mixed_precision),
            )

    def _stored_party(self, name: str, inputs: dict[str, Tensor], supervised: tuple[Tensor, ...]) -> Head | SoftTargets:
        if f"{name}_hidden" in inputs:
            assert self.stored_embedding is not None
            return Head(inputs[f"{name}_hidden"][supervised].to(self.stored_embedding.dtype), self.stored_embedding)
        return SoftTargets(inputs[f"{name}_top_ids"][supervised], inputs[f"{name}_top_logprobs"][supervised])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with each component of the loss, agreement and supervised tokens per second.

        Loss and components are averages over the supervised tokens since the last log, not over its steps, so that
        the loss is the weighted sum of its components.
        """
        if "loss" in logs:
            sums, self._sums["train"] = self._sums["train"], RunningSums()
            logs = {**logs, **sums.averages(self._components), **sums.speed(self.accelerator.num_processes)}
        super().log(logs, start_time)
