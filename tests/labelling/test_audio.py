"""The audio reader: every format, rate and number of channels; spans; and every way in which a file can be bad."""

import io
import pickle
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, read_audio
from k2d_hf.errors import K2DError

SECONDS = 6.3
FORMATS = {  # extension: libsndfile's format and subtype, the rates it can hold
    "wav": ("WAV", "PCM_16", (8000, 16000, 44100, 48000, 96000)),
    "float.wav": ("WAV", "FLOAT", (8000, 16000, 44100, 48000, 96000)),
    "flac": ("FLAC", "PCM_16", (8000, 16000, 44100, 48000, 96000)),
    "ogg": ("OGG", "VORBIS", (8000, 16000, 44100, 48000, 96000)),
    "opus": ("OGG", "OPUS", (8000, 16000, 24000, 48000)),
    "mp3": ("MP3", "MPEG_LAYER_III", (8000, 16000, 44100, 48000)),
}
CASES = [(extension, rate, channels) for extension, row in FORMATS.items() for rate in row[2] for channels in (1, 2)]


def sweep(rate, seconds=SECONDS, channels=1):
    """A tone that rises from 100 Hz to 1.5 kHz over a little noise: shifts of one sample show, and codecs keep it."""
    time = np.arange(round(rate * seconds)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (100 * time + 700 / seconds * time**2))
    mono = tone + 0.01 * np.random.default_rng(0).standard_normal(time.size)
    return np.stack([mono] * channels, axis=1).astype(np.float32)


def write(path, audio, rate, container="WAV", subtype="PCM_16"):
    soundfile.write(path, audio, rate, format=container, subtype=subtype)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audio")
    return {
        (extension, rate, channels): write(
            folder / f"{rate}_{channels}.{extension}", sweep(rate, channels=channels), rate, *FORMATS[extension][:2]
        )
        for extension, rate, channels in CASES
    }


@pytest.mark.parametrize(("extension", "rate", "channels"), CASES)
def test_every_format_rate_and_channel_count_gives_the_same_sound(files, extension, rate, channels):
    path = files[extension, rate, channels]
    audio, expected = read_audio(path), sweep(SAMPLE_RATE)[:, 0]
    assert (audio.dtype, audio.ndim) == (np.float32, 1)
    assert len(audio) == len(expected)
    assert audio_duration(path) == pytest.approx(SECONDS, abs=1e-9)
    inner = slice(SAMPLE_RATE // 10, -SAMPLE_RATE // 10)
    assert np.corrcoef(audio[inner], expected[inner])[0, 1] > 0.99


@pytest.mark.parametrize(("extension", "rate", "channels"), CASES)
def test_a_span_equals_the_same_cut_of_the_whole(files, extension, rate, channels):
    path = files[extension, rate, channels]
    whole = read_audio(path)
    # The speech coder in Opus, used at low rates, starts anew after a seek and settles only slowly.
    tolerance = 1e-2 if extension == "opus" and rate <= 16000 else 2e-6
    for start, duration in [(0, 1), (0.5, 0.25), (1.23456, 2.0), (2.99999, 1.7), (4.4, 1.9), (6.21, 0.09), (5.9, None)]:
        first = round(start * SAMPLE_RATE)
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        span = read_audio(path, start, duration)
        assert len(span) == len(whole[first:last])
        assert np.abs(span - whole[first:last]).max() < tolerance, (start, duration)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000]),
    cuts=st.lists(st.floats(0, 1.2), min_size=1, max_size=4).map(sorted),
)
def test_neighbouring_spans_join_into_the_whole(tmp_path, rate, cuts):
    path = tmp_path / f"{rate}.wav"
    if not path.exists():
        write(path, sweep(rate, 1.0), rate)
    edges = [0.0, *cuts]
    spans = [read_audio(path, start, end - start) for start, end in zip(edges, edges[1:], strict=False)]
    joined = np.concatenate([*spans, read_audio(path, edges[-1])])
    whole = read_audio(path)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() < 2e-6


