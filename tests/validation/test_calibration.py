"""Calibration: curves of what is kept and caught, the bend, the recommendation, and the command from disk to disk."""

import json
import sys

import numpy as np
import pytest
from datasets import Dataset
from espeak_extra import needs_espeak
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.validation.calibration import (
    PAPER_ALPHA,
    THRESHOLD_METRICS,
    ValidatedLabels,
    knee_of,
    metric_curve,
    metric_distances,
    recommend,
)
from k2d_hf.validation.calibration_report import calibrate, render_calibration
from k2d_hf.validation.distance import METRICS, compare_labels

BAD = "完全不對的句子在這裡面出現了"
# label, what the auxiliary wrote, true MER: agreement, a slip, a loop of the teacher, one of the auxiliary, nonsense
ROWS = [
    ("今天講 machine learning", "今天講 machine learning", 0.0),
    ("我們用 GPU 來 train 一個 model", "我們用 GPU 來 train 一個 models", 0.1),
    ("對啊" * 40, "對啊", 3.0),
    ("這個公式看起來很複雜", "看起來" * 40, 0.2),
    (BAD, "這裡 there is nothing alike", 0.9),
]


def labels(rows=ROWS, *, known=True, metric="composite"):
    compared = [compare_labels(text, transcript or "", metric) for text, transcript, _ in rows]
    return ValidatedLabels(
        seconds=np.full(len(rows), 3600.0),
        mer=np.array([one.mer for one in compared]),
        per=np.array([one.per for one in compared]),
        teacher_loops=np.array([one.teacher_loops for one in compared], dtype=bool),
        auxiliary_loops=np.array([one.auxiliary_loops for one in compared], dtype=bool),
        transcribed=np.array([transcript is not None for _, transcript, _ in rows], dtype=bool),
        true_mer=np.array([rate for _, _, rate in rows]) if known else None,
    )


@pytest.mark.parametrize("metric", METRICS)
def test_distances_are_those_that_validation_wrote(metric):
    written = [compare_labels(text, transcript, metric).distance for text, transcript, _ in ROWS]
    assert metric_distances(labels(), metric).tolist() == pytest.approx(written)


@pytest.mark.parametrize(
    ("metric", "kept", "recall", "true_mer"),
    [
        ("full", 1.0, 0.0, (0 + 0.1 + 3 + 0.2 + 0.9) / 5),
        ("trivial", 0.8, 0.5, (0 + 0.1 + 0.2 + 0.9) / 4),
        ("composite", 0.6, 1.0, (0 + 0.1 + 0.2) / 3),  # the auxiliary's loop condemns nothing
        ("per", 0.4, 1.0, 0.05),
    ],
)
def test_a_point_of_the_curve(metric, kept, recall, true_mer):
    point = metric_curve(labels(), metric).at(0.4)
    assert (point.kept, point.hours, point.recall) == pytest.approx((kept, 5 * kept, recall))
    assert point.true_mer == pytest.approx(true_mer)
    assert point.capped_true_mer <= point.true_mer


def test_figures_of_the_papers_table():
    curve = metric_curve(labels(), "composite")
    assert curve.max_recall == 1.0
    assert curve.max_recall_alpha == PAPER_ALPHA  # the nearest of those that do as well
    assert curve.mean_recall == pytest.approx(np.mean([curve.at(step / 10).recall for step in range(1, 10)]))


@given(
    st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans(), st.floats(0, 2)), min_size=1, max_size=30),
    st.sampled_from(METRICS),
)
def test_a_larger_alpha_keeps_more_and_catches_less(rows, metric):
    rates, loops, other_loops, true = (np.array(column) for column in zip(*rows, strict=True))
    some = ValidatedLabels(np.ones(len(rows)), rates, rates, loops, other_loops, np.ones(len(rows), bool), true)
    curve = metric_curve(some, metric)
    for field, sign in (("kept", 1), ("hours", 1), ("recall", -1), ("good_dropped", -1)):
        values = [getattr(point, field) for point in curve.points]
        assert None in values or all(np.diff(values) * sign >= -1e-9)


