"""The packer: whatever times a teacher gives, each second is kept once or named, and no chunk is over 30 s."""

import math

from hypothesis import strategies as st

from k2d_hf.data.chunking import Segment, chunk_rows, coverage, pack_segments, valid_segments

from .mutations import TEXTS
from .targets import bounded, fuzz, outcome

LONGEST = 30.0
SAMPLE = 1 / 16000
SECONDS = st.one_of(
    st.floats(0, 120).map(lambda number: round(number, 2)),
    st.floats(0, 1e6),
    st.sampled_from([0.0, 30.0, 29.99997, 30.00002, 1e-9, 5e-324, 1e15, 1e300, 1.7e308]),
)
TIMES = st.one_of(SECONDS, SECONDS.map(lambda number: -number), st.sampled_from([math.nan, math.inf, -math.inf]))
SEGMENTS = st.lists(
    st.one_of(
        st.builds(Segment, SECONDS, SECONDS, TEXTS),
        st.builds(Segment, TIMES, TIMES, TEXTS),
        st.builds(lambda start, length, text: Segment(start, start + length, text), SECONDS, st.floats(0, 32), TEXTS),
    ),
    max_size=30,
)
LIMITS = st.one_of(st.just(LONGEST), st.floats(1, 30))


def is_sound(segment: Segment) -> bool:
    return math.isfinite(segment.start) and math.isfinite(segment.end) and 0 <= segment.start <= segment.end


def check_chunks(chunks: list[list[Segment]], limit: float) -> None:
    for chunk in chunks:
        assert chunk
        assert all(map(is_sound, chunk))
        assert max(segment.end for segment in chunk) - chunk[0].start <= limit + SAMPLE


@fuzz(examples=400, segments=SEGMENTS, limit=LIMITS, in_order=st.booleans())
def test_segments_are_packed_in_order_each_once_or_refused(segments, limit, in_order):
    if in_order:
        segments = sorted((s for s in segments if is_sound(s)), key=lambda s: (s.start, s.end))
    with bounded():
        chunks = outcome(pack_segments, segments, limit)
    wrong = not all(map(is_sound, segments)) or any(b.start < a.start for a, b in zip(segments, segments[1:]))
    assert (chunks is None) == wrong
    if chunks is not None:
        check_chunks(chunks, limit)
        packed = [segment for chunk in chunks for segment in chunk]
        assert packed == [s for s in segments if s.duration <= limit + SAMPLE / 2]
        assert sum(map(len, chunks)) == len(packed)


@fuzz(
    examples=400,
    segments=SEGMENTS,
    limit=LIMITS,
    duration=st.one_of(st.floats(0, 200), st.sampled_from([0.0, 1e9, math.nan, math.inf, -1.0])),
)
def test_whatever_a_teacher_writes_is_kept_or_listed(segments, limit, duration):
    with bounded():
        found = outcome(valid_segments, segments, recording_duration=duration, max_duration=limit)
    assert (found is None) == (not math.isfinite(duration) or duration < 0)
    if found is None:
        return
    kept, left_out = found
    assert len(segments) <= len(kept) + len(left_out) <= 3 * len(segments)
    for segment in kept:
        assert is_sound(segment)
        assert segment.text.strip()
        assert segment.start < segment.end <= duration
        assert segment.duration <= limit + SAMPLE
    assert all(span.reason for span in left_out)
    # What has no time is listed without one: NaN and infinity are no JSON.
    assert all(math.isfinite(span.start) and math.isfinite(span.end) for span in left_out)
    seconds = sum(s.duration for s in segments if math.isfinite(s.duration) and abs(s.start) < 1e6 and abs(s.end) < 1e6)
    listed = sum(x.end - x.start for x in left_out if abs(x.start) < 1e6 and abs(x.end) < 1e6)
    if all(abs(s.start) < 1e6 and abs(s.end) < 1e6 for s in segments):
        assert math.isclose(seconds, listed + sum(s.duration for s in kept), abs_tol=1e-4)
    chunks = pack_segments(kept, limit)
    check_chunks(chunks, limit)
    assert [s for chunk in chunks for s in chunk] == kept
    covered = coverage(chunks, left_out, recording_duration=duration)
    parts = (covered.in_chunks, covered.listed, covered.unlisted)
    assert min(parts) >= -1e-6 * (1 + duration)
    assert math.isclose(sum(parts), duration, rel_tol=1e-9, abs_tol=1e-6)
    assert all(0 <= span.start < span.end <= duration + 1e-6 for span in covered.passed_over)
    rows = chunk_rows("a", chunks, language=None)
    assert sum(len(row["segments"]) for row in rows) == len(kept)
    for row in rows:
        assert row["start"] >= 0
        assert row["duration"] <= limit + SAMPLE
        assert all(0 <= s["start"] <= s["end"] <= row["duration"] for s in row["segments"])
