"""The one audio reader: from any file that libsndfile or PyAV reads to 16 kHz mono float32, all of it or a span.

Labelling reads whole recordings; later stages read the spans of chunks (`k2d_hf.data.chunk_audio`), with the
same function.
"""

import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from k2d_hf.audio.containers import missing_end, with_open_size
from k2d_hf.audio.media import unsupported_kind
from k2d_hf.audio.media_file import UNKNOWN_LENGTH, DecodingError, MediaError, MediaFile, media_format
from k2d_hf.audio.mp3 import with_frame_count
from k2d_hf.audio.selection import CANCELLED_ADVICE, LOUDER, USUAL, Energy, Mixer, Selection
from k2d_hf.audio.sound_file import Sound, check_readable, kept_position, size_of
from k2d_hf.audio.vorbis import samples_before_zero
from k2d_hf.errors import K2DError
from k2d_hf.files.background import check_cancelled
from k2d_hf.files.storage import is_address, open_to_read
from k2d_hf.formatting import os_error_reason

SAMPLE_RATE = 16_000  # Hz, what Whisper's feature extractor takes

# libsndfile's Vorbis seek is wrong (by up to a block) in the last page of a file, and Opus and MP3 decoders need what
# came before to settle; pages hold up to about a second, so two seconds of lead are decoded and thrown away.
LOSSY_LEAD = 2.0  # s
MP3_FORMATS = {"MP3", "MPEG"}
LOSSY_FORMATS = {"OGG", MediaFile.format} | MP3_FORMATS
# Read on either side of a span that is resampled; from 0.02 s on, the span equals the same cut of the whole file.
FILTER_MARGIN = SAMPLE_RATE // 20  # samples at 16 kHz
BLOCK_SAMPLES = 1 << 18  # of all channels, decoded at once
ROUNDING = 2.0**-15  # of samples of 16 bits, which is what two channels of one sound with two signs leave
RATES = range(1000, 1_000_001)  # Hz; at 1 Hz each sample would become 16,000
# Bytes that are fetched at once of a remote file; a search for a span reads a little in many places.
WHOLE_FETCH, SPAN_FETCH = 1 << 22, 1 << 17

SHORT_READ_SLACK = 2 * 1152  # samples: an MP3 counts its frames, and its decoder does not return some of the last ones
MEDIA_SLACK = 0.25  # s: headers of MPEG-4 and Matroska count what an encoder added, and round
SPAN_SLACK = 0.5  # s that a span may be longer than what there is: manifests round, and count an MP3's padding

ADVICE = {
    "no such file": "check the path",
    "not a file": "give the path of an audio file",
    "not readable": "check its permissions, and the disk or network that it is on",
    "empty file": "copy or download it again",
    "not audio": "convert it to WAV or FLAC (ffmpeg -i IN OUT.flac)",
    "not supported": "convert it to WAV or FLAC (ffmpeg -i IN OUT.flac), or give what is packed in it by itself",
    "no decoder": "pip install av, or convert it to WAV or FLAC (ffmpeg -i IN OUT.flac)",
    "encrypted": "save it without protection, with a program that may open it",
    "no such span": "check its start and duration, in seconds",
    "no such track": "give the number of one that it has, or leave track out",
    "no such channel": "give the number of one that it has, or leave channel out",
    "channels cancel": CANCELLED_ADVICE,
    "truncated": "copy it again, or keep what is left with ffmpeg -i IN OUT.flac",
    "no samples": "leave it out, or record it again",
    "sample rate": "convert it to 16 kHz (ffmpeg -i IN -ar 16000 OUT.flac)",
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
        path = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in self.path)  # on one line
        return f"{path}: {self.reason}{detail}; {ADVICE[self.reason]}"


@dataclass(frozen=True)
class Reading:
    """What was read of a recording, and of how much that was there."""

    samples: np.ndarray  # float32 [samples] at 16 kHz
    tracks: int = 1  # of sound, in the file
    channel: int | None = None  # the one that was taken, from 0 on; None is the mean
    cancels: bool = False  # whether the mean is next to nothing, as channels are out of phase

    @property
    def facts(self) -> dict[str, Any]:
        """All but the samples."""
        return {"tracks": self.tracks, "channel": self.channel, "cancels": self.cancels}


