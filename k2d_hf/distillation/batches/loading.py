"""What a trainer reads: batches of like length, streams, and the same draws at every evaluation (K2D, stage 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.batches.sampling import LengthGroupedSampler
from k2d_hf.distillation.batches.streams import ChunkStream, PassingOver
from k2d_hf.distillation.resumable import ResumableTrainer


class LoadingTrainer(ResumableTrainer):
    """A trainer that knows how chunks are read."""

    args: K2DTrainingArguments

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        lengths_given = self.args.length_column_name in (getattr(rows, "column_names", None) or ())
        grouped = strategy == "random" and self.args.group_by_label_length
        grouped |= strategy == "group_by_length" and not lengths_given
        if not grouped or not isinstance(self.data_collator, K2DDataCollator) or not hasattr(rows, "select_columns"):
            return super()._get_train_sampler(train_dataset)
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        return LengthGroupedSampler(
            rows, self.data_collator, batch_size=self.get_total_train_batch_size(self.args), seed=seed
        )

    def get_train_dataloader(self) -> Any:
        """As the Trainer's; of a stream, what an interrupted run has seen is passed over without reading its audio."""
        rows: Any = self.train_dataset
        if not isinstance(rows, ChunkStream):
            return super().get_train_dataloader()
        steps = self.resumed_step if not self.args.ignore_data_skip else 0
        rows.pass_over(
            steps * self.args.gradient_accumulation_steps,
            rows_of_a_batch=self._train_batch_size * self.accelerator.num_processes,
        )
        with self._collating(PassingOver(self.data_collator)):
            return super().get_train_dataloader()

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's, with the same draws of timestamps and prompts at every evaluation."""
        with self._evaluation_collator():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As the Trainer's, likewise."""
        with self._evaluation_collator():
            return super().get_test_dataloader(test_dataset)

    def _evaluation_collator(self) -> Any:
        collator = self.data_collator
        return self._collating(collator.for_evaluation() if isinstance(collator, K2DDataCollator) else collator)

    @contextmanager
    def _collating(self, collator: Any) -> Iterator[None]:
        collator, self.data_collator = self.data_collator, collator
        try:
            yield
        finally:
            self.data_collator = collator