def test_what_the_auxiliary_could_not_hear_is_kept_by_no_metric():
    some = labels([*ROWS, ("你好", None, 0.0)])
    assert all(metric_curve(some, metric).at(1.0).kept <= 5 / 6 for metric in METRICS)
    assert calibrate(some).unheard == 1


def test_chunks_without_a_reference_count_for_what_is_kept_alone():
    some = labels([*ROWS, ("你好", "你好", np.nan)])
    assert metric_curve(some, "full").at(0.4).kept == 1.0
    assert calibrate(some).references.chunks == 5


@pytest.mark.parametrize(
    ("x", "y", "bend"),
    [
        ([0, 0.2, 0.4, 0.6, 0.8, 1], [0, 0.8, 0.9, 0.93, 0.96, 1], 0.2),
        ([0, 0.5, 1], [0, 0.5, 1], None),  # straight
        ([0, 0.5, 1], [0, 0.1, 1], None),  # the other way
        ([0, 0.5, 1], [1, 1, 1], None),  # nothing rises
        ([0, 1], [0, 1], None),
    ],
)
def test_where_a_curve_bends(x, y, bend):
    assert knee_of(x, y) == bend


def agreeing(count):
    return [("今天講 machine learning", "今天講 machine learning", 0.0)] * count


@pytest.mark.parametrize(
    ("rows", "known", "alpha", "words"),
    [
        (ROWS, True, 0.4, "drops 100% of the 2 bad labels for 0% of the 3 others"),
        (agreeing(3), True, 0.4, "none of 3 labels is bad"),
        ([ROWS[2]] * 3, True, 0.4, "all 3 labels are bad"),
        ([ROWS[4]] * 3 + agreeing(1), True, 0.4, "no alpha that keeps more than half drops a larger share"),
        ([ROWS[4], ROWS[0]] + [("你好", None, 0.0)] * 2, True, 0.4, "no alpha keeps more than half"),
        ([(text, transcript, 1 - rate / 3) for text, transcript, rate in ROWS[:2] + ROWS[3:4]] + [ROWS[2][:2] + (0.0,)], True, 0.4, "drops a larger share"),
        (agreeing(3), False, 0.4, "every alpha keeps the same 100%"),
        ([("一二三四五六七八九十"[: 10 - n] + "天地人和春夏秋冬東西"[:n], "一二三四五六七八九十", 0.0) for n in range(11)], False, 0.4, "rises evenly"),
    ],
)  # fmt: skip
def test_an_alpha_is_recommended_with_the_reason(rows, known, alpha, words):
    some = labels(rows, known=known)
    recommended = recommend(metric_curve(some, "mer" if "evenly" in words else "composite"), some)
    assert words in recommended.why
    assert recommended.alpha == alpha


def test_the_bend_is_recommended_where_nothing_else_is_known():
    count = 200
    rates = np.concatenate([np.linspace(0, 0.2, 180), np.linspace(0.2, 1.5, 20)])
    some = ValidatedLabels(np.ones(count), rates, rates, *(np.zeros((2, count), bool)), np.ones(count, bool))
    recommended = recommend(metric_curve(some, "composite"), some)
    assert recommended.alpha == pytest.approx(0.2, abs=0.02)
    assert "bends there" in recommended.why


@pytest.mark.parametrize("metric", ["full", "trivial"])
def test_a_metric_without_alpha_has_no_recommendation(metric):
    with pytest.raises(K2DError, match="does not depend on alpha"):
        recommend(metric_curve(labels(), metric), labels())


def test_without_chunks_there_is_nothing_to_calibrate_on():
    with pytest.raises(K2DError, match="no chunks"):
        calibrate(labels([]))


# The command


@pytest.fixture
def validated(tmp_path):
    """Five validated chunks of one recording on disk, and references of the same recording elsewhere."""
    some = labels()
    columns = {
        "recording": ["/far/lecture.flac"] * 5,
        "start": [30.0 * index for index in range(5)],
        "duration": [30.0] * 5,
        "text": [text for text, _, _ in ROWS],
        "auxiliary_text": [transcript for _, transcript, _ in ROWS],
        "mer": some.mer, "per": some.per, "teacher_loops": some.teacher_loops, "auxiliary_loops": some.auxiliary_loops,
    }  # fmt: skip
    Dataset.from_dict(columns).save_to_disk(tmp_path / "validated")
    spoken = [ROWS[0][0], ROWS[1][0], "對啊", ROWS[3][0], "我們今天不講這個"]
    segments = [{"start": 30.0 * n + 1, "end": 30.0 * n + 28, "text": text} for n, text in enumerate(spoken)]
    reference = {"audio": "audio/lecture.flac", "segments": segments}
    (tmp_path / "references.jsonl").write_text(json.dumps(reference), encoding="utf-8")
    return tmp_path / "validated"