def read_audio(
    path: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
    *,
    within: bool = False,
    selection: Selection = USUAL,
) -> np.ndarray:
    """Decode a recording, or the span of it that begins at `start` and lasts `duration` seconds.

    Returns float32 [samples] at 16 kHz, samples `round(16000 * start)` up to `round(16000 * (start + duration))` of
    the whole recording: neighbouring spans join without gap or overlap, and what lies beyond the end is left away.
    They are the mean over channels of the track that the file prefers, unless `selection` names others.
    Only the span is decoded. Amplitudes beyond 1 (float files) stay as they are.
    A span equals the same cut of the whole recording within 2e-6 (Opus at 16 kHz or less, and AMR, within 1e-2: a
    speech coder forgets the past slowly; of AAC the noise differs that its decoder makes up).
    The path may be an address that fsspec knows, such as `s3://bucket/a.flac`: there a span fetches little more than
    itself; of an MP3 all before it too, and where that has no frame count, all of it. PyAV decodes what libsndfile
    cannot open (`media_file`): there a span of some formats is decoded from the start of the file.
    With `within` the span must lie in the recording, but for half a second of rounding at its end.

    Raises AudioError: a file that is missing, cannot be read to its end, is empty, not audio or of a kind that is not
    supported, encrypted, truncated, without samples, of an absurd rate, or not finite; a span that is not `within` it;
    a track or channel that it has not; no PyAV for one that needs it.
    Truncation is found in a WAV, AIFF, FLAC, MP3, MPEG-4, Matroska, AVI or ASF that holds less than its header
    promises, and in an Ogg without its end-of-stream page (RFC 3533). It is missed in a stream of unknown length (AAC
    and AMR alone, FLV and MPEG, cut between two frames), an MP3 without a frame count or with at most two frames
    missing, and a span that ends before the cut.
    """
    return _read(path, start, duration, selection, within=within).samples


def read_recording(
    path: str | os.PathLike[str],
    start: float = 0.0,
    duration: float | None = None,
    *,
    within: bool = False,
    selection: Selection = USUAL,
) -> Reading:
    """As `read_audio`, with what is known of tracks and channels beside the samples.

    The `louder` channel is that of the span, or of the whole file, which is decoded twice for it. Channels whose mean
    is silence but for rounding, while they are not, are an AudioError.
    """
    reading = _read(path, start, duration, selection, within=within)
    if reading.cancels and np.sqrt(np.mean(reading.samples**2)) < ROUNDING:
        raise AudioError(path, "channels cancel", "they are out of phase: their mean is silence")
    return reading


def _read(
    path: str | os.PathLike[str], start: float, duration: float | None, selection: Selection, *, within: bool
) -> Reading:
    if not 0 <= start < math.inf or not (duration is None or 0 <= duration < math.inf):
        if within:
            raise AudioError(path, "no such span", _span_text(start, duration))
        raise K2DError(f"{path}: span at {start} s for {duration} s; give a start and a duration of 0 or more seconds")
    with _opened(path, WHOLE_FETCH if duration is None else SPAN_FETCH) as file:
        reading = _decoded(file, path, start, duration, selection)
    if within and (start or duration is not None):
        lacks = 0.0 if duration is None else duration - len(reading.samples) / SAMPLE_RATE
        if len(reading.samples) == 0 or lacks > SPAN_SLACK:
            span_within(path, start, duration, audio_duration(path, selection))
    return reading


def span_within(path: str | os.PathLike[str], start: float, duration: float | None, seconds: float) -> float:
    """Seconds of a span that there are in a recording of so many `seconds`.

    Raises AudioError if the span does not lie in the recording, but for half a second of rounding at its end.
    """
    there = seconds - start if duration is None else min(duration, seconds - start)
    if not (start >= 0 and there > 0 and (duration is None or duration - there <= SPAN_SLACK)):
        raise AudioError(path, "no such span", f"{_span_text(start, duration)}, of {seconds:.2f} s")
    return there


def _span_text(start: float, duration: float | None) -> str:
    return f"from {start:g} s on" if duration is None else f"{start:g} to {start + duration:g} s"


def decode_audio(content: bytes, name: str, selection: Selection = USUAL) -> np.ndarray:
    """Decode a recording in memory as `read_audio` does one in a file; errors call it `name`."""
    if not content:
        raise AudioError(name, "empty file")
    return _decoded(io.BytesIO(content), name, 0.0, None, selection).samples


def audio_duration(path: str | os.PathLike[str], selection: Selection = USUAL) -> float:
    """Return the length of a recording in seconds, from its header where it has it, else by decoding it.

    Raises AudioError like `read_audio`, except that truncation and samples that are not finite may be missed.
    """
    with _opened(path, SPAN_FETCH) as file:
        return _seconds(file, path, selection)


