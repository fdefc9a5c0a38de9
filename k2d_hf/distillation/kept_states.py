"""Training's use of kept encoder states: when they pay, and who writes what is missing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from accelerate.utils import broadcast_object_list
from torch import Tensor

from k2d_hf.data.chunk_schema import SOUND, columns_for
from k2d_hf.distillation.collator import K2DDataCollator
from k2d_hf.distillation.encoder_states import EncoderStates, lack_of_disk
from k2d_hf.distillation.parties import base_whisper, encode

if TYPE_CHECKING:
    from k2d_hf.distillation.trainer import K2DTrainer

logger = logging.getLogger(__name__)

ENCODER_STATES = "_encoder_states"  # a push leaves out what begins with an underscore


def keep_encoder_states(trainer: K2DTrainer) -> None:
    """Write the encoder states that are not on disk yet, each process its share, and let the collator read them.

    Where they do not pay, or do not fit, a line of the log says why, and the encoder runs in every step.
    """
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
        return

    def run_encoder(batch: list[dict[str, Any]]) -> Tensor:
        features = collator.features(batch).to(args.device)
        with trainer.accelerator.autocast():
            return encode(student, features)

    mine = spans.select(missing[args.process_index :: args.world_size])
    encoder: Any = student.model.encoder
    placed = next(encoder.parameters()).device  # not yet where it trains, if it is to be sharded
    encoder.to(args.device)
    states.write_all(mine, run_encoder, batch_size=args.per_device_train_batch_size)
    encoder.to(placed)
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
