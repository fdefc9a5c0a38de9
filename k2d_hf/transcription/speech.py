"""Where there is speech, by a voice detector, and the clips of a recording between its long pauses.

The detector is Silero's, as faster-whisper brings it. Both engines leave out with it what nobody speaks in, and
labelling looks for windows without speech (K2D, stage 1; the paper has neither).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.errors import K2DError
from k2d_hf.files.extras import missing
from k2d_hf.models.whisper_tokens import TIMESTAMP_SECONDS

if TYPE_CHECKING:
    import numpy as np

Times = tuple[float, float]  # start and end, s

LOWEST_SPEECH = 0.3  # probability from which on the detector's frame is speech; its own default is 0.5
LONG_PAUSE = 10.0  # s without speech; each costs half a window on average, in which there is nothing
MARGIN = 1.0  # s before speech and after it: quiet beginnings and ends, which the detector misses
_STEP = round(TIMESTAMP_SECONDS * SAMPLE_RATE)  # samples


def check_detector(setting: str) -> None:
    """Raise K2DError where the voice detector, which `setting` asks for, is not installed."""
    if hint := missing("faster_whisper", "fast") or missing("onnxruntime"):
        raise K2DError(f"{setting} asks for the voice detector of faster-whisper: {hint}")


def speech_spans(audio: np.ndarray, *, margin: float, pause: float = 2.0) -> list[Times]:
    """Where the voice detector finds speech in 16 kHz audio; in seconds, in order.

    Args:
        audio: float32 [samples].
        margin: seconds around speech that count as speech.
        pause: seconds without speech that end a span.
    """
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(
        threshold=LOWEST_SPEECH, speech_pad_ms=round(1000 * margin), min_silence_duration_ms=round(1000 * pause)
    )
    found = get_speech_timestamps(audio, options)
    return [(span["start"] / SAMPLE_RATE, span["end"] / SAMPLE_RATE) for span in found]


@dataclass(frozen=True)
class Clip:
    """A span of a recording that a model is given by itself, as if it were a recording; in samples."""

    start: int
    end: int
    whole: bool = False  # it is all of the recording

    def times(self, start: float, end: float) -> Times:
        """A span in seconds from the clip's start, such as a segment, in the times of the recording.

        It ends with the clip, where Whisper writes on into the silence with which it fills its windows.
        """
        if self.whole:
            return start, end
        offset, last = self.start / SAMPLE_RATE, self.end / SAMPLE_RATE
        return min(start + offset, last), min(end + offset, last)


def clips_of(audio: np.ndarray, *, vad: bool = True) -> list[Clip]:
    """The clips of a recording between its pauses of `LONG_PAUSE` or more, in order; without `vad` all of it is one.

    Each has `MARGIN` around its speech, and begins at a step of Whisper's timestamps. So times need no mapping but a
    sum, no segment lies across a pause that was left out, and all are exact. Where the detector finds no speech, there
    is no clip.
    """
    if not vad:
        return [Clip(0, len(audio), whole=True)]
    spans = speech_spans(audio, margin=MARGIN, pause=LONG_PAUSE) if len(audio) else []
    clips = [
        Clip(round(start * SAMPLE_RATE) // _STEP * _STEP, min(round(end * SAMPLE_RATE), len(audio)))
        for start, end in spans
    ]
    covered = [Clip(0, len(audio))]
    return [Clip(0, len(audio), whole=True)] if clips == covered else clips