def test_the_command_prints_tables_and_writes_json_and_plots(validated, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["calibrate", str(validated), "--references", str(tmp_path / "references.jsonl"), "--output", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert "5 chunks, 0.04 h; 5 with a reference, of which 2 bad" in printed
    assert "Recommended: composite with alpha 0.40: it drops 100% of the 2 bad labels" in printed
    written = json.loads((out / "calibration.json").read_text(encoding="utf-8"))
    assert set(written["curves"]) == set(METRICS)
    assert len(written["curves"]["composite"]["points"]) == 101
    assert (out / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "calibration.svg").read_text(encoding="utf-8")


def test_without_references_and_without_matplotlib(validated, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["calibrate", str(validated), "--metric", "per", "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "whether a label is bad is not known" in shown.out
    assert "pip install 'matplotlib>=3.9'" in shown.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["calibration.json"]


@needs_espeak
def test_stored_transcripts_are_compared_anew(tmp_path, capsys):
    """In the phones of another language, and by another length; nothing but the two rates changes."""
    texts = {"text": ["machine", "model one"], "auxiliary_text": ["मशीन", None]}
    rest = {"recording": ["a", "a"], "start": [0.0, 9.0], "duration": [9.0, 9.0], "mer": [1.0, 1.0], "per": [1.0, 1.0]}
    loops = {"teacher_loops": [False, False], "auxiliary_loops": [False, False]}
    Dataset.from_dict(texts | rest | loops).save_to_disk(tmp_path / "validated")
    command = ["calibrate", str(tmp_path / "validated"), "--output", str(tmp_path / "out"), "--metric", "per"]

    def kept(*options):
        assert main([*command, *options]) == 0
        written = json.loads((tmp_path / "out" / "calibration.json").read_text(encoding="utf-8"))
        return {name: written["curves"][name]["points"][40]["kept"] for name in ("mer", "per")}

    assert kept() == {"mer": 0.0, "per": 0.0}
    assert kept("--espeak-language", "hi") == {"mer": 0.0, "per": 0.5}
    capsys.readouterr()
    assert main([*command, "--espeak-language", "zz"]) == 1
    assert "calibrate: espeak_language: espeak-ng has no language 'zz'" in capsys.readouterr().err
    Dataset.from_dict(texts | rest | loops | {"segment_verdicts": [[], []]}).save_to_disk(tmp_path / "segments")
    assert main(["calibrate", str(tmp_path / "segments"), "--espeak-language", "hi"]) == 1
    assert "segments: judged by segments, which are not compared anew" in capsys.readouterr().err


def test_references_of_other_recordings_are_refused(validated, tmp_path, capsys):
    (tmp_path / "other.jsonl").write_text('{"audio": "another.flac", "segments": []}', encoding="utf-8")
    assert main(["calibrate", str(validated), "--references", str(tmp_path / "other.jsonl")]) == 1
    assert "none of its 1 recordings" in capsys.readouterr().err


def test_chunks_that_were_not_validated_are_refused(tmp_path, capsys):
    Dataset.from_dict({"recording": ["a"], "text": ["b"], "duration": [1.0]}).save_to_disk(tmp_path / "chunks")
    assert main(["calibrate", str(tmp_path / "chunks")]) == 1
    assert "give what `k2d validate` wrote" in capsys.readouterr().err


@pytest.mark.parametrize("known", [True, False])
def test_the_tables_name_every_metric(known):
    text = render_calibration(calibrate(labels(known=known)))
    assert all(metric in text for metric in METRICS)
    assert ("recall" in text) is known
    assert all(metric in METRICS for metric in THRESHOLD_METRICS)
