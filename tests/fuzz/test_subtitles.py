"""The reader of subtitles: any bytes are cues in order of time, or one line that names the file."""

import math
import unicodedata

from hypothesis import strategies as st

from k2d_hf.data.subtitle_files import read_subtitles

from .mutations import mutated_bytes
from .targets import bounded, fuzz, outcome, workspace

SRT = b"1\r\n00:00:01,000 --> 00:00:04,000\r\n<i>one</i>\r\n\r\n2\r\n01:00:04,500 --> 01:00:05,5\r\n{\\an8}two\r\n"
VTT = b"WEBVTT\n\nNOTE x\n\nid\n00:01.000 --> 00:03.500 align:start\n<v Bob>a &amp; b\n\n00:04.000 --> 00:09.000\nc\n"
PIECES = (
    *(b"\n", b"\r", b"\0", b"-->", b"<", b">", b"{\\", b"}", b"&lt;", b"&#0;", b":", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"9" * 5000, b"\xd9\xa1", b"\xe2\x80\xa8", b"<" * 3000, b"{\\" * 3000, b"00:00:01,000 --> 00:00:02,000\n"),
)  # fmt: skip


@fuzz(
    examples=500,
    content=st.one_of(
        mutated_bytes(st.sampled_from([SRT, VTT]), pieces=PIECES), st.binary(max_size=200),
        st.lists(st.sampled_from(PIECES)).map(b"".join),
    ),
    suffix=st.sampled_from([".srt", ".vtt", ".SRT"]),
)  # fmt: skip
def test_any_bytes_are_cues_or_one_line(content, suffix):
    path = workspace() / f"track{suffix}"
    path.write_bytes(content)
    with bounded():
        found = outcome(read_subtitles, str(path), names=str(path))
    found = found or []
    for one, after in zip(found, [*found[1:], None], strict=bool(found)):
        assert 0 <= one.start <= one.end < math.inf
        assert one.text.strip() == one.text != ""
        assert not {unicodedata.category(character) for character in one.text} & {"Cc", "Cs"}
        assert after is None or (one.start < after.start and one.end <= after.start)
