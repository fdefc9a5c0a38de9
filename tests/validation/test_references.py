"""References by segment: read from a manifest, matched with recordings, cut to chunks."""

import json

import pytest
from far_files import put

from k2d_hf.data.chunking import Segment
from k2d_hf.data.references import chunk_reference, label_error_rate, match_recordings, read_references, references_of
from k2d_hf.errors import K2DError

SEGMENTS = [Segment(0, 10, "今天講"), Segment(11, 19, "machine learning"), Segment(25, 35, "很重要")]


@pytest.mark.parametrize(
    ("start", "duration", "text"),
    [
        (0, 30, "今天講 machine learning"),  # half of the last segment is not more than half
        (0, 30.1, "今天講 machine learning很重要"),
        (29.9, 30, "很重要"),
        (4.9, 10, "今天講"),  # 5.1 s of 10, and 3.9 s of 8
        (20, 5, ""),
    ],
)
def test_a_segment_belongs_to_the_chunk_that_has_more_than_half_of_it(start, duration, text):
    assert chunk_reference(SEGMENTS, start, duration).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("reference", "label", "rate"), [("今天講", "今天講", 0), ("今天講", "今天", 1 / 3), ("", "今天", 1), ("", "", 0)]
)
def test_true_error_rate_of_a_label(reference, label, rate):
    assert label_error_rate(reference, label) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("recordings", "references", "matched"),
    [
        (["/a/x.flac"], ["/a/x.flac", "/b/x.flac"], {"/a/x.flac": "/a/x.flac"}),
        (["/a/x.flac"], ["/b/x.flac"], {"/a/x.flac": "/b/x.flac"}),
        (["/a/x.flac", "/c/x.flac"], ["/b/x.flac"], {}),  # which of them is not known
        (["/a/x.flac"], ["/b/x.flac", "/c/x.flac"], {}),
        (["/a/x.flac"], ["/a/y.flac"], {}),
    ],
)
def test_recordings_are_matched_by_path_or_by_a_name_that_is_unique(recordings, references, matched):
    assert match_recordings(recordings, dict.fromkeys(references)) == matched


def test_paths_are_from_the_manifests_folder(tmp_path):
    row = {"audio": "a/b.flac", "segments": [{"start": 0, "end": 1.5, "text": "你好"}]}
    (tmp_path / "references.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert read_references(tmp_path / "references.jsonl") == {
        str(tmp_path / "a" / "b.flac"): [Segment(0.0, 1.5, "你好")]
    }


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"audio": "a.flac", "text": "你好"}, "line 1: `text` is the transcript of the whole recording"),
        ({"audio": "a.flac"}, "line 1: no `segments`"),
        ({"audio": "a.flac", "segments": "你好"}, "give a list of objects"),
        ({"audio": "a.flac", "segments": ["你好"]}, "give start and end in seconds"),
        ({"audio": "a.flac", "segments": [{"start": 2, "end": 1, "text": "x"}]}, "give start and end in seconds"),
        ({"audio": "a.flac", "segments": [{"start": 0, "end": True, "text": "x"}]}, "give start and end in seconds"),
        ({"audio": "a.flac", "segments": [{"start": 0, "end": 1, "text": None}]}, "give start and end in seconds"),
        ({"audio": None, "segments": []}, "no path in column"),
        ({"name": "a.flac"}, "no column with audio"),
    ],
)
def test_what_is_wrong_with_a_line_is_named(tmp_path, row, words):
    (tmp_path / "references.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(K2DError, match=words):
        read_references(tmp_path / "references.jsonl")


def test_references_of_some_recordings_of_a_manifest_that_is_far_away():
    manifest = put(
        "far://bucket/said.jsonl", b'{"audio": "x/a.flac", "segments": []}\n{"audio": "b.flac", "segments": []}'
    )
    recordings = ["/here/a.flac", "far://bucket/b.flac", "/here/c.flac", "/here/a.flac"]
    assert list(references_of(manifest, recordings)) == ["/here/a.flac", "far://bucket/b.flac"]
    with pytest.raises(K2DError, match="none of its 2 recordings, such as far://bucket/x/a.flac, is among the 1 here"):
        references_of(manifest, ["/here/c.flac"])


def test_an_empty_file_of_references(tmp_path):
    (tmp_path / "references.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(K2DError, match="no rows"):
        read_references(tmp_path / "references.jsonl")
