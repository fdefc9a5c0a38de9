"""The audio of a chunk, its length and its key, however the chunk is stored.

A chunk is a span of a recording, which is a path or an address; or it carries its own audio, as the bytes of a file or
as samples. A row with a text and audio alone is a chunk too: an utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from k2d_hf.audio.reader import AudioError, audio_duration, decode_audio, decoded_duration, read_audio
from k2d_hf.data.audio_values import Samples, SoundBytes, sound_in
from k2d_hf.data.recording_rows import selection_in
from k2d_hf.errors import K2DError
from k2d_hf.files.content_keys import content_key, digest_of
from k2d_hf.files.paths import name_of


@dataclass(frozen=True)
class Span:
    """Part of a file: path or address, start and duration in seconds; None is up to its end."""

    recording: str
    start: float = 0.0
    duration: float | None = None


def source_of(chunk: Mapping[str, Any]) -> Span | SoundBytes | Samples:
    """The source of a chunk's audio: its `recording`, `start` and `duration` (s), or its `audio`.

    What `audio` holds is the chunk alone, and comes first. A path in it is used where no span of a recording is given.

    Raises:
        AudioError: if it has neither.
        K2DError: for a value of `audio` that is none.
    """
    recording, start = chunk.get("recording"), chunk.get("start")
    sound = sound_in(chunk.get("audio"), recording or "a chunk")
    if isinstance(sound, (SoundBytes, Samples)):
        return sound
    path = sound.path if sound is not None and not (recording and start is not None) else recording
    if not path:
        raise AudioError(chunk_name(chunk), "no such file", "it has no audio, and no path to any")
    return Span(path) if start is None else Span(path, float(start), chunk.get("duration"))


def read_chunk(chunk: Mapping[str, Any]) -> np.ndarray:
    """Audio of a chunk, float32 [samples] at 16 kHz: its own where it carries it, else its span of the recording.

    Either is of the track and channel that the chunk names. Raises as `source_of` and `read_audio` do.
    """
    source, selection = source_of(chunk), selection_in(chunk)
    if isinstance(source, Span):
        return read_audio(source.recording, source.start, source.duration, selection=selection)
    content = source.content if isinstance(source, SoundBytes) else source.wav()
    return decode_audio(content, chunk_name(chunk), selection)


def chunk_seconds(chunk: Mapping[str, Any]) -> float:
    """Length of a chunk in seconds: of a span as in its row, else as in the header of its audio.

    Raises as `source_of` and `audio_duration` do.
    """
    if chunk.get("start") is not None and chunk.get("duration") is not None:
        return float(chunk["duration"])
    source, selection = source_of(chunk), selection_in(chunk)
    if isinstance(source, Span):
        return audio_duration(source.recording, selection) - source.start
    if isinstance(source, Samples):
        return len(source.values) / source.rate
    return decoded_duration(source.content, chunk_name(chunk), selection)


def chunk_key(chunk: Mapping[str, Any], *, file_key: Callable[[str], str] = content_key) -> str:
    """Unique key of a chunk's audio: a digest of its own, else its recording's content and its span.

    The key of a chunk without audio is its name. Where many chunks are of few recordings, `file_key` has a cache.
    """
    try:
        source, selection = source_of(chunk), selection_in(chunk)
    except K2DError:
        return chunk_name(chunk)
    if isinstance(source, Span):
        return f"{file_key(source.recording)} {source.start!r}+{source.duration!r}{selection.key}"
    digest = digest_of(source.content if isinstance(source, SoundBytes) else source.identity)
    return f"sound {digest}{selection.key}"


def ends_with_its_sound(chunk: Mapping[str, Any]) -> bool:
    """Whether a chunk carries its own audio, so that what follows it in the recording cannot be read."""
    value = chunk.get("audio")
    if isinstance(value, Mapping):
        return value.get("bytes") is not None or value.get("array") is not None
    return value is not None and not isinstance(value, str)


def chunk_name(chunk: Mapping[str, Any]) -> str:
    """The name of a chunk in messages: its recording and where it starts, or its file."""
    name, start = _path_of(chunk) or "an utterance without a name", chunk.get("start")
    return name if start is None else f"{name} at {start:.1f} s"


def recording_name(chunk: Mapping[str, Any]) -> str:
    """The name of the file that a chunk is of, whatever folder it is in; empty where none is known."""
    return name_of(_path_of(chunk))


def _path_of(chunk: Mapping[str, Any]) -> str:
    value = chunk.get("audio")
    path = value.get("path") if isinstance(value, Mapping) else value if isinstance(value, str) else None
    return chunk.get("recording") or path or ""
