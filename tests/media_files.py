"""Files of telephones, meetings and films, made with PyAV."""

import struct
import tempfile
from pathlib import Path

import numpy as np

# name: format of FFmpeg, codec, rate
KINDS = {
    "a.m4a": ("ipod", "aac", 44100),
    "low.m4a": ("ipod", "aac", 16000),
    "a.mp4": ("mp4", "aac", 48000),
    "a.mov": ("mov", "aac", 48000),
    "pcm.mov": ("mov", "pcm_s16le", 44100),
    "alac.m4a": ("ipod", "alac", 44100),
    "opus.mp4": ("mp4", "libopus", 48000),
    "mp3.mp4": ("mp4", "libmp3lame", 44100),
    "a.mkv": ("matroska", "aac", 44100),
    "flac.mkv": ("matroska", "flac", 44100),
    "pcm.mkv": ("matroska", "pcm_s16le", 44100),
    "vorbis.mkv": ("matroska", "vorbis", 44100),
    "a.webm": ("webm", "libopus", 48000),
    "amr.3gp": ("3gp", "libopencore_amrnb", 8000),
    "aac.3gp": ("3gp", "aac", 16000),
    "a.aac": ("adts", "aac", 16000),
    "a.amr": ("amr", "libopencore_amrnb", 8000),
    "a.wma": ("asf", "wmav2", 44100),
    "a.avi": ("avi", "libmp3lame", 44100),
    "a.flv": ("flv", "aac", 44100),
    "a.mts": ("mpegts", "aac", 44100),
    "a.mpg": ("mpeg", "mp2", 44100),
    "a.caf": ("caf", "alac", 44100),
}


def sweep(rate, seconds, bend=700):
    """A tone that rises from 100 Hz by twice `bend`, with a little noise: shifts of one sample show."""
    time = np.arange(round(rate * seconds)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (100 * time + bend / seconds * time**2))
    return (tone + 0.01 * np.random.default_rng(0).standard_normal(time.size)).astype(np.float32)


def add_track(container, codec, rate, channels=1, bit_rate=96_000):
    """A track of sound, whose rate of bits its codec may not have."""
    layout = "stereo" if channels == 2 or codec == "vorbis" else "mono"
    stream = container.add_stream(codec, rate=rate, layout=layout)
    if codec == "vorbis":
        stream.codec_context.options = {"strict": "-2"}
    if not codec.startswith(("pcm", "libopencore")):
        stream.bit_rate = bit_rate
    return stream


def encode(container, stream, sound, at=0):
    """The sound [samples] or [channels, samples] in a track, from sample `at` on."""
    import av

    if not stream.codec_context.is_open:
        stream.codec_context.open()
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout
    step = stream.codec_context.frame_size or 1024
    sound = np.atleast_2d(sound)
    if len(sound) < layout.nb_channels:
        sound = np.repeat(sound, layout.nb_channels, axis=0)
    form = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=rate)
    for begin in range(0, sound.shape[1], step):
        block = np.ascontiguousarray(sound[:, begin : begin + step])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout.name)
        frame.sample_rate, frame.pts = rate, at + begin
        for converted in form.resample(frame):
            yield from stream.encode(converted)
    yield from stream.encode(None)


def media(kind, sound=None, *, seconds=8.0, options=None, video=False, tracks=1, silent=False, shift=None):
    """The bytes of a file; `video` is a second of pictures before the sound, `shift` changes packets, or drops them."""
    import av

    form, codec, rate = KINDS[kind]
    folder = tempfile.TemporaryDirectory()  # as an index at the front is moved there by reading the file again
    file = Path(folder.name, "media")
    with folder, av.open(str(file), "w", format=form, options=options or {}) as container:
        pictures = container.add_stream("mpeg4", rate=5) if video else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        streams = [] if silent else [add_track(container, codec, rate) for _ in range(tracks)]
        for number in range(5 if video else 0):
            frame = av.VideoFrame.from_ndarray(np.full((48, 32), 9 * number, np.uint8), format="yuv420p")
            container.mux(pictures.encode(frame))
        for stream in streams:
            packets = encode(container, stream, sweep(rate, seconds) if sound is None else sound)
            for number, packet in enumerate(packets):
                changed = packet if shift is None else shift(number, packet)
                if changed is not None:
                    container.mux(changed)
        if pictures is not None:
            container.mux(pictures.encode(None))
        container.close()
        return file.read_bytes()


def several_tracks(kind, sounds, dispositions=()):
    """The bytes of a file with a track of each sound, with its disposition as PyAV calls it, such as `comment`."""
    import av

    form, codec, rate = KINDS[kind]
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name, "media")
    with folder, av.open(str(file), "w", format=form) as container:
        streams = [add_track(container, codec, rate, channels=np.ndim(sound)) for sound in sounds]
        for stream, name in zip(streams, dispositions, strict=False):
            stream.disposition = getattr(av.stream.Disposition, name)
        tracks = [encode(container, stream, sound) for stream, sound in zip(streams, sounds, strict=True)]
        for packet in [packet for packets in tracks for packet in packets]:
            container.mux(packet)
        container.close()
        return file.read_bytes()


def shortened(samples, rate=16000):
    """The bytes of a NIST SPHERE file of whole numbers of 16 bits, compressed as shorten 2 does it, without prediction."""
    bits = []

    def rice(value, width):
        bits.append("0" * (value >> width) + "1" + (format(value & ((1 << width) - 1), f"0{width}b") if width else ""))

    def number(value):
        rice(value.bit_length(), 2)
        rice(value, value.bit_length())

    block = 256
    for value in (5, 1, block, 0, 0, 0):  # 16 bits with the low byte first, a channel, and no prediction or means
        number(value)
    for at in range(0, len(samples), block):
        part = [int(sample) for sample in samples[at : at + block]]
        if len(part) < block:
            rice(5, 2)
            number(len(part))
        rice(0, 2)  # differences of order 0, which have 12 bits beside what is counted out
        rice(11, 3)
        for sample in part:
            rice(2 * sample if sample >= 0 else -2 * sample - 1, 12)
    rice(4, 2)
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 32)
    fields = (
        f"NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i {rate}\nsample_n_bytes -i 2\nsample_byte_format -s2 01\n"
        f"sample_coding -s26 pcm,embedded-shorten-v2.00\nsample_count -i {len(samples)}\nend_head\n"
    )
    return fields.encode().ljust(1024, b"\0") + b"ajkg\2" + int(stream, 2).to_bytes(len(stream) // 8, "big")


def ogg_checksum(page):
    """The checksum of a page of Ogg in which its own four bytes are 0 (RFC 3533)."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def moved_pages(content, by):
    """An Ogg stream whose pages with sound end `by` samples later, or earlier, but none before 0; their bits are right."""
    pages, at = [], 0
    while at < len(content):
        count = content[at + 26]
        size = 27 + count + sum(content[at + 27 : at + 27 + count])
        page = bytearray(content[at : at + size])
        position = struct.unpack("<q", page[6:14])[0]
        page[6:14] = struct.pack("<q", max(0, position + by) if position > 0 else position)
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", ogg_checksum(page))
        pages.append(bytes(page))
        at += size
    return b"".join(pages)
