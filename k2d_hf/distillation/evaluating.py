"""Evaluation while a student is trained: its loss by token over all processes, and what it writes by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from k2d_hf.data.utterances import as_chunks
from k2d_hf.distillation.arguments import K2DTrainingArguments
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.batches.loading import LoadingTrainer
from k2d_hf.distillation.batches.rows import check_prepared, check_usable, training_rows
from k2d_hf.distillation.batches.streams import evaluation_stream, is_stream
from k2d_hf.distillation.batches.target_columns import targets_for_loss
from k2d_hf.distillation.measures import RunningSums
from k2d_hf.distillation.models import base_whisper
from k2d_hf.models.whisper_tokens import IGNORED


class EvaluatingTrainer(LoadingTrainer):
    """A trainer whose evaluation weighs tokens, not batches, and counts no row twice."""

    _components: list[str]
    stored: list[str]
    stored_embedding: Tensor | None

    def _rows_for_loss(self, rows: Any, collator: Any, args: K2DTrainingArguments, *, what: str) -> Any:
        """Chunks that the loss can use, with the soft targets that it needs and no others."""
        if isinstance(collator, K2DDataCollator):
            if is_stream(rows):
                return evaluation_stream(rows, collator, args, self.stored, self.stored_embedding, what=what)
            check_prepared(rows, what=what)
            rows = training_rows(rows, collator, what=what)
        return targets_for_loss(rows, self.stored, args.temperature, what=what)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """As the Trainer's; chunks that are given later are looked at as those given at construction are."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):
            eval_dataset = self._rows_for_loss(eval_dataset, self.data_collator, self.args, what="evaluation")
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """As the Trainer's, likewise; no row is left out, so that predictions are those of the rows, in order."""
        rows, collator = as_chunks(test_dataset), self.data_collator
        if isinstance(collator, K2DDataCollator):
            if is_stream(rows):
                rows = evaluation_stream(
                    rows, collator, self.args, self.stored, self.stored_embedding, what="prediction", keep_all=True
                )
                return super().get_test_dataloader(rows)
            check_prepared(rows, what="prediction")
            check_usable(rows, what="prediction")
        return super().get_test_dataloader(
            targets_for_loss(rows, self.stored, self.args.temperature, what="prediction")
        )

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
        labels = inputs["labels"]
        with torch.no_grad():
            repeated = self._repeated_rows(len(labels)).to(labels.device)
            loss = self.compute_loss(model, {**inputs, "labels": labels.masked_fill(repeated[:, None], IGNORED)})
            if prediction_loss_only or not self.args.predict_with_generate:
                return loss, None, None
            given = {name: value for name, value in (gen_kwargs or self._gen_kwargs).items() if value is not None}
            base = base_whisper(self.accelerator.unwrap_model(model))
            tokens = base.generate(inputs["input_features"], **{"return_timestamps": False, **given})
        return loss, tokens, labels

    def _repeated_rows(self, rows: int) -> Tensor:
        """Which rows of this process's batch only fill up the last round of several processes, [rows] bool."""
        state = self.accelerator.gradient_state
        first = self.accelerator.process_index * rows
        left = state.remainder if state.end_of_dataloader and state.remainder > 0 else first + rows
        return torch.arange(first, first + rows) >= left

    def evaluation_loop(self, dataloader: Any, description: str, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, with loss and components averaged over tokens and not over batches."""
        sums = self._sums["eval"] = RunningSums()
        self.gather_function = self.accelerator.gather_for_metrics  # without rows that fill up the last round
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        metrics: Any = output.metrics
        metrics.update({f"{prefix}_{name}": value for name, value in sums.averages(self._components).items()})
        self._sums["train"].pause()
        return output
