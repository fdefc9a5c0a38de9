"""The audio reader behind addresses, on disks and networks that break, and with headers that lie."""

import io
import os
import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import soundfile
from far_files import FarFileSystem, put

from k2d_hf.audio import reader as reader
from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, decode_audio, read_audio
from k2d_hf.data.chunk_audio import read_chunk

FORMATS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def noise(seconds, channels=1):
    return 0.1 * np.random.default_rng(0).standard_normal((round(seconds * SAMPLE_RATE), channels))


def encoded(extension, sound=None, rate=SAMPLE_RATE):
    buffer, (container, subtype) = io.BytesIO(), FORMATS[extension]
    soundfile.write(buffer, noise(4.0) if sound is None else sound, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def uncounted_mp3():
    counted = encoded("mp3")
    return counted[counted.index(b"\xff\xf3", 4) :]  # without its first frame, which holds the count


def wav(*, rate=16000, channels=1, claimed=None, samples=800):
    data = b"\1\0" * samples
    claimed = len(data) if claimed is None else claimed
    form = struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 % 2**32, channels * 2 % 2**16, 16)
    return b"RIFF" + struct.pack("<I", 2**31) + b"WAVEfmt " + form + b"data" + struct.pack("<I", claimed) + data


def flac_of(hours):
    content, frames = bytearray(encoded("flac")), hours * 3600 * SAMPLE_RATE
    # STREAMINFO, behind 4 bytes of magic and 4 of block header: its 36-bit count of samples ends at byte 17.
    content[8 + 13] = content[8 + 13] & 0xF0 | frames >> 32
    content[8 + 14 : 8 + 18] = struct.pack(">I", frames & 0xFFFFFFFF)
    return bytes(content)


