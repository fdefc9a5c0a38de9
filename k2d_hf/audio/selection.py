"""Which sound of a file is read: one of its tracks, and of that the mean of all channels, or one of them.

Used by the audio reader (K2D, stage 1), and by every setting and row that names a track or a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.formatting import counted, first_of

MEAN, LOUDER = "mean", "louder"
TRACK_HELP = "Track of sound of a file with several, counted from 0; null is the one that the file itself prefers."
CHANNEL_HELP = (
    "Channel of a recording: mean (of all), a number from 0 on, or louder, which stereo out of phase needs: its mean "
    "is silence."
)
# Of the energy that the mean of channels has which know nothing of each other; what has less is out of phase.
CANCELLED_BELOW = 0.1
CANCELLED_ADVICE = "set channel to louder, or to the number of one (0, 1, ...)"
_LISTED = 20  # recordings that a warning names


def warnings_of(several_tracks: Sequence[str], out_of_phase: Sequence[str]) -> list[str]:
    """What is to be said of recordings that have several tracks, of which none was named, and of those that cancel."""
    lines = []
    if several_tracks:
        what = f"{counted(len(several_tracks), 'recording')} with several tracks of sound"
        names = first_of(several_tracks, _LISTED)
        lines.append(f"{what}, of which the file's usual one was taken: set track for another; {names}")
    if out_of_phase:
        what = f"{counted(len(out_of_phase), 'recording')} with channels out of phase"
        lines.append(f"{what}, whose mean is next to nothing: {CANCELLED_ADVICE}; {first_of(out_of_phase, _LISTED)}")
    return lines


@dataclass(frozen=True)
class Selection:
    """A track and a channel of a file; K2DError for what can be neither."""

    track: int | None = None  # from 0 on, among the tracks of sound; None is the one that the file prefers
    channel: str = MEAN  # or `louder`, or a number from 0 on

    def __post_init__(self) -> None:
        if self.track is not None and self.track < 0:
            raise K2DError(f"track {self.track}: tracks are counted from 0")
        if self.channel not in (MEAN, LOUDER) and not (self.channel.isascii() and self.channel.isdigit()):
            raise K2DError(f"channel {self.channel!r}: give mean, louder, or a number from 0 on")

    @property
    def number(self) -> int | None:
        """The channel's number, where one is named."""
        return int(self.channel) if self.channel.isdigit() else None

    @property
    def key(self) -> str:
        """What tells it from others in the key of what was made of it; nothing of the usual one."""
        track = "" if self.track is None else f" track {self.track}"
        return track if self.channel == MEAN else f"{track} channel {self.channel}"


USUAL = Selection()


def selection_of(track: Any = None, channel: Any = None) -> Selection:
    """The selection that a setting or a row means; None of either is the usual one. K2DError for what is none."""
    whole = channel.is_integer() if isinstance(channel, float) else True  # as tables have a column with gaps
    number = str(int(channel)) if isinstance(channel, (int, float)) and whole and channel >= 0 else str(channel)
    name = MEAN if channel is None else number.strip().lower()
    text = "" if track is None else str(int(track) if isinstance(track, float) and track.is_integer() else track)
    if text and not text.lstrip("-").isdigit():
        raise K2DError(f"track {text}: give a number from 0 on")
    return Selection(int(text) if text else None, name)


class Energy:
    """The energy of channels and of their mean over blocks, without what is constant in them."""

    def __init__(self) -> None:
        self._frames = 0
        self._sums = np.zeros(1)
        self._products = np.zeros((1, 1))  # of each channel with each

    def add(self, block: np.ndarray) -> None:
        """Count a block, [frames, channels] float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._frames += len(block)
            self._sums = self._sums + np.ones(len(block), np.float32) @ block
            self._products = self._products + block.T @ block

    @property
    def powers(self) -> np.ndarray:
        """Mean square of each channel, [channels]."""
        return np.diagonal(self._covariance)

    @property
    def of_mean(self) -> float:
        """Mean square of the mean of all channels."""
        return float(self._covariance.mean())

    @property
    def _covariance(self) -> np.ndarray:
        means = self._sums / max(self._frames, 1)
        return self._products / max(self._frames, 1) - np.outer(means, means)


class Mixer:
    """Blocks of all channels to blocks of one: that of a number, or the mean; and whether that cancels them."""

    def __init__(self, channel: int | None) -> None:
        self.channel = channel
        self._energy = Energy()

    def mix(self, block: np.ndarray) -> np.ndarray:
        """One channel, float32 [frames], of a block [frames, channels]."""
        count = block.shape[1]
        if self.channel is not None or count == 1:
            return block[:, self.channel or 0]
        self._energy.add(block)
        with np.errstate(over="ignore", invalid="ignore"):  # sums of columns: numpy's mean of an axis takes longer
            return sum((block[:, at] for at in range(1, count)), start=block[:, 0]) / np.float32(count)

    @property
    def cancels(self) -> bool:
        """Whether the mean has far less energy than channels that know nothing of each other would leave."""
        powers = self._energy.powers
        return bool(self._energy.of_mean < CANCELLED_BELOW * powers.mean() / len(powers))
