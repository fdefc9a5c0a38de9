"""Recordings in: the one audio reader, from any file libsndfile reads to 16 kHz mono float32, whole or a span of it.

Labelling reads whole recordings; what comes after it reads the spans of chunks, with the same function.
"""

import io
import math
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from k2d_hf.errors import K2DError
from k2d_hf.labelling.background import stop_if_asked
from k2d_hf.labelling.mp3 import with_frame_count

SAMPLE_RATE = 16_000  # Hz, what Whisper's feature extractor takes
AUDIO_EXTENSIONS = (
    *(".wav", ".wave", ".w64", ".rf64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".caf"),
)

# libsndfile's Vorbis seek is wrong (by up to a block) in the last page of a file, and Opus and MP3 decoders need what
# came before to settle; pages hold up to about a second, so two seconds of lead are decoded and thrown away.
LOSSY_LEAD = 2.0  # s
MP3_FORMATS = {"MP3", "MPEG"}
LOSSY_FORMATS = {"OGG"} | MP3_FORMATS
# Read on either side of a span that is resampled; from 0.02 s on, the span equals the same cut of the whole file.
FILTER_MARGIN = SAMPLE_RATE // 20  # samples at 16 kHz
BLOCK_FRAMES = 1 << 18

UNKNOWN_LENGTH = 1 << 62  # libsndfile says 2**63 - 1 for a FLAC stream written to a pipe
STREAMED_SIZE = (
    0x7FFFF000  # writers to a pipe put 0, 0x7FFFF000... (SoX) or 0xFFFFFFFF (FFmpeg) for the size they cannot know
)
HEADER_SLACK = 64  # bytes: some writers count the header in the data size
SHORT_READ_SLACK = 2 * 1152  # samples: an MP3 counts its frames, and its decoder keeps some of the last ones to itself
OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # the longest page there is

ADVICE = {
    "no such file": "check the path",
    "not a file": "give the path of an audio file",
    "not readable": "check its permissions",
    "empty file": "copy or download it again",
    "not audio": "convert it to WAV or FLAC (ffmpeg -i IN OUT.flac)",
    "truncated": "copy it again, or keep what is left with ffmpeg -i IN OUT.flac",
    "no samples": "leave it out, or record it again",
    "not finite": "export it again without NaN and infinite samples",
}


class AudioError(K2DError):
    """A recording that cannot be used. `reason` is one of the keys of `ADVICE`, short and stable, for counting."""

    def __init__(self, path: str | os.PathLike[str], reason: str, detail: str = ""):
        super().__init__(os.fspath(path), reason, detail)  # all arguments, so that it survives pickling
        self.path = os.fspath(path)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.path}: {self.reason}{detail}; {ADVICE[self.reason]}"


class _Sound(soundfile.SoundFile):
    """A file that is read forwards: soundfile seeks after every read, which Vorbis and MP3 do not survive exactly."""

    def seekable(self) -> bool:
        return False


def read_audio(path: str | os.PathLike[str], start: float = 0.0, duration: float | None = None) -> np.ndarray:
    """Decode a recording, or the span of it that begins at `start` and lasts `duration` seconds.

    Returns float32 [samples] at 16 kHz, the mean over channels, samples `round(16000 * start)` up to
    `round(16000 * (start + duration))` of the whole recording: neighbouring spans join without gap or overlap, and
    what lies beyond the end is left away. Only the span is decoded. Amplitudes beyond 1 (float files) stay as they are.
    A span equals the same cut of the whole recording within 2e-6 (Opus at 16 kHz or less within 1e-2: its
    speech coder forgets the past slowly).

    Raises AudioError: a file that is missing, empty, not audio, truncated, without samples, or not finite.
    Truncation is seen where the file lets it be known: a WAV, AIFF, FLAC or MP3 that holds less than its header says,
    an Ogg without its end-of-stream page (RFC 3533). Not told from whole ones are a stream of unknown length, an MP3
    without a frame count or with at most two frames gone, and a span that ends before the cut.
    """
    if not 0 <= start < math.inf or not (duration is None or 0 <= duration < math.inf):
        raise K2DError(f"{path}: span at {start} s for {duration} s; give a start and a duration of 0 or more seconds")
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else round((start + duration) * SAMPLE_RATE)
    with _open(path) as sound:
        if last is None:
            _check_complete(path)
        # Both rates share a grid on which a resampled cut falls on the samples of the resampled whole.
        common = math.gcd(sound.samplerate, SAMPLE_RATE)
        step_in, step_out = sound.samplerate // common, SAMPLE_RATE // common
        margin = 0 if step_in == step_out else FILTER_MARGIN
        steps = max(0, first - margin) // step_out
        end = None if last is None else math.ceil((last + margin) * step_in / step_out)
        audio = _resample(_mono_blocks(sound, path, steps * step_in, end), sound.samplerate)
    offset = steps * step_out
    return audio[first - offset : None if last is None else last - offset]


def audio_duration(path: str | os.PathLike[str]) -> float:
    """Return the length of a recording in seconds, from its header where that says it, else by decoding it.

    Raises AudioError like `read_audio`, except that truncation and samples that are not finite may go unseen.
    """
    with _open(path) as sound:
        if sound.frames < UNKNOWN_LENGTH:
            return sound.frames / sound.samplerate
        return sum(len(block) for block in _mono_blocks(sound, path, 0, None)) / sound.samplerate