@pytest.mark.parametrize(
    ("start", "duration", "seconds"), [(0.5, 9, 0.5), (0.75, None, 0.25), (1, 1, 0), (99, 1, 0), (0, 0, 0)]
)
@pytest.mark.parametrize("rate", [16000, 44100])
def test_beyond_the_end_there_is_nothing(tmp_path, start, duration, seconds, rate):
    path = write(tmp_path / "a.wav", sweep(rate, 1.0), rate)
    assert len(read_audio(path, start, duration)) == round(seconds * SAMPLE_RATE)


@pytest.mark.parametrize(
    ("start", "duration"), [(-1, None), (0, -1), (float("nan"), 1), (float("inf"), 1), (0, float("nan"))]
)
def test_a_span_that_is_none_is_an_error(tmp_path, start, duration):
    with pytest.raises(K2DError, match="give a start and a duration"):
        read_audio(write(tmp_path / "a.wav", sweep(16000, 0.1), 16000), start, duration)


def test_channels_are_averaged_and_loud_float_samples_kept(tmp_path):
    left, right = np.full(400, 2.0), np.full(400, 1.0)
    path = write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    assert read_audio(path) == pytest.approx(np.full(400, 1.5))


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 96000])
def test_the_shortest_recordings_are_read(tmp_path, frames, rate):
    audio = read_audio(write(tmp_path / "a.wav", np.full(frames, 0.1), rate))
    assert abs(len(audio) - frames * SAMPLE_RATE / rate) <= 1
    assert np.isfinite(audio).all()


def encoded(extension, seconds=2.0):
    buffer = io.BytesIO()
    soundfile.write(buffer, sweep(16000, seconds), 16000, format=FORMATS[extension][0], subtype=FORMATS[extension][1])
    return buffer.getvalue()


