"""The frozen encoder, run once: its states on disk, memory-mapped, for later epochs and other students (K2D, stage 3).

A file a chunk, named by the encoder's weights and the chunk, so that it is found again whatever the run. So the states
must not depend on its settings: they are computed in one number format, whatever that of targets or training is, and
where the disk has no room for them, training has the same ones, computed in each step.
"""

from __future__ import annotations

import copy
import hashlib
import io
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, wait_for_everyone
from torch import Tensor, nn

from k2d_hf.data.chunk_audio import chunk_key
from k2d_hf.data.chunk_schema import SOUND, columns_for
from k2d_hf.distillation.batches.augmentation import DISTURBED, VERSION
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.models import encode
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.storage import is_address, write_atomic
from k2d_hf.models.fingerprints import module_fingerprint
from k2d_hf.terminal.progress import progress_bar

logger = logging.getLogger(__name__)

ENCODER_STATES = "_encoder_states"  # a push leaves out what begins with an underscore
SHARE_OF_DISK = 0.5  # of what is free; more would leave nothing for checkpoints
BYTES = 2  # float16
# Of a configuration what an encoder goes by; the rest of it is in the weights' shapes.
_OF_ENCODER = ("encoder_attention_heads", "activation_function", "scale_embedding")


def _nobody(count: int) -> None:
    """Whom progress is told where no bar is wanted."""


class EncoderStates:
    """Encoder states of chunks as float16 files in `folder`, [frames, d] each; other weights mean other files."""

    def __init__(self, folder: str | Path, encoder: nn.Module) -> None:
        self.folder = Path(folder) / weights_digest(encoder)
        self._far: dict[str, str] = {}  # keys of recordings that are far away, which are asked for once

    def path(self, chunk: Mapping[str, Any]) -> Path:
        """The file of a chunk, by its sound alone and what disturbs it."""
        key = chunk_key(chunk, file_key=self._file_key)
        if DISTURBED in chunk:
            key = f"{key} {VERSION} {chunk[DISTURBED]}"
        name = hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.npy"

    def _file_key(self, recording: str) -> str:
        if not is_address(recording):
            return content_key(recording)
        if recording not in self._far:
            self._far[recording] = content_key(recording)
        return self._far[recording]

    def missing(self, chunks: Iterable[Mapping[str, Any]]) -> list[int]:
        """Positions of the chunks that have no file yet, the first of those that share one."""
        first: dict[Path, int] = {}
        for index, chunk in enumerate(chunks):
            first.setdefault(self.path(chunk), index)
        return [index for path, index in first.items() if not path.exists()]

    def write(self, chunk: Mapping[str, Any], states: np.ndarray) -> None:
        """Write the states of a chunk, completely or not at all; K2DError if the disk is full."""
        content = io.BytesIO()
        np.save(content, states.astype(np.float16))
        write_atomic(self.path(chunk), content.getvalue())

    def write_all(
        self,
        chunks: Iterable[dict[str, Any]],
        run_encoder: Callable[[list[dict[str, Any]]], Tensor],
        *,
        batch_size: int,
        on_progress: Callable[[int], None] = _nobody,
    ) -> None:
        """Write the states of all chunks; `run_encoder` gives those of a batch, [B, frames, d]."""
        left = iter(chunks)
        while batch := list(islice(left, batch_size)):
            for chunk, states in zip(batch, run_encoder(batch).float().cpu().numpy(), strict=True):
                self.write(chunk, states)
            on_progress(len(batch))

    def batch(self, chunks: Sequence[Mapping[str, Any]]) -> Tensor:
        """States of some chunks, [B, frames, d] float16."""
        return torch.from_numpy(np.stack([np.load(self.path(chunk), mmap_mode="r") for chunk in chunks]))


def number_format_of_states(device: torch.device) -> torch.dtype:
    """What an encoder computes states in that are kept: float32 on a CPU, else float16."""
    return torch.float32 if device.type == "cpu" else torch.float16


def weights_digest(encoder: nn.Module) -> str:
    """The fingerprint of an encoder: what its decoder is like, by which a student differs, does not count."""
    config = getattr(encoder, "config", None)
    return module_fingerprint(encoder, {name: getattr(config, name, None) for name in _OF_ENCODER})


def lack_of_disk(chunks: int, config: Any, folder: Path) -> str | None:
    """Why the states of so many chunks do not fit the disk of `folder`, which need not exist; None if they do."""
    needed = chunks * config.max_source_positions * config.d_model * BYTES
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed <= SHARE_OF_DISK * free:
        return None
    return f"{chunks} chunks need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {existing}"


def cache_encoder_states(
    student: Any, rows: Any, collator: K2DDataCollator, args: Any, *, on_progress: Callable[[int], None] | None = None
) -> bool:
    """Write the encoder states that are not on disk yet, each process its share, and let the collator read them.

    `on_progress` is called with the number of states that this process wrote; None shows a bar, as the Trainer does.
    False, and a warning, where the disk has no room for them. What free disk decides is time alone: states that do not
    fit are computed in each step as those that do.
    """
    folder = Path(args.encoder_states_dir or f"{args.output_dir}/{ENCODER_STATES}")
    states = EncoderStates(folder, student.model.encoder)
    rows = rows.select_columns(columns_for(SOUND, among=rows.column_names)).with_format(None)
    times = rows.select_columns([name for name in rows.column_names if name != "audio"])
    counts = (len(collator.inputs(chunk)) for chunk in (times if times.column_names else [{}] * len(rows)))
    places = [(row, at) for row, count in enumerate(counts) for at in range(count)]  # of all inputs of all chunks

    def inputs(indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Each is read when it is asked for: it may carry its own sound."""
        return (dict(collator.inputs(rows[row])[at]) for row, at in (places[index] for index in indices))

    missing = states.missing(inputs(range(len(places)))) if args.process_index == 0 else []
    # one process decides, as the others may look at the disk when files are there already
    lack, missing = broadcast_object_list([lack_of_disk(len(missing), student.config, folder), missing])
    if lack:
        logger.warning("encoder states are not kept, so the encoder runs in every epoch: %s", lack)
        return False
    if mine := missing[args.process_index :: args.world_size]:
        encoder = _encoder_for_states(student, args.device)
        told = on_progress or (_nobody if args.disable_tqdm else None)
        with progress_bar(told, "Encoder states", len(mine), "inputs") as progress:
            states.write_all(
                inputs(mine),
                lambda batch: encode(encoder, collator.features(batch).to(args.device)),
                batch_size=args.per_device_train_batch_size,
                on_progress=progress,
            )
    wait_for_everyone()
    collator.encoder_states = states
    return True


def _encoder_for_states(student: Any, device: torch.device) -> Any:
    """What `encode` takes: the student itself, or a copy of its encoder, as its own may have to be sharded yet."""
    number_format, weights = number_format_of_states(device), next(student.model.encoder.parameters())
    if (weights.device, weights.dtype) == (device, number_format):
        return student
    encoder = copy.deepcopy(student.model.encoder).to(device, dtype=number_format)
    return SimpleNamespace(model=SimpleNamespace(encoder=encoder))


def epochs_of(args: Any, rows: int) -> float:
    """How often training sees each of so many chunks."""
    if args.max_steps > 0:
        return args.max_steps * args.train_batch_size * args.gradient_accumulation_steps * args.world_size / rows
    return args.num_train_epochs
