"""Ogg Vorbis whose first page does not begin at sample 0, as cuts without encoding leave it: all of it, in its place."""

import io

import numpy as np
import pytest
import soundfile
from far_files import put
from media_files import moved_pages, sweep

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, decode_audio, decoded_duration, read_audio
from k2d_hf.audio.vorbis import samples_before_zero

SECONDS = 8.0
SPANS = [(0.0, 1.0), (0.1, 0.5), (0.9, 0.2), (1.23456, 2.0), (4.5, 1.0), (7.5, None), (9.0, 1.0)]


def vorbis(rate=SAMPLE_RATE, channels=1, level=0.5, seconds=SECONDS):
    """A tone with clicks, for which the coder changes between long blocks and short ones."""
    sound = np.repeat(sweep(rate, seconds)[:, None], channels, axis=1)
    sound[:: rate // 3] = 0.9
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="OGG", subtype="VORBIS", compression_level=level)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_samples_before_zero_are_counted(rate, channels, level):
    content = vorbis(rate, channels, level, seconds=4.0)
    for early in (0, 1, 300, 2000):
        assert samples_before_zero(io.BytesIO(moved_pages(content, -early))) == early
    assert samples_before_zero(io.BytesIO(moved_pages(content, 5000))) == 0


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("early", [1, 100, 0.03, 0.25])
def test_what_lies_before_zero_is_heard_and_moves_nothing(tmp_path, rate, early):
    pytest.importorskip("av")
    content = vorbis(rate)
    moved = moved_pages(content, -round(early * rate if early < 1 else early))
    whole = decode_audio(content, "a.ogg")
    path = tmp_path / "a.ogg"
    path.write_bytes(moved)
    audio = read_audio(path)
    assert audio == pytest.approx(whole, abs=2e-5)
    assert audio_duration(path) == decoded_duration(moved, "a.ogg") == SECONDS
    address = put(f"memory://vorbis/{rate}-{early}.ogg", moved)
    for start, duration in SPANS:
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        cut = audio[round(start * SAMPLE_RATE) : last]
        for source in (path, address):
            span = read_audio(source, start, duration)
            assert len(span) == len(cut)
            assert span == pytest.approx(cut, abs=2e-6)


@pytest.mark.parametrize("late", [1, 16000, 16_000_000])
def test_a_stream_that_begins_later_is_the_same_sound(late):
    content = vorbis()
    assert np.array_equal(decode_audio(moved_pages(content, late), "a.ogg"), decode_audio(content, "a.ogg"))


def test_a_stream_of_one_page_tells_its_end_and_not_its_start():
    content = vorbis(seconds=0.2)
    assert samples_before_zero(io.BytesIO(content)) == 0
    assert len(decode_audio(content, "a.ogg")) == 0.2 * SAMPLE_RATE


def test_truncated_it_is_named_as_such():
    pytest.importorskip("av")
    content = moved_pages(vorbis(), -4000)
    with pytest.raises(AudioError, match=r"truncated \(no end-of-stream page\)"):
        decode_audio(content[: len(content) // 2], "a.ogg")


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_start_is_judged_by_the_decoder(seed):
    random = np.random.default_rng(seed)
    content = bytearray(vorbis(seconds=1.0))
    for at in random.integers(0, 5000, 40):
        content[at] = random.integers(256)
    for file in (bytes(content), bytes(content[:100]), bytes(content[:4000]), b"OggS" + bytes(30), b""):
        assert samples_before_zero(io.BytesIO(file)) >= 0


def test_without_pyav_one_line_has_the_command(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(AudioError, match=r"a\.ogg: no decoder; pip install av"):
        decode_audio(moved_pages(vorbis(), -4000), "a.ogg")
