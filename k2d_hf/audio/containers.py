"""The length in the headers of audio containers: whether a file's end is missing, or was never known.

Part of the audio reader (K2D, stage 1): libsndfile takes a truncated file for a complete one, and so does PyAV one half
of the kinds that libsndfile reads, Matroska and AVI.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from k2d_hf.audio.sound_file import PatchedFile, size_of

HEADER_SLACK = 64  # bytes: some writers count the header in the data size, or leave it out of the total
# What writers to a pipe put for the size that they cannot know, SoX and arecord about the first, FFmpeg the second;
# other sizes are taken as they are, as a recording of hours may well have two gigabytes and more.
STREAMED_SIZES = (range(0x7FFFF000 - HEADER_SLACK, 0x80000001), range(0xFFFFFFFF - HEADER_SLACK, 0x100000000))
MOST_CHUNKS = 10_000  # of a container, before its samples; a hostile one can have a hundred million
OGG_CODECS = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC")  # as their first page begins, of those that libsndfile reads
OGG_PAGE_BYTES = 27 + 255 + 255 * 255  # the longest page there is
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # that a file begins with
EBML, SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"  # what Matroska begins with, and what holds all the rest
ASF, ASF_FILE = b"0&\xb2u\x8ef\xcf\x11", b"\xa1\xdc\xab\x8cG\xa9\xcf\x11\x8e\xe4\0\xc0\x0c Se"  # its file properties
ASF_HEADER_BYTES = 1 << 14  # among which they are
SPHERE, SPHERE_HEADER_BYTES = b"NIST_1A", 1 << 14
SHORT = "fewer bytes than its header promises"
SOUND = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC")}  # containers, and their kinds for audio


def missing_end(file: BinaryIO, *, opened: bool = True) -> str:
    """What shows that the end of a container is missing, empty if nothing does; decodes nothing.

    The file stands elsewhere after it. `opened`: whether libsndfile could open it.
    """
    size = size_of(file)
    file.seek(0)
    head = file.read(36)
    magic = head[:4]
    if magic in SOUND:
        if head[8:12] == b"AVI ":
            return SHORT if struct.unpack("<I", head[4:8])[0] + 8 > size + HEADER_SLACK else ""
        if len(head) >= 12 and head[8:12] not in SOUND[magic]:
            return ""  # a picture
        start, length = _samples_chunk(file, size, magic)
        if start + (0 if any(length in sizes for sizes in STREAMED_SIZES) else length) > size + HEADER_SLACK:
            return SHORT
    elif magic == b"OggS":
        file.seek(max(0, size - 2 * OGG_PAGE_BYTES))
        if not _ends_ogg_stream(file.read()):
            return "no end-of-stream page"
        if not opened and head[28:].startswith(OGG_CODECS):
            return "a page of it is damaged"
    elif magic == b"fLaC" and not opened:
        return "its first frame is incomplete"
    elif head.startswith(SPHERE):
        return SHORT if _sphere_end(file) > size else ""
    elif head[4:8] in MP4_BOXES:
        return _missing_boxes(file, size)
    elif magic == EBML:
        return SHORT if _matroska_end(file) > size else ""
    elif head.startswith(ASF):
        return SHORT if _asf_size(file) > size else ""
    return ""


def _sphere_end(file: BinaryIO) -> int:
    """Where the samples of a NIST SPHERE file end by its header, which is text; 0 where they are compressed."""
    file.seek(0)
    lines = file.read(SPHERE_HEADER_BYTES).partition(b"end_head")[0].split(b"\n")
    fields = {line.split()[0]: line.split()[-1] for line in lines[2:] if line.split()}
    names = (b"sample_count", b"sample_n_bytes", b"channel_count")
    try:
        count, width, channels = (int(fields[name]) for name in names)
        compressed = b"," in fields.get(b"sample_coding", b"")
        return 0 if compressed else int(lines[1]) + count * width * channels
    except (KeyError, IndexError, ValueError):
        return 0


def _missing_boxes(file: BinaryIO, size: int) -> str:
    """What is missing of an MPEG-4 file (ISO 14496-12, 4.2): the end of a box, or the one that tells where sound is."""
    position, names = 0, set()
    for _ in range(MOST_CHUNKS):
        file.seek(position)
        header = file.read(16)
        if len(header) < 8:
            break
        length, name = struct.unpack(">I4s", header[:8])
        if length == 1 and len(header) == 16:
            length = struct.unpack(">Q", header[8:])[0]
        names.add(name)
        if length == 0:  # to the end of the file
            break
        position += length
        if position > size:
            return SHORT
        if length < 8:
            return ""
    else:
        return ""
    return "" if b"moov" in names else "its index (moov) is missing, which a recorder writes at last"


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment of a Matroska file ends (RFC 8794), 0 where that is not known."""
    file.seek(4)
    length, position = _ebml_number(file.read(8), 4)
    file.seek(position + (length or 0))
    head = file.read(12)
    if length is None or head[:4] != SEGMENT:
        return 0
    length, position = _ebml_number(head[4:], position + length + 4)
    return 0 if length is None else position + length


