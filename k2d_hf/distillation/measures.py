"""What is measured while a student learns, and shown: the loss's parts by token, speed, and the mixed error rate."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import EvalPrediction, TrainerCallback, WhisperProcessor

from k2d_hf.distillation.loss.losses import LossSums
from k2d_hf.models.whisper_tokens import token_id

if TYPE_CHECKING:
    from k2d_hf.terminal.console import ProgressLine

PARTS = ("total", "ce", "kl", "auxiliary_kl", "agreement", "encoder_mse")
GENERATED = ("mer",)  # figures of what the student writes by itself, which take `predict_with_generate`
GREATER_IS_BETTER = {name: name == "agreement" for name in ("loss", *PARTS[1:], *GENERATED)}


def known_metric(name: str) -> str | None:
    """Our figure that a name such as `eval_mer` or, of an evaluation set called dev, `eval_dev_mer` stands for."""
    matching = (known for known in GREATER_IS_BETTER if f"_{name}".endswith(f"_{known}"))
    return max(matching, key=len, default=None)  # `auxiliary_kl` is not `kl`


class RunningSums:
    """Sums of the loss's parts since the last log, over supervised tokens, and the time they took."""

    def __init__(self) -> None:
        self.total: Tensor | None = None  # of PARTS; left on the device, as reading it waits for it
        self.tokens = 0
        self.pause()

    def add(self, sums: LossSums) -> None:
        """Add a batch; one after the other, so that a resumed training sums alike."""
        batch = torch.stack([getattr(sums, name).detach() for name in PARTS]).to(_precise(sums.total.device))
        self.total = batch if self.total is None else self.total + batch
        self.tokens += sums.tokens

    def so_far(self) -> list[float]:
        """The sums of PARTS, and the tokens."""
        return [*([0.0] * len(PARTS) if self.total is None else self.total.tolist()), self.tokens]

    def resume(self, so_far: list[float], device: torch.device) -> None:
        """Take up sums that an earlier run had; they do not count in the speed."""
        *sums, tokens = so_far
        self.total, self.tokens = torch.tensor(sums, dtype=_precise(device), device=device), int(tokens)
        self.pause()

    def pause(self) -> None:
        """Leave out of the speed what came before, such as an evaluation."""
        self.started, self.timed_from = time.perf_counter(), self.tokens

    def averages(self, components: Iterable[str]) -> dict[str, float]:
        """Loss and components, averaged over the supervised tokens of all processes; every process must call it."""
        *sums, tokens = (sum(column) for column in zip(*gather_object([self.so_far()]), strict=True))
        if not tokens:
            return {}
        average = {name: value / tokens for name, value in zip(PARTS, sums, strict=True)}
        return {"loss": average["total"], **{name: average[name] for name in components}}

    def speed(self, processes: int) -> dict[str, float]:
        """Supervised tokens a second, over all processes."""
        seconds = time.perf_counter() - self.started
        tokens = (self.tokens - self.timed_from) * processes
        return {"tokens_per_second": round(tokens / seconds, 1)} if seconds > 0 and tokens else {}


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # which mps lacks


class MixedErrorRateMetric:
    """`compute_metrics` for evaluation during training: MER of what the student writes against the labels.

    It takes all rows at once, a list of batches (`eval_do_concat_batches=False`), or one batch after the other
    (`batch_eval_metrics`).
    """

    def __init__(self, processor: WhisperProcessor) -> None:
        self.tokenizer: Any = processor.tokenizer
        self.end = token_id(self.tokenizer, "<|endoftext|>")
        self._texts: tuple[list[str], list[str]] = ([], [])  # of the batches so far: predictions, labels

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        """`{"mer": rate}` over all rows since the last result; nothing before the last batch."""
        from k2d_hf.scoring.metrics import MixedErrorRate

        for texts, ids in zip(self._texts, (prediction.predictions, prediction.label_ids), strict=True):
            batches: Any = ids if isinstance(ids, list) else [ids]
            for batch in batches:
                # special tokens and timestamps all come after the end of text
                plain = ([token for token in row if 0 <= token < self.end] for row in batch.tolist())
                texts += [self.tokenizer.decode(row) for row in plain]
        if not compute_result:
            return {}
        predictions, references = self._texts
        self._texts = ([], [])
        return {"mer": MixedErrorRate().compute(predictions=predictions, references=references)["mer"]}


class TrainingProgress(TrainerCallback):
    """Progress of training as a bar, and as a line: the first and the last of what the Trainer logs."""

    def __init__(self, bar: ProgressLine) -> None:
        self.bar = bar
        self.logs: list[dict[str, float]] = []
        self.counts_states = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, at the step of the checkpoint that is resumed, if one is."""
        self.bar.start(state.max_steps, "steps")
        self.bar.advance(state.global_step)
        self.logs = [entry for entry in state.log_history if "loss" in entry]

    def count_encoder_states(self, count: int) -> None:
        """So many more states of the frozen encoder were written, before the first step."""
        if not self.counts_states:
            self.counts_states = True
            self.bar.start(None, "encoder states")
        self.bar.advance(count)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step more."""
        self.bar.advance(1, f"loss {self.logs[-1]['loss']:.2f}" if self.logs else "")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Remember the losses."""
        if logs and "loss" in logs:
            self.logs.append(dict(logs))

    def summary(self) -> str:
        """`loss 8.19 -> 0.47 (ce 0.21, kl 0.08)  agreement with teacher 91%`."""
        if not self.logs:
            return "no loss was logged: lower distil.logging_steps"
        first, last = self.logs[0], self.logs[-1]
        parts = ", ".join(f"{name} {last[name]:.2f}" for name in PARTS[1:] if name != "agreement" and last.get(name))
        text = f"loss {first['loss']:.2f} -> {last['loss']:.2f}" + (f" ({parts})" if parts else "")
        return text + (f"  agreement with teacher {100 * last['agreement']:.0f}%" if "agreement" in last else "")
