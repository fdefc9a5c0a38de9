"""Progress of training, as a bar and a line: the first and the last of what the Trainer logs."""

from __future__ import annotations

from typing import Any, Protocol

from transformers import TrainerCallback

SHOWN = ("ce", "kl", "auxiliary_kl", "encoder_mse")


class Bar(Protocol):
    """What shows progress."""

    def start(self, total: int, unit: str) -> None:
        """Show `total` units."""

    def advance(self, count: int, note: str = "") -> None:
        """Count units as done."""


class TrainingProgress(TrainerCallback):
    """Moves a bar with the Trainer's steps and remembers its logs."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the bar, at the step of the checkpoint if training goes on from one."""
        self.bar.start(state.max_steps, "steps")
        self.bar.advance(state.global_step)
        self.logs = [entry for entry in state.log_history if "loss" in entry]

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
        parts = ", ".join(f"{name} {last[name]:.2f}" for name in SHOWN if last.get(name))
        text = f"loss {first['loss']:.2f} -> {last['loss']:.2f}" + (f" ({parts})" if parts else "")
        return text + (f"  agreement with teacher {100 * last['agreement']:.0f}%" if "agreement" in last else "")
