"""Sound in the files of telephones, meetings and films (MPEG-4, Matroska and their like), decoded by PyAV.

Below the audio reader (K2D, stage 1), to which a `MediaFile` is what a `Sound` is, for what libsndfile cannot open.

Sample 0 is the first that is played: encoder delay and what an edit list leaves out are gone. Frames follow each other
without gap, unless their time stamps are half a frame or more away from that: then silence fills the gap, or an overlap
is cut. So samples have places that a whole file and a span agree on, although Matroska's stamps are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from k2d_hf.audio.containers import ASF, EBML, MP4_BOXES, OGG_CODECS
from k2d_hf.audio.sound_file import ObservedFile
from k2d_hf.files.background import check_cancelled
from k2d_hf.formatting import error_message

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

UNKNOWN_LENGTH = 1 << 62  # frames; libsndfile has 2**63 - 1 for a FLAC stream written to a pipe
FORMATS = {  # FFmpeg's name by the first bytes of a file; a playlist, which names other files, is none of them
    EBML: "matroska",
    b"#!AMR": "amr",
    ASF: "asf",
    b"FLV\x01": "flv",
    b"\x00\x00\x01\xba": "mpeg",
    b"caff": "caf",
    b"NIST_1A": "nistsphere",  # compressed by shorten
}
HEAD = 1 << 14  # bytes that show the kind of a file
# Formats that are searched by time stamps that rise from start to end; the others are decoded from their start.
SEARCHED = ("mov", "matroska", "aac", "amr", "caf")
UNEVEN_CODECS = ("vorbis", "wmav1", "wmav2", "wmapro", "wmavoice")  # whose frames differ in length
CHECKED = 1.0  # s of frames before the place of a search, by whose time stamps it is found
LONGEST_GAP = 3600.0  # s without sound that become silence
ENCRYPTED_TAGS = ("enca", "drms", "aavd")


class MediaError(Exception):
    """Why a file cannot be decoded: `reason` is one of those of the audio reader."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class DecodingError(Exception):
    """A packet cannot be decoded: the file is damaged there."""


def media_format(file: BinaryIO) -> str:
    """FFmpeg's name of a file's format by its first bytes, such as `mov`; empty where it is none that is known here."""
    file.seek(0)
    head = file.read(HEAD)
    if head[4:8] in MP4_BOXES:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"OggS" and len(head) > 36 and not head[28:].startswith(OGG_CODECS):
        return "ogg"
    if any(head[at : at + 3 * step : step] == b"GGG" for at, step in ((0, 188), (4, 192))):
        return "mpegts"
    if _begins_adts(head):
        return "aac"
    return next((name for magic, name in FORMATS.items() if head.startswith(magic)), "")


def _begins_adts(head: bytes) -> bool:
    """Whether three frames of AAC follow each other (ISO 14496-3, 1.A.2)."""
    at = 0
    for _ in range(3):
        frame = head[at : at + 7]
        if len(frame) < 7 or frame[0] != 0xFF or frame[1] & 0xF6 != 0xF0:
            return at > 0 and not frame  # a file of one or two frames
        at += max(7, (frame[3] & 3) << 11 | frame[4] << 3 | frame[5] >> 5)
    return True