def _ebml_number(data: bytes, at: int) -> tuple[int | None, int]:
    """A length in one to eight bytes, None for an unknown one, and the place behind it; `data` begins at `at`."""
    width = 9 - data[0].bit_length() if data and data[0] else 0
    if not 0 < width <= len(data):
        return None, at
    bits = 7 * width
    value = int.from_bytes(data[:width], "big") & (1 << bits) - 1
    return (None if value == (1 << bits) - 1 else value), at + width


def _asf_size(file: BinaryIO) -> int:
    """The size that an ASF file has by its header, 0 where that is not known."""
    file.seek(0)
    head = file.read(ASF_HEADER_BYTES)
    at = head.find(ASF_FILE)
    properties = head[at + 16 : at + 92] if at >= 0 else b""  # length, file identity, then the size; flags at the end
    if len(properties) < 76 or properties[72] & 1:  # a broadcast
        return 0
    return struct.unpack("<Q", properties[24:32])[0]


def with_open_size(file: BinaryIO) -> PatchedFile | None:
    """A WAV stream whose header has 0 bytes with "unknown" there, which libsndfile reads; None for others."""
    size = size_of(file)
    file.seek(0)
    magic = file.read(4)
    start, length = _samples_chunk(file, size, magic) if magic == b"RIFF" else (size, 0)
    file.seek(start)
    following = file.read(8)
    if length or len(following) < 8:
        return None
    name, next_length = struct.unpack("<4sI", following)
    if name.strip().isalnum() and start + 8 + next_length <= size:
        return None  # another chunk: this one really holds no samples
    return PatchedFile(file, start - 4, start, b"\xff" * 4)


def _samples_chunk(file: BinaryIO, size: int, magic: bytes) -> tuple[int, int]:
    """Where the chunk of samples begins and its length; where that chunk is missing, a place beyond the end."""
    layout = "<4sI" if magic == b"RIFF" else ">4sI"
    position = 12  # behind the container's own name, length and kind
    for _ in range(MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            break
        name, length = struct.unpack(layout, header)
        position += 8
        if name in (b"data", b"SSND"):
            return position, length
        position += length + length % 2  # chunks begin at even places
    return size + HEADER_SLACK + 1, 0


def _ends_ogg_stream(tail: bytes) -> bool:
    """Whether the last page in `tail` is complete and carries the end-of-stream flag (RFC 3533, section 6)."""
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return False
    flags, segments = tail[at + 5], tail[at + 26]
    lacing = tail[at + 27 : at + 27 + segments]
    complete = len(lacing) == segments and len(tail) >= at + 27 + segments + sum(lacing)
    return complete and bool(flags & 4)