def _open(path: str | os.PathLike[str]) -> _Sound:
    if not os.path.exists(path):
        raise AudioError(path, "no such file")
    if not os.path.isfile(path):
        raise AudioError(path, "not a file")
    if os.path.getsize(path) == 0:
        raise AudioError(path, "empty file")
    if not os.access(path, os.R_OK):
        raise AudioError(path, "not readable")
    try:
        sound = _Sound(os.fspath(path))
        mended = None
        if sound.format in MP3_FORMATS:
            mended = with_frame_count(path)
        elif sound.frames == 0:
            mended = _with_open_size(path)
        if mended:
            sound.close()
            sound = _Sound(mended)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a name that ends in .raw
        _check_complete(path, opened=False)
        raise AudioError(path, "not audio") from error
    if sound.frames <= 0:
        sound.close()
        _check_complete(path)
        raise AudioError(path, "no samples")
    return sound


def _mono_blocks(sound: _Sound, path: str | os.PathLike[str], begin: int, end: int | None) -> Iterator[np.ndarray]:
    """Yield frames [begin, end) as mono float32 blocks; fewer than the file promises are an AudioError."""
    promised = sound.frames
    end = promised if end is None else min(end, promised)
    lead = round(LOSSY_LEAD * sound.samplerate) if sound.format in LOSSY_FORMATS else 0
    # A stream of unknown length cannot be searched, so it is decoded from its first frame.
    position = max(0, min(begin, promised) - lead) if promised < UNKNOWN_LENGTH else 0
    try:
        if position:
            sound.seek(position)
        while position < end:
            stop_if_asked()  # an hour takes seconds to decode
            block = sound.read(min(BLOCK_FRAMES, end - position), dtype="float32", always_2d=True)
            if len(block) == 0:
                break
            mono = block[max(0, begin - position) :].mean(axis=1)
            position += len(block)
            if not np.isfinite(mono).all():
                raise AudioError(path, "not finite", f"at {(position - len(mono)) / sound.samplerate:.1f} s or after")
            yield mono
    except soundfile.SoundFileError as error:
        raise AudioError(path, "truncated", _stops(position, promised, sound.samplerate)) from error
    if position + SHORT_READ_SLACK < end and promised < UNKNOWN_LENGTH:
        raise AudioError(path, "truncated", _stops(position, promised, sound.samplerate))


def _stops(position: int, promised: int, rate: int) -> str:
    whole = f" of {promised / rate:.1f} s" if promised < UNKNOWN_LENGTH else ""
    return f"decoding stops after {position / rate:.1f} s{whole}"


def _resample(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
    """Join mono blocks at `rate` Hz into one array at 16 kHz; by blocks, as an hour at 48 kHz stereo fills 1.4 GB."""
    nothing = np.zeros(0, dtype=np.float32)
    if rate == SAMPLE_RATE:
        return np.concatenate([nothing, *blocks])
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(block) for block in blocks]
    return np.concatenate([*parts, stream.resample_chunk(nothing, last=True)])


def _check_complete(path: str | os.PathLike[str], *, opened: bool = True) -> None:
    """Raise AudioError "truncated" if the container says that its end is missing; decodes nothing."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic in (b"RIFF", b"RIFX", b"FORM"):
            start, length = _samples_chunk(file, size, magic)
            if start + (0 if length >= STREAMED_SIZE else length) > size + HEADER_SLACK:
                raise AudioError(path, "truncated", "fewer bytes than its header says")
        elif magic == b"OggS":
            file.seek(max(0, size - 2 * OGG_PAGE_BYTES))
            if not _ends_ogg_stream(file.read()):
                raise AudioError(path, "truncated", "no end-of-stream page")
        elif magic == b"fLaC" and not opened:
            raise AudioError(path, "truncated", "not even its first frame is whole")


def _samples_chunk(file: BinaryIO, size: int, magic: bytes) -> tuple[int, int]:
    """Return where the chunk of samples begins and its length; where that chunk is missing, a place beyond the end."""
    layout = "<4sI" if magic == b"RIFF" else ">4sI"
    position = 12  # behind the container's own name, length and kind
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(layout, file.read(8))
        position += 8
        if name in (b"data", b"SSND"):
            return position, length
        position += length + length % 2  # chunks begin at even places
    return size + HEADER_SLACK + 1, 0


def _with_open_size(path: str | os.PathLike[str]) -> io.BytesIO | None:
    """Return a WAV stream whose header says 0 bytes with "unknown" there, which libsndfile reads; None for others."""
    with open(path, "rb") as file:
        size, magic = os.path.getsize(path), file.read(4)
        start, length = _samples_chunk(file, size, magic) if magic == b"RIFF" else (size, 0)
        file.seek(start)
        following = file.read(8)
        if length or len(following) < 8:
            return None
        name, next_length = struct.unpack("<4sI", following)
        if name.strip().isalnum() and start + 8 + next_length <= size:
            return None  # another chunk: this one really holds no samples
        file.seek(0)
        content = bytearray(file.read())
    content[start - 4 : start] = b"\xff" * 4
    return io.BytesIO(content)


def _ends_ogg_stream(tail: bytes) -> bool:
    """Tell whether the last page in `tail` is whole and carries the end-of-stream flag (RFC 3533, section 6)."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return False
    flags, segments = tail[at + 5], tail[at + 26]
    lacing = tail[at + 27 : at + 27 + segments]
    whole = len(lacing) == segments and len(tail) >= at + 27 + segments + sum(lacing)
    return whole and bool(flags & 4)