def mp3_of(hours):
    content = bytearray(encoded("mp3"))
    at = content.index(b"Xing") + 8
    content[at : at + 4] = struct.pack(">I", hours * 3600 * SAMPLE_RATE // 576)
    return bytes(content)


def error_of(read, *arguments):
    with pytest.raises(AudioError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("name", "content"),
    [*((f"a.{extension}", encoded(extension)) for extension in FORMATS), ("stream.mp3", uncounted_mp3())],
)
@pytest.mark.parametrize("kind", ["memory", "far"])
def test_an_address_gives_the_same_samples_as_a_file(tmp_path, name, content, kind):
    path, address = tmp_path / name, put(f"{kind}://audio/{name}", content)
    path.write_bytes(content)
    FarFileSystem.begin()
    assert audio_duration(address) == audio_duration(path)
    for span in [(0.0, None), (0.0, 1.0), (1.23, 1.5), (3.5, 9.0), (9.0, 1.0)]:
        assert np.array_equal(read_audio(address, *span), read_audio(path, *span))


def test_a_span_of_a_large_file_fetches_little_more_than_itself():
    content = encoded("flac", noise(1200.0))
    address = put("far://audio/lecture.flac", content)
    FarFileSystem.begin()
    span = read_audio(address, 700.0, 20.0)
    assert len(span) == 20 * SAMPLE_RATE
    assert FarFileSystem.fetched < len(content) / 8
    assert np.array_equal(span, decode_audio(content, "lecture.flac")[700 * SAMPLE_RATE : 720 * SAMPLE_RATE])


FAR = [
    ("memory://audio/gone.wav", "no such file", ""),
    ("memory://audio", "not a file", ""),
    ("nosuchkind://a.wav", "not readable", "cannot be reached"),
    (put("memory://audio/empty.wav", b""), "empty file", ""),
    (put("memory://audio/text.wav", b"this is no recording" * 99), "not audio", ""),
    (put("memory://audio/cut.wav", encoded("wav")[:9000]), "truncated", "fewer bytes"),
    (put("memory://audio/cut.opus", encoded("opus")[:-1]), "truncated", "no end-of-stream"),
]


@pytest.mark.parametrize(("address", "reason", "detail"), FAR)
def test_a_bad_file_behind_an_address_is_named_with_its_reason(address, reason, detail):
    error = error_of(read_audio, address)
    assert (error.path, error.reason) == (address, reason)
    assert detail in error.detail


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_network_that_breaks_is_not_taken_for_a_bad_recording(monkeypatch, extension, share):
    monkeypatch.setattr(reader, "WHOLE_FETCH", 4096)
    content = encoded(extension)
    address = put(f"far://audio/broken.{extension}", content)
    FarFileSystem.begin(breaks_after=share * len(content))
    error = error_of(read_audio, address)
    assert (error.reason, "ConnectionLost: peer went away" in error.detail) == ("not readable", True)


class FailingDisk(io.FileIO):
    """A file whose end cannot be read: to libsndfile, which has its descriptor, it is a short one."""

    def read(self, count=-1):
        content = super().read(count)
        if not content:
            raise OSError(5, "Input/output error")
        return content


@pytest.mark.parametrize("extension", ["flac", "mp3"])
@pytest.mark.parametrize("left", [60, 9000])
def test_a_disk_that_fails_is_not_taken_for_a_bad_recording(tmp_path, monkeypatch, extension, left):
    path = tmp_path / f"a.{extension}"
    path.write_bytes(encoded(extension)[:left])
    monkeypatch.setattr(reader, "_open", lambda path, fetch: FailingDisk(path))
    error = error_of(read_audio, path)
    assert (error.reason, error.detail) == ("not readable", "Input/output error")


@pytest.mark.parametrize(
    ("raised", "reason", "detail"),
    [
        (FileNotFoundError(2, "No such file or directory"), "no such file", ""),
        (PermissionError(13, "Permission denied"), "not readable", "Permission denied"),
        (OSError(5, "Input/output error"), "not readable", "Input/output error"),
        (OSError(116, "Stale file handle"), "not readable", "Stale file handle"),
    ],
)
def test_a_file_that_goes_after_it_was_listed_is_named_with_its_reason(tmp_path, monkeypatch, raised, reason, detail):
    (tmp_path / "a.wav").write_bytes(encoded("wav"))

    def gone(*_, **__):
        raise raised

    monkeypatch.setattr("builtins.open", gone)
    error = error_of(read_audio, tmp_path / "a.wav")
    assert (error.reason, error.detail) == (reason, detail)


DAMAGED = encoded("opus", noise(2.0))
DAMAGED = DAMAGED[: len(DAMAGED) // 2] + b"\xff" * 400 + DAMAGED[len(DAMAGED) // 2 + 400 :]
LIES = [
    ("12 hours.wav", wav(claimed=12 * 3600 * 32000), "truncated"),
    ("four gigabytes.wav", wav(claimed=2**32 - 100), "truncated"),
    ("12 hours.flac", flac_of(12), "truncated"),
    ("12 hours.mp3", mp3_of(12), "truncated"),
    ("one hertz.wav", wav(rate=1), "sample rate"),
    ("two gigahertz.wav", wav(rate=2**31 - 1), "sample rate"),
    ("no channel.wav", wav(channels=0), "not audio"),
    ("film.wav", b"RIFF" + struct.pack("<I", 600) + b"AVI LIST" + bytes(600), "not audio"),
    ("chunks.wav", b"RIFF" + struct.pack("<I", 2**31) + b"WAVE" + b"JUNK\0\0\0\0" * 20_000, "truncated"),
    ("damaged.opus", DAMAGED, "truncated"),
    ("tag.mp3", b"ID3\3\0\0\x7f\x7f\x7f\x7f" + bytes(500), "not audio"),
]


@pytest.mark.parametrize(("name", "content", "reason"), LIES, ids=[row[0] for row in LIES])
def test_no_memory_is_taken_on_a_header_s_word(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    assert error_of(read_audio, tmp_path / name).reason == reason
    with suppress(AudioError):
        assert len(read_audio(tmp_path / name, 36_000.0, 30.0)) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.parametrize(
    ("name", "content", "seconds"),
    [
        ("a flac.wav", encoded("flac"), 4.0),
        ("a wave.mp3", encoded("wav"), 4.0),
        ("many channels.wav", wav(channels=1024, samples=1024 * 320), 0.02),
        ("six channels.flac", encoded("flac", noise(1.0, 6)), 1.0),
        ("one sample.opus", encoded("opus", noise(1 / SAMPLE_RATE)), 1 / SAMPLE_RATE),
        ("one sample.mp3", encoded("mp3", noise(1 / SAMPLE_RATE)), 1 / SAMPLE_RATE),
        ("名 前\n🎧\t.wav", encoded("wav"), 4.0),
    ],
)
def test_what_is_odd_but_sound_is_read(tmp_path, name, content, seconds):
    (tmp_path / name).write_bytes(content)
    sound = read_audio(tmp_path / name)
    assert len(sound) == round(seconds * SAMPLE_RATE)
    assert np.isfinite(sound).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_doubles_beyond_what_a_float_holds_are_not_finite(tmp_path, value):
    sound = noise(1.0)
    sound[900] = value
    soundfile.write(tmp_path / "a.wav", sound, SAMPLE_RATE, subtype="DOUBLE")
    assert error_of(read_audio, tmp_path / "a.wav").reason == "not finite"


@pytest.mark.parametrize("name", ["a\0b.wav", "\udcff.wav", "x" * 300 + ".wav", "loop.wav", "pipe.wav", "a.wav/b.wav"])
def test_names_that_no_file_has_and_files_that_are_none_are_errors_like_others(tmp_path, name):
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "a.wav").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.wav")
    assert error_of(read_audio, f"{tmp_path}/{name}").reason in ("no such file", "not readable", "not a file")


def test_a_chunk_that_holds_its_audio_is_read_from_it_whole(tmp_path):
    sound = noise(4.0)[:, 0]
    soundfile.write(tmp_path / "a.flac", sound, SAMPLE_RATE)
    chunk = {"recording": str(tmp_path / "a.flac"), "start": 1.5, "duration": 0.75}
    span = read_chunk(chunk)
    assert np.array_equal(span, read_audio(tmp_path / "a.flac", 1.5, 0.75))
    inside = {"bytes": encoded("flac", span), "path": "a_000001500.flac"}
    assert np.array_equal(read_chunk(chunk | {"recording": "a.flac", "audio": inside}), span)
    assert np.array_equal(read_chunk(chunk | {"audio": None}), span)
    assert np.array_equal(read_chunk(chunk | {"audio": {"bytes": None, "path": "a.flac"}}), span)
    broken = error_of(read_chunk, chunk | {"recording": "a.flac", "audio": {"bytes": b"", "path": None}})
    assert str(broken).startswith("a.flac at 1.5 s: empty file")
