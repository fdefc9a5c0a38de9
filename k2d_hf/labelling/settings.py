"""Settings of labelling (K2D, stage 1)."""

from __future__ import annotations

import dataclasses

from k2d_hf.errors import K2DError
from k2d_hf.files.settings import setting
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS
from k2d_hf.scoring.scripts import SCRIPTS
from k2d_hf.transcription.settings import (
    DEVICE_HELP,
    SAME_MODEL,
    SAME_ROWS,
    SAME_SHARDS,
    GivenSettings,
    WorkersSettings,
)
from k2d_hf.transcription.transcribers import DecodingOptions


@dataclasses.dataclass(frozen=True)
class LabelSettings(WorkersSettings, GivenSettings):
    """How the teacher transcribes."""

    shard_size: int | None = setting(
        None,
        "Recordings saved together, the most a crash can cost; null is one pass of the engine.",
        least=1,
        no_effect=SAME_SHARDS,
    )
    beam_size: int = setting(5, "Number of beams; 1 is greedy.", least=1)
    condition_on_previous_text: bool = setting(True, "Prompt with the text before, as openai/whisper does.")
    temperature_fallback: bool = setting(
        True, "Second decoding, by sampling, of windows that look wrong, as openai/whisper does."
    )
    batch_size: int = setting(8, "Recordings in one pass, where the engine batches them.", least=1, no_effect=SAME_ROWS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.", metavar="FORMAT")
    max_duration: float = setting(
        CHUNK_SECONDS, "Longest chunk, at most 30.", least=1, most=CHUNK_SECONDS, metavar="SECONDS", after_model=True
    )

    script: str | None = setting(
        None,
        "Script of Chinese labels, of which Whisper writes two: simplified, traditional (OpenCC's standard), "
        "traditional-tw (Taiwan), traditional-hk (Hong Kong); null is as the teacher writes.",
        choices=SCRIPTS,
        after_model=True,
    )
    measures: bool = setting(
        False,
        "Columns for judges of validation beyond the text: what the engine gives of the teacher's confidence, and "
        "stretches that lack a language of their recording.",
    )
    silence: float = setting(
        0.0,
        "Share of rows that are silence or noise with an empty label, where neither the teacher nor a voice detector "
        "finds speech; lessons beyond the paper.",
        least=0,
        most=0.5,
    )

    def decoding(self, language: str | None) -> DecodingOptions:
        """How the teacher is decoded with these settings."""
        return dataclasses.replace(super().decoding(language), confidence=self.measures)

    def __post_init__(self) -> None:
        if not 0 < self.max_duration <= CHUNK_SECONDS:
            raise K2DError(f"max_duration {self.max_duration:g}: Whisper takes at most {CHUNK_SECONDS:g} s at once")
