"""How wrong segments are, and what calibration, reports and the end of a run make of it."""

import io
import json

import numpy as np
import pytest
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import load_recipe
from k2d_hf.data.chunking import Segment, chunk_rows
from k2d_hf.data.segment_references import true_rates
from k2d_hf.files.arrow import write_rows
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.pipeline.rounds import label_quality
from k2d_hf.pipeline.run import _show_labels
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.publishing.card_facts import data_facts
from k2d_hf.reporting.chunks import read_chunks
from k2d_hf.reporting.facts import RunFacts
from k2d_hf.reporting.page import _truth
from k2d_hf.terminal.console import Console
from k2d_hf.validation.auxiliary import validate_labels
from k2d_hf.validation.calibrate import kept_speech, validated_labels
from k2d_hf.validation.calibration_report import calibrate, render_calibration

A, B, C = "今天我們講 machine learning", "完全聽錯的一句話", "大家請看這張圖"
RIGHT = "這句話其實是別的意思"  # what was said where the teacher wrote B


@pytest.fixture
def chunks(noise_file):
    packed = [
        [Segment(0.0, 3.0, A), Segment(3.0, 5.0, B), Segment(5.0, 9.0, C)],
        [Segment(10.0, 14.0, C), Segment(14.0, 17.0, A)],
    ]
    return Dataset.from_list(chunk_rows(str(noise_file), packed, language="zh"), features=chunk_features())


@pytest.fixture
def references(noise_file, tmp_path):
    """What was said, in sentences that end elsewhere than the segments."""
    said = [(0.0, 3.6, A), (3.6, 5.2, RIGHT), (5.2, 9.0, C), (10.0, 17.0, f"{C}{A}")]
    segments = [{"start": start, "end": end, "text": text} for start, end, text in said]
    path = tmp_path / "references.jsonl"
    path.write_text(json.dumps({"audio": str(noise_file), "segments": segments}), encoding="utf-8")
    return path


@pytest.fixture
def validated(chunks):
    def validate(**settings):
        return validate_labels(chunks, ScriptedTranscriber({9.0: f"{A}{RIGHT}{C}", 7.0: f"{C}{A}"}), **settings)

    return validate


def test_each_segment_has_its_own_true_rate(chunks):
    references = [Segment(0.0, 3.6, A), Segment(3.6, 5.2, RIGHT), Segment(5.2, 9.0, C), Segment(10.0, 17.0, f"{C}{A}")]
    first, second = true_rates(list(chunks), references)
    assert [rate > 0.4 for rate in first] == [False, True, False]
    assert second == [0.0, 0.0]
    alone = {**chunks[1], "segments": None}
    assert true_rates([alone], references) == [[0.0]]
    silent = {**chunks[0], "start": 9.2, "duration": 0.5, "segments": [], "text": ""}
    assert true_rates([silent, chunks[1]], references) == [[0.0], [0.0, 0.0]]
    spoken = [*references, Segment(9.2, 9.7, A)]
    assert true_rates([silent], spoken) == [[1.0]]


@pytest.mark.parametrize("keep", ["cut", "mask"])
def test_calibration_counts_segments_and_has_the_chunks_beside(validated, references, keep):
    labels = validated_labels(validated(unit="segment", keep=keep), references)
    assert labels.seconds.tolist() == [3.0, 2.0, 4.0, 4.0, 3.0]
    assert labels.keep.tolist() == [True, False, True, True, True]
    assert labels.bad_seconds.tolist() == [0.0, 2.0, 0.0, 0.0, 0.0]
    found = calibrate(labels)
    point = found.curves["composite"].at(0.4)
    assert (found.unit, point.kept, point.recall, point.bad_speech) == ("segment", 0.8, 1.0, 0.0)
    by_chunk = {one.alpha: one for one in found.by_chunk}
    whole = calibrate(validated_labels(validated(), references)).curves["composite"]
    assert (by_chunk[0.4].hours, by_chunk[0.4].bad_speech) == (16 / 3600, 2 / 16)
    for alpha in (0.1, 0.4, 0.9):
        assert by_chunk[alpha].hours == pytest.approx(whole.at(alpha).hours)
        assert by_chunk[alpha].bad_speech == whole.at(alpha).bad_speech
    text = render_calibration(found)
    assert "5 segments, 0.00 h" in text
    assert "by chunk, hours" in text
    assert "by chunk" not in render_calibration(calibrate(validated_labels(validated(), references)))