def decoded_duration(content: bytes, name: str, selection: Selection = USUAL) -> float:
    """Return the length of a recording in memory in seconds, as `audio_duration` does of one in a file."""
    if not content:
        raise AudioError(name, "empty file")
    return _seconds(io.BytesIO(content), name, selection)


def _seconds(file: BinaryIO, path: str | os.PathLike[str], selection: Selection) -> float:
    with _sound(file, path, selection) as sound:
        if sound.frames < UNKNOWN_LENGTH:
            return sound.frames / sound.samplerate
        return sum(len(block) for block in _blocks(sound, file, path, 0, None)) / sound.samplerate


@contextmanager
def _opened(path: str | os.PathLike[str], fetch: int) -> Iterator[BinaryIO]:
    """The file of a recording; every failure to open or read it is an AudioError."""
    try:
        with _open(path, fetch) as file:
            if size_of(file) == 0:
                raise AudioError(path, "empty file")
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError(path, "no such file") from error
    except IsADirectoryError as error:
        raise AudioError(path, "not a file") from error
    except OSError as error:
        raise AudioError(path, "not readable", os_error_reason(error)) from error


def _open(path: str | os.PathLike[str], fetch: int) -> BinaryIO:
    if is_address(path):
        try:
            return open_to_read(path, fetch=fetch)
        except K2DError as error:
            raise OSError(str(error)) from error
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()  # one that cannot be listed may hold recordings, and is not readable
        if not stat.S_ISREG(mode):  # before it is opened: a pipe would wait for its writer
            raise IsADirectoryError
        return open(path, "rb", buffering=0)  # noqa: SIM115, the caller's to close; libsndfile shares its place
    except (ValueError, UnicodeError) as error:  # a name that no file can have
        raise FileNotFoundError from error


@contextmanager
def _sound(file: BinaryIO, path: str | os.PathLike[str], selection: Selection) -> Iterator[Sound | MediaFile]:
    """The decoder of a file, which has samples, and the track and channel that are wanted."""
    sound: Sound | MediaFile | None = None
    try:
        try:
            sound = Sound(file)
            patched, early = None, 0
            with kept_position(file):
                if sound.format in MP3_FORMATS:
                    patched = with_frame_count(file)
                elif sound.format == "OGG":
                    early = samples_before_zero(file)
                elif sound.frames == 0:
                    patched = with_open_size(file)
            if patched or early:
                sound.close()
                sound = Sound(patched) if patched else _media(file, path, selection.track, kind="ogg")
        except soundfile.SoundFileError as error:
            sound = _media(file, path, selection.track, error)
        if sound.frames <= 0:
            cut = missing_end(file)
            raise AudioError(path, "truncated" if cut else "no samples", cut)
        if sound.samplerate not in RATES:
            raise AudioError(path, "sample rate", f"{sound.samplerate} Hz")
        for wanted, there, what in (
            (selection.track, sound.tracks, "no such track"),
            (selection.number, sound.channels, "no such channel"),
        ):
            if wanted is not None and wanted >= there:
                raise AudioError(path, what, f"{wanted}, of {there}, counted from 0")
        yield sound
    finally:
        if sound is not None:
            sound.close()


def _media(
    file: BinaryIO, path: str | os.PathLike[str], track: int | None, error: Exception | None = None, *, kind: str = ""
) -> MediaFile:
    """The decoder of a file that libsndfile cannot open, or, where its `kind` is given, not read to the sample."""
    reason, detail = "not audio", ""
    if kind or media_format(file):
        try:
            return MediaFile(file, track, kind=kind)
        except MediaError as failure:
            reason, detail = failure.reason, failure.detail
    cut, kind = missing_end(file, opened=False), unsupported_kind(path)
    if cut and reason not in ("no decoder", "encrypted", "no such track"):
        reason, detail = "truncated", cut
    elif kind and reason == "not audio" and not detail:
        reason, detail = "not supported", kind
    raise AudioError(path, reason, detail) from error