class MediaFile:
    """A track of sound in a file, which stays the caller's to close.

    The track is that of a number, counted from 0, or the one that the file prefers: the first one by its flags, none
    that is made for the blind or comments on a film where there is another. A frame with another number of channels
    than the first counts as the mean of its own, in each of them.

    Opening, `read_block` and `seek_to` raise OSError where disk or network are at fault, DecodingError where a packet
    is, and MediaError where the file is not supported.
    """

    format = "MEDIA"

    def __init__(self, file: BinaryIO, track: int | None = None, *, kind: str = "") -> None:
        self._source, self._kind, self._track = file, kind or media_format(file), track
        self._container: Any = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Begin, again, at the start of the file."""
        try:
            import av
        except ImportError:
            raise MediaError("no decoder") from None
        self._av = av
        self.close()
        self._source.seek(0)
        self._observed = ObservedFile(self._source)
        with self._own_errors():
            try:
                self._container = av.open(self._observed, format=self._kind, metadata_errors="replace")
            except av.FFmpegError as error:
                raise MediaError("not audio", error.strerror or error_message(error)) from error
            self._stream = self._chosen()
            if hasattr(av.stream, "Discard"):  # since PyAV 18: what is not wanted is not even read
                for stream in self._container.streams:
                    if stream.index != self._stream.index:
                        stream.discard = av.stream.Discard.all
        codec = self._stream.codec_context
        if codec is None:
            raise MediaError("not supported", "its codec is not known")
        if codec.codec_tag in ENCRYPTED_TAGS:
            raise MediaError("encrypted")
        frames = self._frames()
        try:
            head = list(islice(frames, 4))
        except DecodingError as error:
            raise MediaError("encrypted" if self._is_encrypted else "truncated", "nothing can be decoded") from error
        if not head:
            raise MediaError("no samples", "there is none in its track of sound")
        self.samplerate: int = head[0].sample_rate
        self.channels: int = head[0].layout.nb_channels
        self._origin: int | None = head[0].pts
        # A frame begins at a multiple of its length behind the first, which encoder delay may have cut.
        self._frame = max(frame.samples for frame in head)
        self._first = head[0].samples
        even = len({frame.samples for frame in head[1:3]}) == 1 and codec.name not in UNEVEN_CODECS
        self._even = even and len(head) == 4
        self._tick = Fraction(head[0].time_base or 1) * self.samplerate  # samples
        self.frames = self._promised_frames()
        self._blocks = self._joined(chain(head, frames), 0)
        self._skip = 0
        self._damage: DecodingError | None = None

    def _chosen(self) -> Any:
        """The stream of the track."""
        streams = self._container.streams.audio
        self.tracks = len(streams)
        if not streams:
            raise MediaError("no samples", "there is no track of sound in it")
        if self._track is not None and self._track >= self.tracks:
            raise MediaError("no such track", f"{self._track}, of {self.tracks}, counted from 0")
        return streams[self._track] if self._track is not None else min(streams, key=self._set_aside)

    def _set_aside(self, stream: Any) -> tuple[bool, bool, bool]:
        """What puts a track behind others: that it cannot be decoded, is a description, or is not the usual one."""
        flags = self._av.stream.Disposition
        aside = flags.visual_impaired | flags.descriptions | flags.comment | flags.clean_effects
        return stream.codec_context is None, bool(stream.disposition & aside), not stream.disposition & flags.default

    def close(self) -> None:
        """Release the decoder."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def seek_to(self, frame: int) -> None:
        """Make `frame`, counted from the first sample, the current one."""
        if self._even and self._kind in SEARCHED and self._searched(frame):
            return
        self._open()
        self._skip = frame

    def read_block(self, frames: int) -> np.ndarray:
        """Up to so many frames from the current one, [frames, channels] float32; fewer at the end only."""
        parts: list[np.ndarray] = [np.zeros((0, self.channels), dtype=np.float32)]
        count = 0
        while count < frames:
            check_cancelled()
            try:
                if self._damage is not None:
                    raise self._damage
                block = next(self._blocks, None)
            except DecodingError as error:
                if not count:
                    raise
                self._damage, block = error, None  # raised behind what could be decoded
            if block is None:
                break
            cut = min(self._skip, len(block))
            self._skip -= cut
            wanted = block[cut : cut + frames - count]
            if cut + len(wanted) < len(block):
                self._blocks = chain((block[cut + len(wanted) :],), self._blocks)
            parts.append(wanted)
            count += len(wanted)
        return np.concatenate(parts)

    def _promised_frames(self) -> int:
        """The length in the header, where that is the track's own."""
        seconds = None
        if self._kind in ("mov", "caf", "nistsphere") and self._stream.duration:
            seconds = self._stream.duration * self._stream.time_base
        elif self._kind == "matroska":
            tags = {name.partition("-")[0].upper(): value for name, value in self._stream.metadata.items()}
            seconds = _clock_seconds(tags.get("DURATION", ""))
            if seconds is None and len(self._container.streams) == 1 and self._container.duration:
                seconds = Fraction(self._container.duration, self._av.time_base)
        return UNKNOWN_LENGTH if seconds is None or seconds <= 0 else round(seconds * self.samplerate)

    def _frames(self) -> Iterator[AudioFrame]:
        """The decoded frames from the current packet on; what cannot be decoded before the first one is left out."""
        damage, decoded, packet = None, False, None
        self._is_encrypted = False
        packets = self._container.demux(self._stream)
        while True:
            check_cancelled()
            with self._own_errors():
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    self._is_encrypted = self._is_encrypted or packet.has_sidedata("encryption_info")
                    frames = packet.decode()
                except self._av.error.EOFError:
                    break
                except self._av.FFmpegError as error:
                    if decoded or packet is None:
                        raise DecodingError(error.strerror or error_message(error)) from error
                    damage, frames = error, []
                except IndexError:  # of PyAV at the end of a file in which a track began that was not there at first
                    break
                if self._is_encrypted:
                    raise MediaError("encrypted")
            for frame in frames:
                if frame.samples:
                    decoded = True
                    yield frame
        if damage is not None and not decoded:
            raise DecodingError(damage.strerror or error_message(damage)) from damage

    def _joined(self, frames: Iterator[AudioFrame], position: int) -> Iterator[np.ndarray]:
        """Blocks of frames, the first of which lies at `position`, each at its place."""
        held = None  # as the last frame may reach beyond the end
        for frame in frames:
            if frame.sample_rate != self.samplerate:
                raise MediaError("not supported", f"its rate changes from {self.samplerate} to {frame.sample_rate} Hz")
            samples = _samples(frame)
            if samples.shape[1] != self.channels:
                samples = np.repeat(samples.mean(axis=1, keepdims=True), self.channels, axis=1)
            ahead = 0 if (place := self._place(frame)) is None else place - position
            if ahead < -self.samplerate and frame.pts is not None:  # the stamps begin anew
                self._origin = frame.pts - round(position / self._tick)
            elif 2 * ahead < -self._frame:
                samples = samples[-ahead:]
            elif 2 * ahead > self._frame:
                if ahead > LONGEST_GAP * self.samplerate:
                    raise MediaError("truncated", f"nothing from {position / self.samplerate:.1f} s on for hours")
                if held is not None:
                    yield held
                if self._even and (exact := self._grid_place(frame)) is not None:
                    ahead = exact - position  # where a search would find it
                held = np.zeros((ahead, self.channels), dtype=np.float32)
                position += ahead
            if held is not None:
                yield held
            held = samples
            position += len(samples)
        if held is not None:
            beyond = position - self.frames
            yield held[:-beyond] if self._kind == "mov" and 0 < beyond <= min(self._frame, len(held)) else held

    def _searched(self, target: int) -> bool:
        """Make `target` the current frame by time stamps; False where they do not tell its place to the sample."""
        begin = target - round(CHECKED * self.samplerate)
        if self._origin is None or begin < 4 * self._frame or 4 * self._tick > self._frame:
            return False
        try:
            with self._own_errors():
                self._container.seek(self._origin + int(begin / self._tick), stream=self._stream)
            frames = self._frames()
            end = None
            for frame in frames:
                place = self._grid_place(frame)
                if place is None or frame.samples != self._frame or (end is None and place > target):
                    return False
                if end is not None and place != end:
                    return False
                end = place + frame.samples
                if end > target:
                    self._blocks, self._skip = self._joined(chain((frame,), frames), place), target - place
                    return True
        except (self._av.FFmpegError, DecodingError):
            pass
        return False

    def _place(self, frame: AudioFrame) -> int | None:
        """The place of a frame's first sample by its time stamp."""
        return None if frame.pts is None or self._origin is None else round((frame.pts - self._origin) * self._tick)

    def _grid_place(self, frame: AudioFrame) -> int | None:
        """The place of a frame among frames of equal length; None where its time stamp says that there is another."""
        place = self._place(frame)
        if place is None:
            return None
        nearest = self._first + round((place - self._first) / self._frame) * self._frame
        exact = self._tick.denominator == 1 and self._tick <= 1
        return nearest if abs(place - nearest) <= (0 if exact else 2 * self._tick) else None

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        finally:
            if self._observed.failure is not None:
                raise self._observed.failure


def _clock_seconds(text: str) -> Fraction | None:
    """Seconds of `00:01:02.500000000`."""
    try:
        hours, minutes, seconds = text.replace("\0", "").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None


def _samples(frame: AudioFrame) -> np.ndarray:
    """The samples of a frame, float32 [samples, channels]; full scale is 1."""
    samples: np.ndarray = frame.to_ndarray()
    samples = samples.T if frame.format.is_planar else samples.reshape(frame.samples, -1)
    if samples.dtype == np.uint8:
        return ((samples - np.float32(128)) / 128).astype(np.float32)
    if samples.dtype.kind == "i":
        return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
    return samples.astype(np.float32, copy=False)
