"""The audio reader over damaged files of phones and films: samples, or one line that names the file; never a crash."""

import functools
import io
import sys
from pathlib import Path

import numpy as np
import soundfile
from hypothesis import strategies as st

from k2d_hf.audio.reader import audio_duration, read_audio, read_recording
from k2d_hf.audio.selection import USUAL, Selection

from .mutations import mutated_bytes
from .targets import bounded, fuzz, outcome, workspace

sys.path.append(str(Path(__file__).parents[1]))  # `python -m tests.fuzz` does not
from media_files import KINDS, media, moved_pages, several_tracks, shortened, sweep  # noqa: E402

PIECES = (
    b"moov",
    b"mdat",
    b"elst",
    b"stts",
    b"\x18S\x80g",
    b"\x1fC\xb6u",
    b"\xff\xf1",
    b"\0\0\0\1",
    b"\x7f" + b"\xff" * 7,
    b"OggS",
    b"\x05vorbis",
    b"NIST_1A",
    b"sample_count -i 99999999",
    b"ajkg",
)


SECONDS = 4.0  # which a search for a span takes


def tracks(kind: str) -> bytes:
    """A track of one channel, and one of two."""
    sound = sweep(KINDS[kind][2], SECONDS)
    return several_tracks(kind, [sound, np.stack([sound, -sound])])


def written(**options: str) -> bytes:
    file, sound = io.BytesIO(), sweep(16000, SECONDS)
    soundfile.write(file, np.stack([sound, -0.9 * sound], axis=1), 16000, **options)
    return file.getvalue()


OTHERS = {
    "two.m4a": lambda: tracks("a.m4a"),
    "two.mkv": lambda: tracks("a.mkv"),
    "early.ogg": lambda: moved_pages(written(format="OGG", subtype="VORBIS"), -3000),
    "plain.sph": lambda: written(format="NIST"),
    "packed.sph": lambda: shortened((20_000 * sweep(16000, SECONDS)).astype(int)),
    "stereo.wav": lambda: written(format="WAV"),
    "stereo.flac": lambda: written(format="FLAC"),
    "stereo.mp3": lambda: written(format="MP3"),
}


@functools.cache
def valid(kind: str) -> bytes:
    """A file that nothing is wrong with."""
    return OTHERS[kind]() if kind in OTHERS else media(kind, seconds=SECONDS)


@fuzz(
    examples=60,
    kind=st.sampled_from([*KINDS, *OTHERS]),
    data=st.data(),
    start=st.sampled_from((0.0, 0.5, 3.2, 1e6)),
    duration=st.sampled_from((None, 0.3)),
    selection=st.sampled_from(
        (USUAL, USUAL, Selection(track=1), Selection(channel="louder"), Selection(1, "1"), Selection(channel="0"))
    ),
)
def test_media(kind, data, start, duration, selection):
    content = data.draw(mutated_bytes(st.just(valid(kind)), pieces=PIECES))
    path = workspace() / kind
    path.write_bytes(content)
    with bounded(seconds=8.0, megabytes=700.0):  # of silence, where a damaged time stamp says that an hour is missing
        outcome(read_audio, path, start, duration, selection=selection, names=kind)
        outcome(read_recording, path, selection=selection, names=kind)
        outcome(audio_duration, path, selection, names=kind)