@pytest.mark.parametrize("keep", ["cut", "mask"])
def test_a_run_ends_with_the_bad_speech_of_segments_and_chunks(validated, references, tmp_path, keep):
    write_rows(validated(unit="segment", keep=keep), tmp_path / "validated")
    line = kept_speech(tmp_path / "validated", references, "composite", 0.4)
    assert line == (
        "segments keep 0.2 min, 0.0 min of it bad; whole chunks would keep 0.3 min, 0.0 min of it bad "
        "(true MER above 40%)"
    )
    quality = label_quality(tmp_path / "validated", str(references))
    assert quality["kept_mer"] == 0.0
    assert quality["kept"] == pytest.approx(14 / 16)
    assert quality["mer"] > 0.1


def test_the_end_of_a_run_and_its_report_say_what_segments_keep(validated, references, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"{{name: tiny, recordings: one.jsonl, teacher: teacher, auxiliary: auxiliary, output: {tmp_path}, "
        "references: references.jsonl, validate: {unit: segment}}"
    )
    rows = validated(unit="segment")
    write_rows(rows, tmp_path / "validated")
    stream = io.StringIO()
    _show_labels(RunState(load_recipe(recipe, elsewhere=True), [], Console(stream=stream)), str(references))
    assert "Labels:    segments keep 0.2 min, 0.0 min of it bad; whole chunks would keep 0.3 min" in stream.getvalue()
    calibration = calibrate(validated_labels(rows, references))
    facts = RunFacts("tiny", str(tmp_path), metric="composite", threshold=0.4, calibration=calibration)
    assert _truth(facts).endswith(
        "Of the 14 s at this threshold 0% are in segments that are bad (true MER above 40%); whole chunks would keep "
        "16 s, 12% of them bad."
    )


@pytest.mark.parametrize("unit", ["chunk", "segment"])
def test_a_report_counts_what_validation_kept_however_it_combined_its_judges(validated, references, tmp_path, unit):
    """By the distance alone the wrong segment would go."""
    rows = validated(unit=unit, max_speaking_rate=50, combine="all")
    assert all(rows["keep"])
    write_rows(rows, tmp_path / "validated")
    calibration = calibrate(validated_labels(rows, references))
    assert (calibration.verdict.kept, calibration.verdict.recall) == (1.0, 0.0)
    facts = RunFacts("tiny", str(tmp_path), metric="composite", threshold=0.4, calibration=calibration)
    bad = round(100 * 2 / 16)
    assert f"Of the 16 s at this threshold {bad}% are in segments that are bad" in _truth(facts)
    if unit == "segment":
        assert ", of which it dropped 0%" in _truth(facts)
        line = kept_speech(tmp_path / "validated", references, "composite", 0.4)
        assert line.startswith("segments keep 0.3 min, 0.0 min of it bad; ")
    dropped = validated(unit=unit, max_compression_ratio=0.1, combine="sum")
    assert not any(dropped["keep"])
    calibration = calibrate(validated_labels(dropped, references))
    assert (calibration.combined, calibration.verdict.kept) == (len(calibration_units(dropped)), 0.0)


def calibration_units(rows):
    return [one for row in rows for one in row.get("segment_verdicts") or [row]]


def test_masked_seconds_count_as_lost_wherever_speech_is_counted(validated, tmp_path):
    rows = validated(unit="segment", keep="mask")
    write_rows(rows, tmp_path / "validated")
    table = read_chunks(tmp_path / "validated")
    shown = {share.verdict: (share.chunks, share.seconds) for share in table.shares}
    assert shown == {"kept": (2, 14.0), "masked: distance > 0.40": (1, 2.0)}
    facts = data_facts(rows)
    assert (facts.kept, facts.kept_seconds, facts.seconds) == (2, 14.0, 16.0)
    assert np.isclose(read_chunks(tmp_path / "nothing").seconds.sum(), 0)
