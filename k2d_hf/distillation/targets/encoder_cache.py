"""Training's use of kept encoder states: when they pay, and who writes what is missing."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from k2d_hf.data.chunk_schema import SOUND, columns_for
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.models import base_whisper, encode
from k2d_hf.distillation.targets.encoder_states import EncoderStates, lack_of_disk, number_format_of_states

if TYPE_CHECKING:
    from k2d_hf.distillation.trainer import K2DTrainer

logger = logging.getLogger(__name__)

ENCODER_STATES = "_encoder_states"  # a push leaves out what begins with an underscore


def keep_encoder_states(trainer: K2DTrainer) -> None:
    """Write the encoder states that are not on disk yet, each process its share, and let the collator read them.

    Where they do not pay, or do not fit, a line of the log says why, and the encoder runs in every step. What free disk
    decides is time alone: states that do not fit are computed as those that do.
    """
    trainer.rounds_states = False
    if reason := against_encoder_states(trainer):
        logger.info("encoder states are not kept: %s", reason)
        return
    args, collator = trainer.args, cast(K2DDataCollator, trainer.data_collator)
    student = base_whisper(trainer.accelerator.unwrap_model(trainer.model))
    folder = Path(args.encoder_states_dir or f"{args.output_dir}/{ENCODER_STATES}")
    states = EncoderStates(folder, student.model.encoder)
    rows: Any = trainer.train_dataset
    spans = _Spans(rows, collator)
    missing = states.missing(spans) if trainer.is_world_process_zero() else []
    # one process decides, as the others may look at the disk when files are there already
    lack, missing = broadcast_object_list([lack_of_disk(len(missing), student.config, folder), missing])
    if lack:
        logger.warning("encoder states are not kept, so the encoder runs in every epoch: %s", lack)
        trainer.rounds_states = True
        return
    mine = spans.select(missing[args.process_index :: args.world_size])
    if len(mine):
        encoder = _encoder_for_states(student, args.device)
        states.write_all(
            mine,
            lambda batch: encode(encoder, collator.features(batch).to(args.device)),
            batch_size=args.per_device_train_batch_size,
        )
    trainer.accelerator.wait_for_everyone()
    collator.encoder_states = states


class _Spans(Sequence[dict[str, Any]]):
    """All that the student may hear of some chunks, each read when it is asked for: it may carry its own sound.

    Args:
        rows: the chunks.
        collator: which tells the spans of each.
        places: row of each span, and which one of the row's it is; all if None.
    """

    def __init__(self, rows: Any, collator: K2DDataCollator, places: Sequence[tuple[int, int]] | None = None) -> None:
        self.rows = rows.select_columns(columns_for(SOUND, among=rows.column_names)).with_format(None)
        self.collator = collator
        if places is None:
            times = self.rows.select_columns([name for name in self.rows.column_names if name != "audio"])
            counts = (len(collator.spans(chunk)) for chunk in (times if times.column_names else [{}] * len(rows)))
            places = [(row, at) for row, count in enumerate(counts) for at in range(count)]
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        row, at = self.places[index]
        return dict(self.collator.spans(self.rows[row])[at])

    def select(self, indices: Sequence[int]) -> _Spans:
        """Some of them."""
        return _Spans(self.rows, self.collator, [self.places[index] for index in indices])


def states_in_step(trainer: K2DTrainer, student: Any, features: Tensor) -> Tensor:
    """States of the frozen encoder in a step of training or evaluation, [B, frames, d]."""
    if not (trainer.rounds_states and student.training):
        with trainer.accelerator.autocast():  # the Trainer wraps the student alone
            return encode(student, features)
    with torch.autocast(features.device.type, dtype=torch.float16, enabled=features.device.type != "cpu"):
        return encode(student, features).half()


def _encoder_for_states(student: Any, device: torch.device) -> Any:
    """What `encode` takes: the student where it lies, or a copy of its encoder on the device, in float16.

    The student's own encoder stays as it is: it may have to be sharded yet.
    """
    number_format, weights = number_format_of_states(device), next(student.model.encoder.parameters())
    if (weights.device, weights.dtype) == (device, number_format):
        return student
    return SimpleNamespace(
        model=SimpleNamespace(encoder=copy.deepcopy(student.model.encoder).to(device, dtype=number_format))
    )


def against_encoder_states(trainer: K2DTrainer) -> str | None:
    """What speaks against keeping the encoder's states, the disk aside; None if nothing does."""
    if not trainer.encoder_is_frozen:
        return "the student's encoder is trained"
    if trainer.teacher is not None and not trainer.shares_encoder:
        return "the teacher has an encoder of its own, which runs in every epoch anyway"
    if trainer.auxiliary is not None:
        return "the auxiliary's encoder runs in every epoch anyway"
    rows: Any = trainer.train_dataset
    if not isinstance(trainer.data_collator, K2DDataCollator) or not hasattr(rows, "select_columns"):
        return "that takes a data set of chunks and the K2DDataCollator"
    return None if epochs_of(trainer.args, len(rows)) > 1 else "no chunk is seen twice"


def epochs_of(args: Any, rows: int) -> float:
    """How often training sees each of so many chunks."""
    if args.max_steps > 0:
        return args.max_steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size / rows
    return args.num_train_epochs
