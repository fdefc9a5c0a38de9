"""What the teacher passes over: each second of a recording is in a chunk, on a list, or in the sum of short pauses."""

from collections import Counter

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.data.chunking import (
    LEAST_LISTED,
    PASSED_OVER,
    PASSED_OVER_INSIDE,
    DroppedSpan,
    Segment,
    coverage,
    pack_segments,
    valid_segments,
)
from k2d_hf.labelling.teacher import LabellingReport, label_recordings

TENTHS = st.integers(0, 1200).map(lambda tenths: tenths / 10)


def moments(spans, duration):
    """Which tenths of a second of a recording the spans hold."""
    held = np.zeros(round(10 * duration), bool)
    for start, end in spans:
        held[max(0, round(10 * start)) : max(0, round(10 * end))] = True
    return held


@given(
    st.lists(st.builds(Segment, TENTHS, TENTHS, st.sampled_from(["text", "文字", "", " "])), max_size=12),
    st.integers(1, 1000).map(lambda tenths: tenths / 10),
)
def test_every_moment_is_in_a_chunk_or_listed_or_in_a_short_pause(segments, duration):
    sound, left_out = valid_segments(segments, recording_duration=duration)
    chunks = pack_segments(sound)
    found = coverage(chunks, left_out, recording_duration=duration)
    in_chunks = moments([(chunk[0].start, max(s.end for s in chunk)) for chunk in chunks], duration)
    listed = moments([(span.start, span.end) for span in (*left_out, *found.passed_over)], duration)
    assert found.in_chunks + found.listed + found.unlisted == pytest.approx(duration)
    assert found.in_chunks == pytest.approx(in_chunks.sum() / 10)
    assert found.listed == pytest.approx((listed & ~in_chunks).sum() / 10)
    assert found.unlisted == pytest.approx((~listed & ~in_chunks).sum() / 10)
    runs = "".join(map(str, (~listed & ~in_chunks).astype(int))).split("0")
    assert all(len(run) < 10 * LEAST_LISTED for run in runs)
    for span in found.passed_over:  # each is either in no chunk or inside one, and holds no segment's text
        inside = moments([(span.start, span.end)], duration) & in_chunks
        assert inside.sum() == (round(10 * (span.end - span.start)) if span.reason == PASSED_OVER_INSIDE else 0)
        assert span.end - span.start >= LEAST_LISTED - 1e-6
        assert not any(min(s.end, span.end) - max(s.start, span.start) > 1e-6 for s in sound)


@pytest.mark.parametrize(
    ("segments", "passed_over", "seconds"),
    [
        ([(0, 30), (30, 60)], [], (60, 0, 0)),
        ([(0, 15)], [(15, 60, PASSED_OVER)], (15, 45, 0)),
        ([(1.9, 30), (30, 58.1)], [], (56.2, 0, 3.8)),
        ([(2, 30), (32, 58)], [(0, 2, PASSED_OVER), (30, 32, PASSED_OVER), (58, 60, PASSED_OVER)], (54, 6, 0)),
        ([(0, 5), (12.34, 30), (30, 60)], [(5, 12.34, PASSED_OVER_INSIDE)], (60, 0, 0)),
        ([(0, 20), (10, 30), (30, 60)], [], (60, 0, 0)),  # that overlap
        ([(2, 58.1)], [(0, 2, PASSED_OVER)], (0, 58.1, 1.9)),  # too long for a chunk, and listed as such
        ([], [(0, 60, PASSED_OVER)], (0, 60, 0)),
    ],
)
def test_spans_without_text(segments, passed_over, seconds):
    sound, left_out = valid_segments([Segment(*times, "text") for times in segments], recording_duration=60)
    found = coverage(pack_segments(sound), left_out, recording_duration=60)
    assert found.passed_over == [DroppedSpan(*span) for span in passed_over]
    assert (found.in_chunks, found.listed, found.unlisted) == pytest.approx(seconds)


SCRIPT = {
    89.0: [(0.0, 15.0, "只有這一句")],
    20.0: [(0.5, 4.0, "一"), (9.0, 19.0, "二")],
    7.0: [],
}


@pytest.fixture
def lectures(tmp_path):
    """Recordings of 89, 20 and 7 s, the last without speech; a silent one of 3 s; and one that is no audio."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(89 * 16000)
    for name, seconds, level in (("a", 89, 1), ("b", 20, 1), ("c", 7, 1), ("silent", 3, 0)):
        soundfile.write(tmp_path / f"{name}.wav", level * noise[: seconds * 16000], 16000)
    (tmp_path / "not-audio.wav").write_text("not audio")
    names = ("a", "b", "c", "silent", "not-audio")
    return Dataset.from_dict({"recording": [str(tmp_path / f"{name}.wav") for name in names]})


def test_a_report_accounts_for_every_second(lectures):
    report = LabellingReport()
    label_recordings(lectures, ScriptedTranscriber(SCRIPT), report=report)
    assert [(span["recording"][-5:], span["start"], span["end"], span["reason"]) for span in report.passed_over] == [
        ("a.wav", 15.0, 89.0, "passed over"),
        ("b.wav", 4.0, 9.0, "passed over in a chunk"),
    ]
    assert report.seconds == 89 + 20 + 7 + 3
    assert (report.seconds_in_chunks, report.seconds_listed, report.seconds_unlisted) == pytest.approx(
        (15 + 18.5, 74 + 7 + 3, 1.5)
    )
    assert (report.seconds_passed_over, report.seconds_without_text) == (74, 5)
    assert Counter(entry.get("seconds") for entry in report.skipped) == {7.0: 1, 3.0: 1, None: 1}


def test_spans_of_one_file_are_listed_in_the_file_s_own_time(tmp_path):
    noise = 0.1 * np.random.default_rng(0).standard_normal(60 * 16000)
    soundfile.write(tmp_path / "a.wav", noise, 16000)
    spans = {"recording": [str(tmp_path / "a.wav")] * 2, "start": [8.0, 40.0], "duration": [20.0, 7.0]}
    report = LabellingReport()
    label_recordings(Dataset.from_dict(spans), ScriptedTranscriber(SCRIPT | {7.0: [(0.0, 4.0, "三")]}), report=report)
    assert [(span["start"], span["end"]) for span in report.passed_over] == [(12.0, 17.0), (44.0, 47.0)]
    seconds = (report.seconds_in_chunks, report.seconds_listed, report.seconds_unlisted)
    assert seconds == pytest.approx((18.5 + 4, 3, 1.5))