def with_value(value):
    buffer, audio = io.BytesIO(), sweep(16000, 1.0)
    audio[9000] = value
    soundfile.write(buffer, audio, 16000, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


NO_SAMPLES = io.BytesIO()
soundfile.write(NO_SAMPLES, np.zeros(0), 16000, format="WAV")
BAD = [
    ("text.wav", b"this is not a recording\n" * 99, "not audio"),
    ("text.mp3", b"this is not a recording\n" * 99, "not audio"),
    ("text.raw", b"this is not a recording\n" * 99, "not audio"),
    ("film.ogg", b"\x1aE\xdf\xa3" + bytes(999), "not audio"),
    ("noise.flac", np.random.default_rng(0).bytes(9999), "not audio"),
    ("empty.wav", b"", "empty file"),
    ("silent.wav", NO_SAMPLES.getvalue(), "no samples"),
    ("silent_with_tags.wav", NO_SAMPLES.getvalue() + b"LIST" + struct.pack("<I", 4) + b"INFO", "no samples"),
    ("nan.wav", with_value(np.nan), "not finite"),
    ("inf.wav", with_value(-np.inf), "not finite"),
    *[
        (f"cut_{share}.{extension}", encoded(extension)[: int(share * len(encoded(extension)))], "truncated")
        for extension in FORMATS
        for share in (0.25, 0.5, 0.9)
    ],
    ("cut_header.wav", encoded("wav")[:30], "truncated"),
    ("cut_header.flac", encoded("flac")[:30], "truncated"),
    ("cut_header.ogg", encoded("ogg")[:30], "truncated"),
    ("cut_last_byte.opus", encoded("opus")[:-1], "truncated"),
    ("cut_last_byte.flac", encoded("flac")[:-1], "truncated"),
]


@pytest.mark.parametrize(("name", "content", "reason"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_file_is_named_with_its_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "reason"), [("gone.wav", "no such file"), (".", "not a file")])
@pytest.mark.parametrize("read", [read_audio, audio_duration])
def test_what_is_no_file_is_named_with_its_reason(tmp_path, name, reason, read):
    with pytest.raises(AudioError) as caught:
        read(tmp_path / name)
    assert caught.value.reason == reason


def test_the_sound_part_of_a_truncated_file_can_still_be_read_as_a_span(tmp_path):
    path = tmp_path / "cut.flac"
    path.write_bytes(encoded("flac")[: len(encoded("flac")) // 2])
    assert len(read_audio(path, 0.1, 0.4)) == 6400


@pytest.mark.parametrize("whole_size", [0, 8, 36, 0x7FFFF024, 0xFFFFFFFF])
@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_stream_of_unknown_size_is_whole(tmp_path, size, whole_size):
    content = bytearray(encoded("wav"))
    at = content.index(b"data") + 4
    content[4:8], content[at : at + 4] = struct.pack("<I", whole_size), struct.pack("<I", size)
    content[at + 4 : at + 20] = bytes(16)  # recordings begin in silence
    path = tmp_path / "pipe.wav"
    path.write_bytes(content)
    assert len(read_audio(path)) == 2 * SAMPLE_RATE
    assert audio_duration(path) == 2.0


def test_a_flac_stream_of_unknown_length_is_whole(tmp_path):
    content = bytearray(encoded("flac"))
    # STREAMINFO, behind 4 bytes of magic and 4 of block header: its 36-bit count of samples ends at byte 17.
    content[8 + 13] &= 0xF0
    content[8 + 14 : 8 + 18] = bytes(4)
    path, whole = tmp_path / "pipe.flac", tmp_path / "whole.flac"
    path.write_bytes(content)
    whole.write_bytes(encoded("flac"))
    assert audio_duration(path) == 2.0
    assert np.array_equal(read_audio(path), read_audio(whole))
    assert np.array_equal(read_audio(path, 0.7, 0.5), read_audio(whole, 0.7, 0.5))
    assert len(read_audio(path, 3.0, 0.5)) == 0


def variable_rate_mp3(audio):
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, 16000, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    return buffer.getvalue()


TAIL = np.random.default_rng(0).bytes(30_000)


@pytest.mark.parametrize("loud_first", [True, False])
@pytest.mark.parametrize(
    ("before", "after"), [(b"", b""), (b"ID3\3\0\0\0\0\2\0" + b"\xff" * 256, b""), (b"", b"TAG" + TAIL)]
)
def test_an_mp3_stream_without_a_frame_count_is_read_to_its_end(tmp_path, loud_first, before, after):
    noise = 0.3 * np.random.default_rng(0).standard_normal(4 * 16000)
    audio = np.concatenate([noise, 0 * noise][:: 1 if loud_first else -1])
    counted = variable_rate_mp3(audio)
    stream = counted[counted.index(b"\xff\xf3", 4) :]  # without its first frame, which holds the count
    path = tmp_path / "stream.mp3"
    path.write_bytes(before + stream + after)
    whole = read_audio(path)
    assert len(whole) / SAMPLE_RATE == pytest.approx(8.0, abs=0.1)
    assert audio_duration(path) == pytest.approx(len(whole) / SAMPLE_RATE, abs=0.04)
    assert np.abs(read_audio(path, 5.0, 1.0) - whole[5 * SAMPLE_RATE : 6 * SAMPLE_RATE]).max() < 2e-6


def test_chunks_after_the_samples_and_a_header_that_counts_itself_are_no_truncation(tmp_path):
    content = bytearray(encoded("wav"))
    at = content.index(b"data") + 4
    trailing, counted = tmp_path / "trailing.wav", tmp_path / "counted.wav"
    trailing.write_bytes(bytes(content) + b"LIST" + struct.pack("<I", 4) + b"INFO")
    content[at : at + 4] = struct.pack("<I", 2 * 2 * SAMPLE_RATE + 44)
    counted.write_bytes(content)
    assert len(read_audio(trailing)) == len(read_audio(counted)) == 2 * SAMPLE_RATE


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "truncated", "no end")))
    assert (error.path, error.reason, str(error)[:27]) == ("a.wav", "truncated", "a.wav: truncated (no end); ")
