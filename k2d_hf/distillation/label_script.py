"""Before training: does the student write Chinese in the script of its labels?

One that does not spends its first steps on other characters for what it writes already. A student that was distilled
before (`student.init`) writes as its labels did then, and Whisper's own labels are mostly simplified.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, WhisperForConditionalGeneration

from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.models import base_whisper, decode, encode, output_embedding
from k2d_hf.scoring.scripts import script_of, to_script

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

LOOKED_AT = 64  # chunks whose script is looked up
READ = 2  # of them the student reads
# A student whose cross-entropy on the labels is that many times as high as on the same ones in the other script writes
# the other. On four of the quickstart's references, simplified, its start has 2.0 times (1.6 without punctuation),
# Whisper base, which writes both, 1.0, and layers of it that learned nothing yet 1.0.
RATIO = 1.5


class ScriptCosts(NamedTuple):
    """Mean cross-entropy by token of a student on some labels, as they are and in the other script."""

    script: str
    other: str
    as_they_are: float
    converted: float

    @property
    def warning(self) -> str | None:
        """One line if the student writes the other script."""
        if self.as_they_are < RATIO * self.converted:
            return None
        return (
            f"the student writes {self.other} characters and its labels are {self.script} (cross-entropy "
            f"{self.as_they_are:.2f}, in {self.other} ones {self.converted:.2f}): its first steps go into the script; "
            f"set label.script: {self.other}"
        )


class LabelScriptCheck(TrainerCallback):
    """Warns, as training begins, of a student that writes another script than its labels."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look once; a training that goes on has taken its steps, and a sharded student is not one process's to run."""
        trainer = self.trainer
        rows, collator = trainer.train_dataset, trainer.data_collator
        if state.global_step or not state.is_world_process_zero or trainer.is_fsdp_enabled:
            return
        if not isinstance(collator, K2DDataCollator) or not hasattr(rows, "select"):
            return  # a stream is read once
        costs = script_costs(base_whisper(model), rows, collator)
        if costs is not None and costs.warning:
            logger.warning("%s", costs.warning)


def script_costs(
    student: WhisperForConditionalGeneration, chunks: Dataset, collator: K2DDataCollator
) -> ScriptCosts | None:
    """What the first labels cost a student in their script and in the other; None where none of them tells a script."""
    first = chunks.select(range(min(len(chunks), LOOKED_AT)))
    scripts = [script_of(text) for text in first.select_columns("text")["text"]]  # not the soft targets beside it
    script = max(("simplified", "traditional"), key=scripts.count)
    other = "simplified" if script == "traditional" else "traditional"
    told = [index for index, found in enumerate(scripts) if found == script][:READ]
    if not told:
        return None
    losses: dict[str, list[torch.Tensor]] = {script: [], other: []}
    student.eval()  # dropout would draw random numbers; each step of training begins with train()
    for chunk in map(chunks.__getitem__, told):
        states = _states(student, chunk, collator)
        for name, found in losses.items():
            text = chunk["text"] if name == script else to_script([chunk["text"]], name)[0]
            ids = collator.label_ids({**chunk, "text": text}, timestamps=False)
            found.append(_losses(student, states, ids))
    return ScriptCosts(script, other, *(float(torch.cat(found).mean()) for found in losses.values()))


def _states(
    student: WhisperForConditionalGeneration, chunk: Mapping[str, Any], collator: K2DDataCollator
) -> torch.Tensor:
    """The encoder's states of a chunk [1, frames, d]; from the disk where they are there, and no audio is read."""
    if collator.encoder_states is None:
        return encode(student, collator.features([chunk]).to(student.device))
    return collator.encoder_states.batch(collator.spans(chunk)[:1]).to(student.device)


@torch.no_grad()
def _losses(student: WhisperForConditionalGeneration, states: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Cross-entropy [L] of the text of a label, in float32."""
    label = torch.tensor([ids], device=states.device)
    hidden = decode(student, states, label[:, :-1])[0]
    return cross_entropy((hidden @ output_embedding(student).T).float(), label[0, 1:], reduction="none")
