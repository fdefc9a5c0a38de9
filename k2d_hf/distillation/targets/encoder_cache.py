"""Training's cache of encoder states: when it pays, and who writes what is missing (K2D, stage 3)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, wait_for_everyone
from torch import Tensor

from k2d_hf.data.chunk_schema import SOUND, columns_for
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.models import encode
from k2d_hf.distillation.targets.encoder_states import EncoderStates, lack_of_disk, number_format_of_states

logger = logging.getLogger(__name__)

ENCODER_STATES = "_encoder_states"  # a push leaves out what begins with an underscore


def cache_encoder_states(student: Any, rows: Any, collator: K2DDataCollator, args: Any) -> bool:
    """Write the encoder states that are not on disk yet, each process its share, and let the collator read them.

    What free disk decides is time alone: states that do not fit are computed as those that do (`states_in_step`).

    Args:
        student: a Whisper with a frozen encoder.
        rows: data set of chunks to be trained on.
        collator: of their batches.
        args: of training.

    Returns:
        Whether the disk has room for them; without, a warning names what is missing.
    """
    folder = Path(args.encoder_states_dir or f"{args.output_dir}/{ENCODER_STATES}")
    states = EncoderStates(folder, student.model.encoder)
    spans = _Spans(rows, collator)
    missing = states.missing(spans) if args.process_index == 0 else []
    # one process decides, as the others may look at the disk when files are there already
    lack, missing = broadcast_object_list([lack_of_disk(len(missing), student.config, folder), missing])
    if lack:
        logger.warning("encoder states are not kept, so the encoder runs in every epoch: %s", lack)
        return False
    mine = spans.select(missing[args.process_index :: args.world_size])
    if len(mine):
        encoder = _encoder_for_states(student, args.device)
        states.write_all(
            mine,
            lambda batch: encode(encoder, collator.features(batch).to(args.device)),
            batch_size=args.per_device_train_batch_size,
        )
    wait_for_everyone()
    collator.encoder_states = states
    return True


def states_in_step(student: Any, features: Tensor, *, rounded: bool, autocast: Callable[[], Any]) -> Tensor:
    """States of the frozen encoder in a step of training or evaluation, [B, frames, d], under the Trainer's `autocast`.

    In training they may be `rounded`: those that a cache would hold, if there were room.
    """
    if not (rounded and student.training):
        with autocast():
            return encode(student, features)
    with torch.autocast(features.device.type, dtype=torch.float16, enabled=features.device.type != "cpu"):
        return encode(student, features).half()


class _Spans(Sequence[dict[str, Any]]):
    """All inputs that some chunks may give, each read when it is asked for: it may carry its own sound.

    Args:
        rows: the chunks.
        collator: gives the spans of each.
        places: row of each span, and which one of the row's it is; all if None.
    """

    def __init__(self, rows: Any, collator: K2DDataCollator, places: Sequence[tuple[int, int]] | None = None) -> None:
        self.rows = rows.select_columns(columns_for(SOUND, among=rows.column_names)).with_format(None)
        self.collator = collator
        if places is None:
            times = self.rows.select_columns([name for name in self.rows.column_names if name != "audio"])
            counts = (len(collator.inputs(chunk)) for chunk in (times if times.column_names else [{}] * len(rows)))
            places = [(row, at) for row, count in enumerate(counts) for at in range(count)]
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        row, at = self.places[index]
        return dict(self.collator.inputs(self.rows[row])[at])

    def select(self, indices: Sequence[int]) -> _Spans:
        """Some of them."""
        return _Spans(self.rows, self.collator, [self.places[index] for index in indices])


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


def reason_not_to_cache(rows: Any, collator: Any, args: Any) -> str | None:
    """Why the states of a frozen encoder that no other model needs are not worth caching; None if they are."""
    if not isinstance(collator, K2DDataCollator) or not hasattr(rows, "select_columns"):
        return "that takes a data set of chunks and the K2DDataCollator"
    return None if epochs_of(args, len(rows)) > 1 else "no chunk is seen twice"


def epochs_of(args: Any, rows: int) -> float:
    """How often training sees each of so many chunks."""
    if args.max_steps > 0:
        return args.max_steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size / rows
    return args.num_train_epochs
