"""Settings of soft targets (K2D, stage 3, its KL)."""

from __future__ import annotations

import dataclasses

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import setting
from k2d_hf.transcription.settings import DEVICE_HELP, SAME_MODEL, SAME_ROWS, SAME_SHARDS


@dataclasses.dataclass(frozen=True)
class TargetsSettings:
    """What the teacher's soft targets are, by which training needs no teacher in memory."""

    kind: str = setting(
        "hidden",
        "hidden: the teacher's last hidden states, for its whole distribution; top: its k most likely tokens.",
        choices=("hidden", "top"),
    )
    k: int = setting(32, "Tokens stored for each position, with kind top.", least=1)
    batch_size: int = setting(8, "Chunks in one pass.", least=1, no_effect=SAME_ROWS)
    shard_size: int = setting(256, "Chunks saved together, the most a crash can cost.", least=1, no_effect=SAME_SHARDS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.", metavar="FORMAT")

    def __post_init__(self) -> None:
        if self.k < 1:
            raise K2DError(f"k {self.k}: give at least 1 token")
