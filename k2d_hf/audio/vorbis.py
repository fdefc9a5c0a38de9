"""Ogg Vorbis streams that begin before their sample 0, as a cut without encoding leaves them.

The position of their first page is less than the samples in it (Vorbis I, A.2). libsndfile then leaves out some samples
behind that page instead of those at the start, all of them where it searches, and as many at the end: a span lay up to
0.25 s away from the same cut of the whole file. PyAV gives every sample that there is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

HEADERS = (b"\x01vorbis", b"\x03vorbis", b"\x05vorbis")  # of the packets before the sound, the last with the modes
MOST_PAGES = 100  # before the end of the first one with sound
MODE_BITS = 41  # of a mode: whether its block is long, the kinds of window and of transform (both 0), a mapping
END_OF_STREAM = 4


def samples_before_zero(file: BinaryIO) -> int:
    """How many samples of an Ogg Vorbis stream lie before its sample 0; 0 of any other file, which stands elsewhere."""
    try:
        return _before_zero(file)
    except (IndexError, struct.error):  # a damaged file, which is not judged here
        return 0


def _before_zero(file: BinaryIO) -> int:
    packets: list[bytes] = []
    long_blocks: list[bool] = []
    samples, previous = 0, None
    for flags, position, ended in _pages(file):
        for packet in ended:
            packets.append(packet)
            at = len(packets) - 1
            if at < len(HEADERS):
                if not packet.startswith(HEADERS[at]):
                    return 0
                continue
            if at == len(HEADERS):
                long_blocks = _modes(packets[2])
                if not long_blocks:
                    return 0
            number = packet[0] >> 1 & (1 << (len(long_blocks) - 1).bit_length()) - 1
            exponent = packets[0][28] >> 4 if long_blocks[number] else packets[0][28] & 15
            current = 1 << exponent
            samples += 0 if previous is None else (previous + current) // 4
            previous = current
        if previous is not None and position >= 0:
            # One page alone tells where the stream ends.
            return 0 if flags & END_OF_STREAM else max(0, samples - position)
    return 0


def _pages(file: BinaryIO) -> Iterator[tuple[int, int, list[bytes]]]:
    """Flags, position and the packets that end there, of each page of the first stream (RFC 3533)."""
    file.seek(0)
    part, first = b"", None
    for _ in range(MOST_PAGES):
        header = file.read(27)
        if len(header) < 27 or header[:4] != b"OggS":
            return
        flags, position, serial = struct.unpack("<BqI", header[5:18])
        lengths = file.read(header[26])
        body, at, ended = file.read(sum(lengths)), 0, []
        first = serial if first is None else first
        if serial != first:
            continue
        for length in lengths:
            part += body[at : at + length]
            at += length
            if length < 255:
                ended.append(part)
                part = b""
        yield flags, position, ended


def _modes(setup: bytes) -> list[bool]:
    """Which modes have long blocks, read from the end of their packet, before which nothing has a known length."""
    bits = int.from_bytes(setup, "little")
    end = bits.bit_length() - 1  # the bit that closes the packet
    modes: list[bool] = []
    found: list[bool] = []
    while len(modes) < 64 and end >= MODE_BITS + 6:
        mode = bits >> (end - MODE_BITS) & (1 << MODE_BITS) - 1
        if mode >> 1 & 0xFFFFFFFF or mode >> 33 > 63:
            break
        modes.insert(0, bool(mode & 1))
        end -= MODE_BITS
        if (bits >> (end - 6) & 63) + 1 == len(modes):
            found = list(modes)
    return found