def _decoded(
    file: BinaryIO, path: str | os.PathLike[str], start: float, duration: float | None, selection: Selection
) -> Reading:
    """What `read_recording` gives of an open file."""
    first = round(start * SAMPLE_RATE)
    last = None if duration is None else round((start + duration) * SAMPLE_RATE)
    with _sound(file, path, selection) as sound:
        if last is None:
            with kept_position(file):
                cut = missing_end(file)
            if cut:
                raise AudioError(path, "truncated", cut)
        # Both rates share a grid on which a resampled cut falls on the samples of the resampled recording.
        common = math.gcd(sound.samplerate, SAMPLE_RATE)
        step_in, step_out = sound.samplerate // common, SAMPLE_RATE // common
        margin = 0 if step_in == step_out else FILTER_MARGIN
        steps = max(0, first - margin) // step_out
        end = None if last is None else -(-(last + margin) * step_in // step_out)
        channel = selection.number
        if selection.channel == LOUDER:
            channel = 0 if sound.channels == 1 else _loudest(file, path, selection, steps * step_in, end)
        mixer = Mixer(channel)
        audio = _resample(_mono_blocks(mixer, sound, file, path, steps * step_in, end), sound.samplerate)
        tracks = sound.tracks
    offset = steps * step_out
    samples = audio[first - offset : None if last is None else last - offset]
    return Reading(samples, tracks, channel, mixer.cancels)


def _mono_blocks(
    mixer: Mixer, sound: Sound | MediaFile, file: BinaryIO, path: str | os.PathLike[str], begin: int, end: int | None
) -> Iterator[np.ndarray]:
    """Yield frames [begin, end) of one channel, [frames] float32."""
    position = begin
    for block in _blocks(sound, file, path, begin, end):
        mono = mixer.mix(block)
        if not np.isfinite(mono).all():
            raise AudioError(path, "not finite", f"at {position / sound.samplerate:.1f} s or after")
        position += len(mono)
        yield mono


def _loudest(file: BinaryIO, path: str | os.PathLike[str], selection: Selection, begin: int, end: int | None) -> int:
    """The channel with the most energy in frames [begin, end), the first of those that are alike."""
    energy = Energy()
    with kept_position(file), _sound(file, path, selection) as sound:
        for block in _blocks(sound, file, path, begin, end):
            energy.add(block)
    return int(np.argmax(energy.powers))


def _blocks(
    sound: Sound | MediaFile, file: BinaryIO, path: str | os.PathLike[str], begin: int, end: int | None
) -> Iterator[np.ndarray]:
    """Yield frames [begin, end), [frames, channels] float32; fewer than the file promises are an AudioError."""
    promised = sound.frames
    media = isinstance(sound, MediaFile)
    last = UNKNOWN_LENGTH if media else promised  # a header that has less than there is hides nothing
    end = last if end is None else min(end, last)
    lead = round(LOSSY_LEAD * sound.samplerate) if sound.format in LOSSY_FORMATS else 0
    # A stream of unknown length cannot be searched, so it is decoded from its first frame.
    position = max(0, min(begin, promised) - lead) if promised < UNKNOWN_LENGTH or media else 0
    try:
        if position:
            sound.seek_to(position)
        while position < end:
            check_cancelled()  # an hour takes seconds to decode
            block = sound.read_block(min(BLOCK_SAMPLES // sound.channels, end - position))
            if len(block) == 0:
                break
            yield block[max(0, begin - position) :]
            position += len(block)
    except (soundfile.SoundFileError, DecodingError) as error:
        raise AudioError(path, "truncated", _stops(position, promised, sound.samplerate)) from error
    except MediaError as error:
        raise AudioError(path, error.reason, error.detail) from error
    if position < end:
        if not media:
            check_readable(file)
        slack = round(MEDIA_SLACK * sound.samplerate) if media else SHORT_READ_SLACK
        if position + slack < min(end, promised) and promised < UNKNOWN_LENGTH:
            raise AudioError(path, "truncated", _stops(position, promised, sound.samplerate))


def _stops(position: int, promised: int, rate: int) -> str:
    total = f" of {promised / rate:.1f} s" if promised < UNKNOWN_LENGTH else ""
    return f"decoding stops after {position / rate:.1f} s{total}"


def _resample(blocks: Iterator[np.ndarray], rate: int) -> np.ndarray:
    """Join mono blocks at `rate` Hz into one array at 16 kHz; by blocks, as an hour at 48 kHz stereo fills 1.4 GB."""
    nothing = np.zeros(0, dtype=np.float32)
    if rate == SAMPLE_RATE:
        return np.concatenate([nothing, *blocks])
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    parts = [stream.resample_chunk(block) for block in blocks]
    return np.concatenate([*parts, stream.resample_chunk(nothing, last=True)])
