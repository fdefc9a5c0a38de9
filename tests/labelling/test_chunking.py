"""Segments and their packing: what the teacher wrote ends up in exactly one chunk, or on the list of what did not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.data.chunking import DroppedSpan, Segment, chunk_rows, exceeds, join_texts, pack_segments, valid_segments
from k2d_hf.errors import K2DError


@st.composite
def timelines(draw, longest=35.0):
    """Segments in order of time, as a teacher writes them: two decimals, gaps, now and then one that is too long."""
    now, segments = 0.0, []
    for gap, length in draw(st.lists(st.tuples(st.floats(0, 40), st.floats(0.01, longest)), max_size=30)):
        start = round(now + gap, 2)
        now = round(start + round(length, 2), 2)
        segments.append(Segment(start, now, f"segment {len(segments)}"))
    return segments


def spans(segments):
    return [(segment.start, segment.end) for segment in segments]


# Packing


@given(timelines())
def test_every_segment_is_in_one_chunk_in_order_unless_it_is_too_long(segments):
    packed = [segment for chunk in pack_segments(segments) for segment in chunk]
    assert packed == [segment for segment in segments if not exceeds(segment.duration, 30.0)]


@given(timelines(), st.floats(1.0, 30.0))
def test_no_chunk_is_empty_or_too_long(segments, longest):
    for chunk in pack_segments(segments, longest):
        assert chunk
        assert chunk[-1].end - chunk[0].start <= longest + 1 / 16000


@given(timelines())
def test_the_first_segment_of_a_chunk_would_not_have_fitted_the_one_before(segments):
    chunks = pack_segments(segments)
    for before, after in zip(chunks, chunks[1:], strict=False):
        assert after[0].end - before[0].start > 30.0


@pytest.mark.parametrize(
    ("segments", "chunks"),
    [
        ([], []),
        ([(0, 2)], [1]),  # a recording shorter than 30 s
        ([(0, 10), (10, 20), (20, 30)], [3]),  # exactly 30.0 s (known bug 8)
        ([(0, 10), (10, 20), (20, 30.02)], [2, 1]),
        ([(0, 30), (30, 60), (60, 61)], [1, 1, 1]),  # the last chunk is kept
        ([(12.34, 40), (40, 42.34)], [2]),  # 42.34 - 12.34 is 30.000000000000004
        ([(0.1, 0.2), (0.3, 30.1)], [2]),
        ([(5, 6), (34, 35.0)], [2]),  # silence counts
        ([(5, 6), (34, 35.02)], [1, 1]),
        ([(0, 20), (1, 3), (2, 30)], [3]),  # overlapping segments
        ([(0, 29), (1, 2), (28, 31)], [2, 1]),
    ],
)
def test_packing(segments, chunks):
    assert [len(chunk) for chunk in pack_segments(Segment(*span, "text") for span in segments)] == chunks


def test_a_segment_longer_than_a_chunk_is_left_out_with_a_warning(caplog):
    segments = [Segment(0, 5, "a"), Segment(5, 36, "loop"), Segment(36, 40, "b")]
    assert pack_segments(segments) == [[segments[0]], [segments[2]]]
    assert "left out a segment longer than 30 s: 5.00 to 36.00 s" in caplog.text


@pytest.mark.parametrize(
    "spans",
    [[(5, 6), (1, 2)], [(2, 1)], [(-1, 2)], [(math.nan, 1)], [(1, math.nan)], [(1, math.inf)], [(-math.inf, 1)]],
)
def test_segments_out_of_order_are_an_error(spans):
    with pytest.raises(K2DError, match="segments must be in order of time"):
        pack_segments(Segment(*span, "text") for span in spans)


# What can be packed


@given(
    st.lists(
        st.builds(Segment, st.floats(0, 100), st.floats(0, 140), st.sampled_from(["text", "文字", "", "  "])),
        max_size=20,
    ),
    st.floats(0.1, 120),
)
def test_seconds_in_are_seconds_kept_plus_seconds_left_out(segments, duration):
    kept, left_out = valid_segments(segments, recording_duration=duration)
    seconds = sum(s.duration for s in kept) + sum(s.end - s.start for s in left_out)
    assert math.isclose(seconds, sum(s.duration for s in segments), abs_tol=1e-6)
    assert all(0 <= s.start < s.end <= duration and s.text.strip() for s in kept)
    assert len(pack_segments(kept)) <= len(kept) == sum(map(len, pack_segments(kept)))  # nothing more is lost


@pytest.mark.parametrize(
    ("segment", "kept", "left_out"),
    [
        ((1, 3, "text"), [(1, 3)], []),
        ((0, 30, "text"), [(0, 30)], []),
        ((0, 31, "text"), [], [DroppedSpan(0, 31, "longer than 30 s")]),
        ((30, 61, "text"), [], [DroppedSpan(30, 61, "longer than 30 s")]),  # never cut to fit
        ((12.34, 42.34, "text"), [(12.34, 42.34)], []),
        ((2, 2, "text"), [], [DroppedSpan(2, 2, "no duration")]),
        ((3, 2, "text"), [], [DroppedSpan(3, 2, "no duration")]),
        ((2, 4, " \n"), [], [DroppedSpan(2, 4, "no text")]),
        ((55, 65, "text"), [(55, 60)], [DroppedSpan(60, 65, "past the end")]),
        ((60, 65, "text"), [], [DroppedSpan(60, 65, "past the end")]),
        ((-2, 3, "text"), [(0, 3)], [DroppedSpan(-2, 0, "before the start")]),
        ((-3, -1, "text"), [], [DroppedSpan(-3, -1, "before the start")]),
        ((math.nan, 3, "text"), [], [DroppedSpan(0, 0, "no time")]),
        ((1, math.inf, "text"), [], [DroppedSpan(0, 0, "no time")]),
        ((0, 1e308, "text"), [], [DroppedSpan(0, 1e308, "longer than 30 s")]),
        ((55, 65, ""), [], [DroppedSpan(60, 65, "past the end"), DroppedSpan(55, 60, "no text")]),
    ],
)
def test_valid_segments(segment, kept, left_out):
    sound, out = valid_segments([Segment(*segment)], recording_duration=60.0)
    assert (spans(sound), out) == (kept, left_out)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0])
def test_a_recording_of_no_duration_is_an_error(seconds):
    with pytest.raises(K2DError, match="give its duration in seconds"):
        valid_segments([], recording_duration=seconds)


def test_valid_segments_come_out_in_order_of_time():
    sound, _ = valid_segments([Segment(5, 6, "b"), Segment(1, 2, "a")], recording_duration=10)
    assert spans(sound) == [(1, 2), (5, 6)]


# Texts and rows


@pytest.mark.parametrize(
    ("texts", "joined"),
    [
        ([], ""),
        ([" Hello", " world "], "Hello world"),
        (["今天講", "機器學習"], "今天講機器學習"),
        ([" 我們用", " GPU 來 train"], "我們用GPU 來 train"),
        ([" machine learning", "很重要。", "So"], "machine learning很重要。So"),
        (["안녕하세요", "반갑습니다"], "안녕하세요 반갑습니다"),  # wide letters, yet written with spaces
        (["a", "", " ", "b"], "a b"),
    ],
)
def test_join_texts(texts, joined):
    assert join_texts(texts) == joined


def test_rows_follow_the_contract():
    chunks = pack_segments([Segment(12.34, 20.0, " 今天講"), Segment(21.5, 42.34, " machine"), Segment(50, 51, "好")])
    assert chunk_rows("a.flac", chunks, language="zh") == [
        {
            "recording": "a.flac",
            "start": 12.34,
            "duration": 30.0,
            "segments": [
                {"start": 0.0, "end": 7.66, "text": " 今天講"},
                {"start": 9.16, "end": 30.0, "text": " machine"},
            ],
            "text": "今天講machine",
            "previous_text": None,
            "next_start": 37.66,
            "language": "zh",
        },
        {
            "recording": "a.flac",
            "start": 50,
            "duration": 1.0,
            "segments": [{"start": 0.0, "end": 1.0, "text": "好"}],
            "text": "好",
            "previous_text": "今天講machine",
            "next_start": None,
            "language": "zh",
        },
    ]


@given(timelines(longest=30.0))
def test_rows_keep_every_timestamp_and_the_text_before(segments):
    rows = chunk_rows("a", pack_segments(segments), language=None)
    times = [(row["start"] + s["start"], row["start"] + s["end"]) for row in rows for s in row["segments"]]
    assert times == [pytest.approx(span, abs=1e-6) for span in spans(segments)]
    assert all(row["duration"] <= 30.0 and row["segments"][0]["start"] == 0.0 for row in rows)
    assert [row["previous_text"] for row in rows] == [None, *(row["text"] for row in rows)][: len(rows)]
    next_starts = [None if row["next_start"] is None else row["start"] + row["next_start"] for row in rows]
    assert next_starts == [pytest.approx(row["start"], abs=1e-6) for row in rows[1:]] + [None] * bool(rows)
