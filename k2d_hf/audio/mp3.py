"""MP3 streams without a frame count, as recorders and pipes leave them, given one so that they are read to their end.

Without it libsndfile guesses the length from the first frame's bit rate: of 30 s at a variable rate it read 5.8 s.
PyAV does not replace this: it guesses such a length too, and after a search its samples lie 1105 beside those of the
whole file, which is what an encoder puts before the sound.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from k2d_hf.audio.sound_file import BLOCK, PatchedFile, size_of
from k2d_hf.files.background import check_cancelled

# kbit/s of layer III by the header's bit rate index; index 0 (free) and 15 (bad) are no frames here
BIT_RATES = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),  # MPEG-1
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),  # MPEG-2 and 2.5
}
SAMPLE_RATES = (44100, 48000, 32000)
HALVINGS = {3: 0, 2: 1, 0: 2}  # of the sample rate, by the header's version field: MPEG-1, MPEG-2, MPEG-2.5
FRAME_START = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]")
LONGEST_FRAME = 1441 + 4  # bytes, and the header of the next
MOST_BYTES = 0xFFFFFFFF  # the largest count of four bytes
COUNT_BIT_RATE = 10  # index of a rate whose frames have room for the count


def with_frame_count(file: BinaryIO) -> PatchedFile | None:
    """The file behind an Info frame with its number of frames; None if it has one, or is no layer III.

    The file is read to its end.
    """
    file.seek(0)
    head = file.read(10)
    # An ID3 tag gives its length in four bytes of seven bits.
    tag = 10 + sum((head[6 + i] & 127) << (21 - 7 * i) for i in range(4)) if head[:3] == b"ID3" else 0
    file.seek(tag)
    data = file.read(1 << 14)
    first = _find_frame(data, 0)
    if first < 0 or _has_count(data[first:]):
        return None
    header = bytearray(data[first : first + 4])
    header[1] |= 1  # no checksum
    header[2] = COUNT_BIT_RATE << 4 | header[2] & 0x0D  # no padding
    info = bytes(header) + bytes(_side_info(data[first:])) + b"Info"
    length = _frame_length(bytes(header), 0)
    stream = size_of(file) - tag - first
    # 3: both counts, of frames and of bytes, follow
    info += struct.pack(">III", 3, _count_frames(file, tag + first), min(length + stream, MOST_BYTES))
    return PatchedFile(file, 0, tag + first, info.ljust(length, b"\0"))


def _count_frames(file: BinaryIO, begin: int) -> int:
    """Count the frames from a place on, by blocks, as a day of speech has gigabytes."""
    file.seek(begin)
    count, position, data = 0, 0, b""
    while True:
        check_cancelled()
        block = file.read(BLOCK)
        data, position = data[position:] + block, 0
        end = len(data) - 2 * LONGEST_FRAME if block else len(data)
        while position < end:
            length = _frame_length(data, position)
            count += length > 0
            position = position + length if length else _find_frame(data, position + 1)
            if position < 0:
                position = max(end, 0)
        if not block:
            return count


def _frame_length(data: bytes, at: int) -> int:
    """Bytes of the layer III frame whose header is at `at`; 0 if there is none."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return 0
    version, bit_rate, rate = data[at + 1] >> 3 & 3, data[at + 2] >> 4, data[at + 2] >> 2 & 3
    kilobits = BIT_RATES[version == 3][bit_rate]
    if version not in HALVINGS or rate == 3 or not kilobits:
        return 0
    samples = 1152 if version == 3 else 576
    return samples // 8 * kilobits * 1000 // (SAMPLE_RATES[rate] >> HALVINGS[version]) + (data[at + 2] >> 1 & 1)


def _find_frame(data: bytes, at: int) -> int:
    """The next place with two frames in a row, as one header alone turns up in any data; -1 if there is none."""
    for found in FRAME_START.finditer(data, at):
        length = _frame_length(data, found.start())
        if length and _frame_length(data, found.start() + length):
            return found.start()
    return -1


def _side_info(frame: bytes) -> int:
    mono = frame[3] >> 6 == 3
    if frame[1] >> 3 & 3 == 3:
        return 17 if mono else 32
    return 9 if mono else 17


def _has_count(frame: bytes) -> bool:
    at = 4 + _side_info(frame)
    return frame[at : at + 4] in (b"Xing", b"Info") or frame[36:40] == b"VBRI"
