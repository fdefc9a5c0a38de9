"""Audio for a page: small clips as `data:` addresses, up to a number of bytes."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass
from typing import Any

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError

logger = logging.getLogger(__name__)

# MP3 is what every browser plays and what libsndfile encodes fastest; Opus is a quarter smaller at six times the work.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "MP3": ("audio/mpeg", {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.9}),
    "OGG": ("audio/ogg", {"format": "OGG", "subtype": "OPUS", "compression_level": 0.95}),
    "FLAC": ("audio/flac", {"format": "FLAC", "subtype": "PCM_16"}),
}
LEAST_BYTES_PER_SECOND = 1500  # of any of them, as the page holds it; a clip that cannot fit is not even encoded


@dataclass(frozen=True)
class Clip:
    """A clip as the address that a player takes, or the reason why there is none."""

    address: str | None
    why_not: str | None = None
    note: str | None = None  # such as that it is the beginning alone


NO_ROOM = Clip(None, "the audio is left out: the page would grow beyond its limit")


class ClipMaker:
    """Makes clips until `room`, the bytes of all addresses, is spent."""

    def __init__(self, room: int) -> None:
        self.room = room

    def clip(self, read: Any, seconds: float, *, note: str | None = None) -> Clip:
        """The clip that `read` gives, float32 [samples] at 16 kHz, of some `seconds`; never fails."""
        if seconds * LEAST_BYTES_PER_SECOND > self.room:
            return NO_ROOM
        try:
            address = encode(read())
        except AudioError as error:
            return Clip(None, f"the audio is not available: {error.reason}")
        except Exception as error:  # a player that is missing must not cost the page
            logger.info("no clip: %s", error)
            return Clip(None, f"the audio could not be encoded: {type(error).__name__}")
        if len(address) > self.room:
            return NO_ROOM
        self.room -= len(address)
        return Clip(address, note=note)


def encode(samples: Any) -> str:
    """Samples, float32 [samples] at 16 kHz, as a `data:` address."""
    import soundfile

    known = soundfile.available_formats()
    kind, options = next(FORMATS[name] for name in FORMATS if name in known)
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, **options)
    return f"data:{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
