"""The audio reader over damaged files of phones and films: samples, or one line that names the file; never a crash."""

import functools
import sys
from pathlib import Path

from hypothesis import strategies as st

from k2d_hf.audio.reader import audio_duration, read_audio

from .mutations import mutated_bytes
from .targets import bounded, fuzz, outcome, workspace

sys.path.append(str(Path(__file__).parents[1]))  # `python -m tests.fuzz` does not
from media_files import KINDS, media  # noqa: E402

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
)


@functools.cache
def valid(kind: str) -> bytes:
    """Four seconds, which a search for a span takes."""
    return media(kind, seconds=4.0)


@fuzz(
    examples=60,
    kind=st.sampled_from(list(KINDS)),
    data=st.data(),
    start=st.sampled_from((0.0, 0.5, 3.2, 1e6)),
    duration=st.sampled_from((None, 0.3)),
)
def test_media(kind, data, start, duration):
    content = data.draw(mutated_bytes(st.just(valid(kind)), pieces=PIECES))
    path = workspace() / kind
    path.write_bytes(content)
    with bounded(seconds=8.0, megabytes=700.0):  # of silence, where a damaged time stamp says that an hour is missing
        outcome(read_audio, path, start, duration, names=kind)
        outcome(audio_duration, path, names=kind)
