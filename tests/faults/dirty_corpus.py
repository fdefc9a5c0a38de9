"""A corpus of bad and odd recordings, each with what must become of it: usable, or skipped for one fixed reason."""

import io
import os
import struct

import numpy as np
import soundfile

from faults.sounds import RATE, melody

USABLE = None
SECONDS = 2.0
HOURS_12 = 12 * 3600 * RATE * 2  # bytes of 16-bit samples


def encoded(kind="WAV", subtype="PCM_16", *, rate=RATE, channels=1, seconds=SECONDS, seed=7):
    """A good recording as bytes."""
    sound = np.repeat(melody(seed, seconds * rate / RATE)[:, None], channels, axis=1)
    buffer = io.BytesIO()
    soundfile.write(buffer, sound, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def of_values(values, subtype="FLOAT"):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(values, dtype=np.float64), RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


def wav(data=b"", *, claims=None, format_tag=1, channels=1, rate=RATE, bits=16, size=None):
    """A WAV by hand, whose header may say what it likes."""
    claims = len(data) if claims is None else claims
    frame = channels * bits // 8
    chunk = struct.pack("<HHIIHH", format_tag, channels, rate, min(rate * frame, 2**32 - 1), frame % 2**16, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(chunk)) + chunk + b"data" + struct.pack("<I", claims) + data
    return b"RIFF" + struct.pack("<I", size if size is not None else (36 + claims) % 2**32) + body


def with_byte(content, share, length, value=0xFF):
    """With some bytes overwritten."""
    at = int(share * len(content))
    return content[:at] + bytes([value]) * length + content[at + length :]


def mp4_video():
    """An MP4 with a track of sound and one of pictures."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        pictures, sound = container.add_stream("mpeg4", rate=5), container.add_stream("aac", rate=RATE)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        for _ in range(5):
            container.mux(pictures.encode(av.VideoFrame(32, 32, "yuv420p")))
        for at in range(0, 8):
            frame = av.AudioFrame.from_ndarray(melody(at, 1.0)[None, :1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, at * 1024
            container.mux(sound.encode(frame))
        for stream in (pictures, sound):
            container.mux(stream.encode(None))
    return buffer.getvalue()


SAMPLES = melody(3, SECONDS)
PCM = (32767 * SAMPLES).astype("<i2").tobytes()
FLAC, MP3 = encoded("FLAC"), encoded("MP3", "MPEG_LAYER_III")
OPUS = encoded("OGG", "OPUS", rate=48_000)

GOOD = {
    "good-1.flac": encoded("FLAC", seconds=9, seed=1),
    "good-2.wav": encoded(seconds=32, seed=2),
    "good-3.opus": encoded("OGG", "OPUS", rate=48_000, seconds=5, seed=3),
}
# Name, content, and what becomes of it.
FILES = [
    ("name with spaces.wav", encoded(), USABLE),
    ("中文錄音 第一講.wav", encoded(), USABLE),
    ("🎤👩🏽‍🏫.wav", encoded(), USABLE),
    ("new\nline.wav", encoded(), USABLE),
    ('quote\'s "double" `back`.wav', encoded(), USABLE),
    ("-dash.wav", encoded(), USABLE),
    ("$(touch ran) %s {0} \\n.wav", encoded(), USABLE),
    (f"{'long' * 62}.wav", encoded(), USABLE),
    ("capitals.WAV", encoded(), USABLE),
    ("rate_96k.wav", encoded(rate=96_000), USABLE),
    ("rate_11025.wav", encoded(rate=11_025), USABLE),
    ("six_channels.wav", encoded(channels=6), USABLE),
    ("eight_bits.wav", encoded(subtype="PCM_U8"), USABLE),
    ("float64.wav", encoded(subtype="DOUBLE"), USABLE),
    ("adpcm.wav", encoded(subtype="IMA_ADPCM"), USABLE),
    ("a_law.wav", encoded(subtype="ALAW"), USABLE),
    ("big_endian.aiff", encoded("AIFF"), USABLE),
    ("flac_inside.wav", FLAC, USABLE),
    ("wav_inside.flac", encoded(), USABLE),
    ("opus_inside.mp3", OPUS, USABLE),
    ("garbage_after.wav", encoded() + np.random.default_rng(0).bytes(999), USABLE),
    ("piped.wav", wav(PCM, claims=0xFFFFFFFF, size=0xFFFFFFFF), USABLE),
    ("clipped.wav", of_values(40 * SAMPLES), USABLE),
    ("silent.wav", of_values(np.zeros(RATE)), "no speech found"),
    ("one_sample.wav", of_values([0.5]), "no speech found"),
    ("empty.wav", b"", "empty file"),
    ("text.wav", b"this is no recording\n" * 99, "not audio"),
    ("page.mp3", b"<!DOCTYPE html><title>404</title>" * 99, "not audio"),
    ("noise.flac", np.random.default_rng(1).bytes(9999), "not audio"),
    ("zeros.wav", bytes(9999), "not audio"),
    ("archive.ogg", b"PK\x03\x04" + np.random.default_rng(2).bytes(999), "not audio"),
    ("only_tags.mp3", b"ID3\x03\0\0\0\0\x02\0" + bytes(256), "not audio"),
    ("film.wav", mp4_video, USABLE),
    ("film.mp4", mp4_video, USABLE),
    ("archive.zip", b"PK\x03\x04" + np.random.default_rng(2).bytes(999), "not supported"),
    ("call.m4a", b"", "empty file"),
    ("no_channels.wav", wav(PCM, channels=0), "not audio"),
    ("cut.wav", encoded()[:20_000], "truncated"),
    ("cut.flac", FLAC[: len(FLAC) // 2], "truncated"),
    ("cut.opus", OPUS[: len(OPUS) // 2], "truncated"),
    ("cut.mp3", MP3[: len(MP3) // 2], "truncated"),
    ("cut_in_header.wav", encoded()[:30], "truncated"),
    ("lies.wav", wav(PCM, claims=10 * len(PCM)), "truncated"),
    ("twelve_hours.wav", wav(PCM[:RATE], claims=HOURS_12), "truncated"),
    ("two_gigabytes.wav", wav(PCM[:99], claims=0x7FFE0000, channels=2, bits=32), "truncated"),
    ("no_samples.wav", of_values([]), "no samples"),
    ("header_only.wav", wav(), "no samples"),
    ("nan.wav", of_values(np.where(np.arange(RATE) == 9, np.nan, 0.1)), "not finite"),
    ("infinite.wav", of_values(np.where(np.arange(RATE) == 9, np.inf, 0.1), "DOUBLE"), "not finite"),
    ("beyond_float32.wav", of_values(np.full(RATE, 1e300), "DOUBLE"), "not finite"),
    ("no_rate.wav", wav(PCM, rate=0), {"sample rate", "not audio"}),
    ("absurd_rate.wav", wav(PCM, rate=2**31 - 1), "sample rate"),
    ("broken_middle.flac", with_byte(FLAC, 0.5, 400), {USABLE, "truncated"}),
    ("broken_middle.mp3", with_byte(MP3, 0.5, 400), {USABLE, "truncated"}),
    ("broken_middle.opus", with_byte(OPUS, 0.5, 400), {USABLE, "truncated", "not audio"}),
]
# Rows of a manifest that name no file of their own.
ROWS = [
    ("gone.wav", "no such file"),
    ("C:\\recordings\\lecture.wav", "no such file"),
    ("zero\0byte.wav", "no such file"),
    ("x" * 300 + ".wav", {"no such file", "not readable"}),
    ("memory://nothing/lecture.wav", "no such file"),
    ("nowhere://bucket/lecture.wav", "not readable"),
    ("", "no such file"),
    (".", "not a file"),
]


def write_good(folder):
    """Paths of the recordings that are as they should be."""
    folder.mkdir(exist_ok=True)
    for name, content in GOOD.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in GOOD]


def write_dirt(folder):
    """Write every file; gives what must become of each by name, those that are no files included."""
    folder.mkdir(exist_ok=True)
    expected = {}
    for name, content, outcome in FILES:
        (folder / name).write_bytes(content() if callable(content) else content)
        expected[name] = outcome
    (folder / "secret.wav").write_bytes(encoded())
    (folder / "secret.wav").chmod(0)
    (folder / "directory.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    links = {
        "link.wav": ("name with spaces.wav", USABLE),
        "broken_link.wav": ("gone.wav", "no such file"),
        "loop.wav": ("loop.wav", {"no such file", "not readable"}),
        "device.wav": ("/dev/zero", "not a file"),
    }
    for name, (target, outcome) in links.items():
        (folder / name).symlink_to(target)
        expected[name] = outcome
    (folder / "around").symlink_to(folder, target_is_directory=True)
    return expected | {"secret.wav": "not readable", "directory.wav": "not a file", "pipe.wav": "not a file"}


def mutants(count, *, seed=0):
    """Good files with some bytes changed, cut, repeated or swapped, by name."""
    random = np.random.default_rng(seed)
    originals = {"wav": encoded(seconds=0.4), "flac": encoded("FLAC", seconds=0.4), "mp3": encoded("MP3", "MPEG_LAYER_III", seconds=0.4), "opus": encoded("OGG", "OPUS", rate=48_000, seconds=0.4), "aiff": encoded("AIFF", seconds=0.4)}  # fmt: skip
    for number in range(count):
        kind = list(originals)[number % len(originals)]
        content = bytearray(originals[kind])
        for _ in range(int(random.integers(1, 9))):
            at = int(random.integers(0, min(len(content), 200) if random.random() < 0.7 else len(content)))
            length = int(random.integers(1, 9))
            match random.integers(0, 4):
                case 0:
                    content[at : at + length] = random.bytes(length)
                case 1:
                    content[at : at + length] = b"\xff" * length
                case 2:
                    del content[at : at + length]
                case 3:
                    content[at:at] = content[at : at + length] * 3
        yield f"mutant-{number:04}.{kind}", bytes(content)
