"""Measuring while a student is trained: its loss by token over all processes, and the text that it generates."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from k2d_hf.distillation.loading import LoadingTrainer
from k2d_hf.distillation.measures import RunningSums
from k2d_hf.distillation.models import base_whisper
from k2d_hf.models.whisper_tokens import IGNORED


class EvaluatingTrainer(LoadingTrainer):
    """A trainer whose logs and evaluation weigh tokens, not batches, and count no row twice."""

    @property
    def _components(self) -> list[str]:
        """What is logged of the loss, besides itself."""
        names = ["ce"]
        names += ["kl", "agreement"] * bool(self.teacher or "teacher" in self.stored)
        names += ["encoder_mse"] * bool(self.args.encoder_weight)
        return names + ["auxiliary_kl"] * bool(self.auxiliary or "auxiliary" in self.stored)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **gen_kwargs: Any,
    ) -> tuple[Any, Tensor | None, Tensor | None]:
        """Loss of a batch and, with `predict_with_generate`, the tokens that the student generates."""
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
        output: Any = super().evaluation_loop(dataloader, description, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        averages = sums.averages(self._components)
        output.metrics.update({f"{prefix}_{name}": value for name, value in averages.items()})
        self._sums["train"].pause()
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with each component of the loss, agreement and supervised tokens per second.

        Loss and components are averages over the supervised tokens since the last log, not over its steps, so that
        the loss is the weighted sum of its components.
        """
        if "loss" in logs:
            sums, self._sums["train"] = self._sums["train"], RunningSums()
            logs = {**logs, **sums.averages(self._components), **sums.speed(self.accelerator.num_processes)}
        super().log(logs, start_time)
