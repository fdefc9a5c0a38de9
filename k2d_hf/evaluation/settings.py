"""Settings of evaluation (K2D, section 4)."""

from __future__ import annotations

import dataclasses

from k2d_hf.files.settings import setting
from k2d_hf.transcription.engines import ENGINES
from k2d_hf.transcription.settings import DEVICE_HELP, LongFormSettings


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(LongFormSettings):
    """How teacher and student are measured."""

    engine: str = setting("transformers", "Engine of all models.", choices=ENGINES)
    beam_size: int = setting(5, "Number of beams; 1 is greedy, 5 the default of pipeline.", least=1)
    condition_on_previous_text: bool = setting(False, "Prompt with the text before.")
    temperature_fallback: bool = setting(
        False, "Second decoding, by sampling, of windows that look wrong; without it, output is the same each time."
    )
    batch_size: int = setting(1, "Recordings in one pass, where the engine batches them.", least=1)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.", metavar="FORMAT")
    speed_runs: int = setting(1, "Runs that the real-time factor averages; five in the paper.", least=1)
    speed_recordings: int | None = setting(
        None,
        "Number of recordings, the first ones, for the real-time factor; null is all. Error rates are those of all.",
        least=1,
    )

    def passes(self, recordings: int) -> int:
        """How often a model transcribes a recording, where there are so many."""
        timed = min(recordings, self.speed_recordings or recordings)
        return self.timed(recordings) + recordings - timed

    def timed(self, recordings: int) -> int:
        """How many of these passes a model is timed in."""
        return min(recordings, self.speed_recordings or recordings) * self.speed_runs
