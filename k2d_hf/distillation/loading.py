"""What a trainer reads: rows that the loss can use, batches of like length, streams, cached states (K2D, stage 3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from k2d_hf.data.utterances import as_chunks
from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.batches.collator import EpochToData, K2DDataCollator, default_collator
from k2d_hf.distillation.batches.mixing import MixedSampler, Mixture, described_source, mixture_of
from k2d_hf.distillation.batches.rows import (
    check_prepared,
    check_target_labels,
    check_usable,
    language_of,
    training_rows,
)
from k2d_hf.distillation.batches.sampling import LengthGroupedSampler
from k2d_hf.distillation.batches.streams import ChunkStream, collate_unseen, is_stream, open_stream
from k2d_hf.distillation.batches.target_columns import targets_for_loss
from k2d_hf.distillation.construction import check_sampling, check_token_weighting
from k2d_hf.distillation.initial_weights import InitialWeights
from k2d_hf.distillation.label_script import LabelScriptCheck
from k2d_hf.distillation.models import base_whisper, encode
from k2d_hf.distillation.saving import SavingTrainer
from k2d_hf.distillation.targets.encoder_states import cache_encoder_states, epochs_of

logger = logging.getLogger(__name__)


class LoadingTrainer(SavingTrainer):
    """A trainer that reads chunks, with the soft targets and encoder states that take a model's place."""

    args: K2DTrainingArguments
    teacher: Any
    auxiliary: Any
    stored: list[str]  # models whose soft targets take their place
    stored_embedding: Tensor | None  # with which the teacher's stored hidden states become logits
    encoder_is_frozen: bool
    shares_encoder: bool  # of student and teacher
    initial: InitialWeights | None  # what the student began with, where it keeps a share of that
    mixture: Mixture | None = None  # of the sources that the chunks name; None where they name none
    _language: str | None  # of the student
    on_encoder_states: Callable[[int], None] | None = None  # told of the states that are written before the first step
    rounds_states = False  # whether the frozen encoder gives in each step what would be cached, if there were room

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_callback(EpochToData(lambda: self.data_collator))
        self.add_callback(LabelScriptCheck(self))

    def _open_data(self, rows: Any, evaluation: Any, collator: Any, *, student: Any) -> tuple[Any, Any, Any]:
        """Rows to train and to evaluate on, and their collator, before the Trainer has them; sets the language."""
        self._own_collator = collator is None
        collator = self._opened_collator(collator, student)
        check_sampling(self.args, rows, collator)
        check_token_weighting(self.args, rows)
        rows = self._rows_for_loss(rows, collator, what="training")
        self.mixture = None if is_stream(rows) else mixture_of(rows, self.args.shares)
        if self.mixture is not None:
            logger.info("training: %s", "; ".join(map(described_source, self.mixture.facts())))
        self._language = self.args.language or language_of(rows)
        return rows, self._rows_for_loss(evaluation, collator, what="evaluation"), collator

    @property
    def chunks_in_epoch(self) -> int:
        """Chunks that an epoch of training has, as their sources are mixed."""
        rows: Any = self.train_dataset
        return len(rows) if self.mixture is None else len(self.mixture)

    def _opened_collator(self, collator: Any, student: Any) -> Any:
        """The collator, by default that of the settings; it keeps clean audio where a model in memory takes it."""
        processor: Any = self.processing_class
        collator = default_collator(processor, self.args, student) if collator is None else collator
        if isinstance(collator, K2DDataCollator):
            collator.keeps_clean = bool(self.teacher or self.auxiliary)
        return collator

    def _rows_for_loss(self, rows: Any, collator: Any, *, what: str) -> Any:
        """Chunks that the loss can use, all of a prediction, with the soft targets that it needs and no others."""
        ours = isinstance(collator, K2DDataCollator)
        if is_stream(rows) and (ours or what == "training"):
            return open_stream(rows, collator, self.args, self.stored, self.stored_embedding, what=what)
        if ours:
            check_prepared(rows, what=what)
            if what == "prediction":
                check_usable(rows, what=what)
            else:
                rows = training_rows(rows, collator, what=what)
        return targets_for_loss(rows, self.stored, self.args.temperature, what=what)

    def _hp_search_setup(self, trial: Any) -> None:
        """As the Trainer's; a collator of ours takes the settings of the trial too."""
        super()._hp_search_setup(trial)
        if trial is not None and self._own_collator:
            self.data_collator = self._opened_collator(None, base_whisper(self.model))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `SavingTrainer.train`, after the frozen encoder has run once over all chunks, where that pays.

        Raises:
            K2DError: as there, and for soft targets of other labels than the collator's.
        """
        check_target_labels(self.train_dataset, self.data_collator)
        if self.args.keep_encoder_states:
            self._cache_encoder_states()
        output = super().train(*args, **kwargs)
        if self.initial is not None:
            student: Any = self.model
            self.initial.mix_into(student, self.args.initial_share)  # checkpoints have what training made alone
        if isinstance(self.train_dataset, ChunkStream):
            logger.info("training: %s", self.train_dataset.summary())
        return output

    def _cache_encoder_states(self) -> None:
        """Let the collator read the frozen encoder's states from the disk, or log why it does not."""
        rows: Any = self.train_dataset
        collator: Any = self.data_collator
        self.rounds_states = False
        if not self.encoder_is_frozen:
            reason: str | None = "the student's encoder is trained"
        elif self.teacher is not None and not self.shares_encoder:
            reason = "the teacher has an encoder of its own, which runs in every epoch anyway"
        elif self.auxiliary is not None:
            reason = "the auxiliary's encoder runs in every epoch anyway"
        elif not isinstance(collator, K2DDataCollator) or not hasattr(rows, "select_columns"):
            reason = "that takes a data set of chunks and the K2DDataCollator"
        else:
            reason = None if epochs_of(self.args, self.chunks_in_epoch) > 1 else "no chunk is seen twice"
        if reason is not None:
            logger.info("encoder states are not kept: %s", reason)
            return
        student: Any = base_whisper(self.accelerator.unwrap_model(self.model))
        self.rounds_states = not cache_encoder_states(
            student, rows, collator, self.args, on_progress=self.on_encoder_states
        )

    def _frozen_states(self, base: Any, inputs: dict[str, Tensor]) -> Tensor | None:
        """States of the frozen encoder in a step, [B, frames, d]; None of one that is trained.

        Without room on the disk, those of training are rounded as if there were.
        """
        if "encoder_states" in inputs or not self.encoder_is_frozen:
            return inputs.get("encoder_states")
        features = inputs["input_features"]
        if not (self.rounds_states and base.training):
            with self.accelerator.autocast():
                return encode(base, features)
        with torch.autocast(features.device.type, dtype=torch.float16, enabled=features.device.type != "cpu"):
            return encode(base, features).half()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        lengths_given = self.args.length_column_name in (getattr(rows, "column_names", None) or ())
        grouped = strategy == "random" and self.args.group_by_label_length
        grouped |= strategy == "group_by_length" and not lengths_given
        mixture, seed = (self.mixture if self.args.shares else None), self.args.draw_seed
        if not grouped or not isinstance(self.data_collator, K2DDataCollator) or not hasattr(rows, "select_columns"):
            return super()._get_train_sampler(train_dataset) if mixture is None else MixedSampler(mixture, seed=seed)
        batch_size = self.get_total_train_batch_size(self.args)
        return LengthGroupedSampler(rows, self.data_collator, batch_size=batch_size, seed=seed, mixture=mixture)

    def get_train_dataloader(self) -> Any:
        """As the Trainer's; of a stream, what an interrupted run has seen is passed over without reading its audio."""
        rows: Any = self.train_dataset
        if not isinstance(rows, ChunkStream):
            return super().get_train_dataloader()
        batches = 0 if self.args.ignore_data_skip else self.resumed_step * self.args.gradient_accumulation_steps
        rows.pass_over(batches, rows_of_a_batch=self._train_batch_size * self.accelerator.num_processes)
        with self._collating(partial(collate_unseen, self.data_collator)):
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's; chunks given later are checked as those given at construction, and draws never change."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._rows_for_loss(eval_dataset, self.data_collator, what="evaluation")
        with self._collating():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As the Trainer's, likewise; no row is left out, so that predictions are those of the rows, in order."""
        rows = self._rows_for_loss(as_chunks(test_dataset), self.data_collator, what="prediction")
        with self._collating():
            return super().get_test_dataloader(rows)

    @contextmanager
    def _collating(self, collator: Any = None) -> Iterator[None]:
        """Another collator for a while: the one for evaluation, where none is given."""
        own = self.data_collator
        evaluating = own.for_evaluation() if isinstance(own, K2DDataCollator) else own
        self.data_collator = evaluating if collator is None else collator
        try:
            yield
        finally:
            self.data_collator = own
