"""What the trainer measures on its way: the loss's parts by token, speed, and the mixed error rate."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import EvalPrediction, WhisperProcessor

from k2d_hf.distillation.losses import LossSums

COMPONENTS = ("ce", "kl", "auxiliary_kl", "agreement")


class RunningSums:
    """Sums of the loss's parts since the last log, over supervised tokens, and the time they took."""

    def __init__(self) -> None:
        self.values: Tensor | None = None
        self.started = time.perf_counter()
        self.timed_from = 0.0

    def add(self, sums: LossSums) -> None:
        """Add a batch."""
        parts = [sums.total.detach(), *(getattr(sums, name) for name in COMPONENTS)]
        new = torch.stack([*parts, torch.full_like(parts[0], sums.tokens)]).double()
        self.values = new if self.values is None else self.values + new

    def pause(self) -> None:
        """Leave out of the speed what came before, such as an evaluation."""
        self.started = time.perf_counter()
        self.timed_from = self._tokens()

    def _tokens(self) -> float:
        return 0.0 if self.values is None else float(self.values[-1])

    def averages(self, accelerator: Any, *, has_teacher: bool) -> dict[str, float]:
        """Averages over the supervised tokens of all processes."""
        if self.values is None:
            return {}
        values = accelerator.reduce(self.values, "sum").tolist()
        named = dict(zip(("loss", *COMPONENTS), (value / max(values[-1], 1) for value in values[:-1]), strict=True))
        return {name: value for name, value in named.items() if has_teacher or name in ("loss", "ce")}

    def speed(self, accelerator: Any) -> dict[str, float]:
        """Supervised tokens a second, over all processes."""
        seconds = time.perf_counter() - self.started
        tokens = (self._tokens() - self.timed_from) * accelerator.num_processes
        return {"tokens_per_second": round(tokens / seconds, 1)} if seconds > 0 and tokens else {}


class MixedErrorRateMetric:
    """`compute_metrics` for evaluation during training: MER of what the student writes against the labels."""

    def __init__(self, processor: WhisperProcessor) -> None:
        self.processor = processor

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """`{"mer": rate}` over all rows."""
        from k2d_hf.scoring.metrics import MixedErrorRate

        texts = [self._decode(ids) for ids in (prediction.predictions, prediction.label_ids)]
        return {"mer": MixedErrorRate().compute(predictions=texts[0], references=texts[1])["mer"]}

    def _decode(self, ids: Any) -> list[str]:
        end = self.processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
        return [self.processor.tokenizer.decode([token for token in row if 0 <= token < end]) for row in ids.tolist()]
