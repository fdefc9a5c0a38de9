"""The frozen encoder, run once: its states on disk, memory-mapped, for later epochs and other students.

A file a chunk, named by the encoder's weights and the chunk, so that it is found again whatever the run. So the states
must not depend on its settings: they are computed in one number format, whatever that of targets or training is, and
where the disk has no room for them, training has the same ones, computed in each step.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from k2d_hf.data.chunk_audio import chunk_key
from k2d_hf.distillation.batches.augmentation import DISTURBED, VERSION
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.storage import is_address, write_atomic
from k2d_hf.models.fingerprints import module_fingerprint

SHARE_OF_DISK = 0.5  # of what is free; more would leave nothing for checkpoints
BYTES = 2  # float16
# Of a configuration what an encoder goes by; the rest of it is in the weights' shapes.
_OF_ENCODER = ("encoder_attention_heads", "activation_function", "scale_embedding")


class EncoderStates:
    """Encoder states of chunks as float16 files, [frames, d] each.

    Args:
        folder: where they lie; made when something is written.
        encoder: whose states they are; other weights mean other files.
    """

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
        """Write the states of a chunk, completely or not at all.

        Raises:
            K2DError: if the disk is full.
        """
        content = io.BytesIO()
        np.save(content, states.astype(np.float16))
        write_atomic(self.path(chunk), content.getvalue())

    def write_all(
        self,
        chunks: Sequence[dict[str, Any]],
        run_encoder: Callable[[list[dict[str, Any]]], Tensor],
        *,
        batch_size: int,
    ) -> None:
        """Write the states of all chunks; `run_encoder` gives those of a batch, [B, frames, d]."""
        for at in range(0, len(chunks), batch_size):
            batch = [chunks[index] for index in range(at, min(at + batch_size, len(chunks)))]
            for chunk, states in zip(batch, run_encoder(batch).float().cpu().numpy(), strict=True):
                self.write(chunk, states)

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
    """Why the states of so many chunks do not fit the disk of `folder`; None if they do.

    Args:
        chunks: those whose states are still to be written.
        config: of the Whisper whose encoder it is.
        folder: where they would lie; it need not exist.
    """
    needed = chunks * config.max_source_positions * config.d_model * BYTES
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed <= SHARE_OF_DISK * free:
        return None
    return f"{chunks} chunks need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free in {existing}"
