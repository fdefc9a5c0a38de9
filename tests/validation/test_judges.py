"""Judges beyond the distance: what cannot have been spoken is dropped where a limit is set, named and counted."""

import json
from collections import Counter

import pytest
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.cli import main
from k2d_hf.data.chunk_schema import MEASURING, features_of_writer
from k2d_hf.data.chunking import Segment, chunk_rows
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.pipeline.recipe import ValidateSettings
from k2d_hf.publishing.card_facts import data_facts
from k2d_hf.publishing.data_set import COLUMNS
from k2d_hf.validation.auxiliary import drop_counts, validate_labels
from k2d_hf.validation.combining import describe_validation
from k2d_hf.validation.distance import LOW_KEPT_SHARE, ValidationReport
from k2d_hf.validation.hypotheses import validation_features
from k2d_hf.validation.judges import (
    JUDGES,
    compression_ratio,
    is_judged,
    limits_of,
    seconds_per_syllable,
    speaking_rate,
    spoken_syllables,
)

HAN = "今天我們要介紹機器學習的基本概念和它的應用"  # 21 characters
CRAMMED = "speaking rate > 15"


@pytest.mark.parametrize(
    ("text", "syllables"),
    [
        ("", 0),
        ("《《《？！…", 0),
        (HAN, 21),
        ("this is a lecture", 7),  # a letter is one syllable
        ("我們用 GPU 來 train 一個 model", 6 + 3 * 2),
        ("2023年有3個GPU", 2 + 1 + 1 + 1 + 1 + 2),
        ("안녕하세요", 5),
        ("<|zh|>好<|endoftext|>", 1),
    ],
)
def test_syllables_are_counted_alike_in_every_mixture_of_scripts(text, syllables):
    assert spoken_syllables(text) == syllables


def row(*segments, text=None, duration=30.0):
    """A chunk of segments (start, end, text)."""
    fields = [{"start": start, "end": end, "text": words} for start, end, words in segments]
    return {"segments": fields, "text": text or "".join(words for _, _, words in segments), "duration": duration}


@pytest.mark.parametrize(
    ("chunk", "limit", "kept"),
    [
        (row((0, 0.001, HAN[:20])), 15, False),
        (row((0, 1, HAN[:15])), 15, True),
        (row((0, 1, HAN[:16])), 15, False),
        (row((0, 1, "one two three four five six seven")), 15, True),
        (row((0, 1, "one two three four five six seven eight")), 15, False),
        (row((0, 1, "這個 model 很 strong 的 performance")), 15, True),
        (row((0, 20, HAN), (20, 20, "好")), 15, False),  # no time at all
        (row((0, 20, HAN), (20, 19, "好")), 15, False),  # backwards
        (row((0, 20, HAN), (20, 20, "。")), 15, True),  # nothing that is spoken
        (row((0, 5, "好"), (5, 10, "好"), text=HAN * 5, duration=5), 15, False),  # the whole is too much, no segment
        ({"text": HAN, "duration": 1.0}, 15, False),  # a data set without segments
        ({"text": HAN, "duration": 2.0, "segments": None}, 15, True),
        (row((0, 0.04, "好")), 50, True),
    ],
)
def test_what_can_be_spoken(chunk, limit, kept):
    assert (speaking_rate(chunk) <= limit) is kept


@pytest.mark.parametrize(
    ("text", "seconds", "slow"),
    [(HAN, 21.0, 1.0), ("one two", 30.0, 7.5), ("", 30.0, 0.0), ("。。。", 30.0, 0.0), ("好", 30.0, 30.0)],
)
def test_seconds_for_each_syllable(text, seconds, slow):
    assert seconds_per_syllable({"text": text, "duration": seconds}) == pytest.approx(slow)


def test_what_repeats_itself_is_compressed():
    once, often = compression_ratio({"text": HAN}), compression_ratio({"text": HAN * 4})
    assert once < 1.2 < 2 < often
    assert compression_ratio({"text": " "}) == 0.0
    assert compression_ratio({"text": "\ud800好"}) > 0  # no text, and no reason to stop


@pytest.fixture
def chunks(noise_file):
    """Five chunks of 4 to 8 s: a sound label, one crammed, one crammed on which the models differ too, loops, a slip."""
    labels = [HAN[:12], HAN[:20], "完全不一樣的一句話在這裡出現了", "謝謝大家收看" * 6, "今天講課"]
    spans = [(0.0, 4.0), (4.999, 5.0), (9.999, 10.0), (20.0, 27.0), (30.0, 38.0)]
    segments = [[Segment(*span, text)] for span, text in zip(spans, labels, strict=True)]
    rows = chunk_rows(str(noise_file), segments, language="zh")
    for number, one in enumerate(rows):  # by its seconds the transcriber of the test knows a chunk
        one["duration"] = 4.0 + number
    return Dataset.from_list(rows)


TRANSCRIPTS = {4.0: HAN[:12], 5.0: HAN[:20], 6.0: "別的", 7.0: "謝謝", 8.0: "今天講課"}


def test_a_label_that_cannot_be_spoken_is_dropped_where_a_limit_is_set(chunks):
    papers = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))
    assert papers["keep"][:] == [True, True, False, False, True]
    assert drop_counts(papers) == {"distance > 0.40": 1, "teacher loops": 1}
    limited = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), max_speaking_rate=15)
    assert limited["keep"][:] == [True, False, False, False, True]
    assert limited["drop_reason"][:] == [None, CRAMMED, CRAMMED, "teacher loops", None]  # first what no threshold mends
    assert limited.features == papers.features
    assert limited["speaking_rate"][:] == papers["speaking_rate"][:] == [speaking_rate(chunk) for chunk in chunks]
    for unchanged in ("distance", "per", "mer", "auxiliary_text"):
        assert limited[unchanged][:] == papers[unchanged][:]
    stream = chunks.to_iterable_dataset()
    assert validate_labels(stream, ScriptedTranscriber(TRANSCRIPTS), max_speaking_rate=15)[:] == limited[:]
    full = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric="full", max_speaking_rate=15)
    assert drop_counts(full) == {CRAMMED: 2}


@pytest.mark.parametrize("limit", [0, -1, float("inf"), float("nan"), "fast"])
def test_a_limit_that_is_none_is_an_error_before_anything_is_transcribed(chunks, limit):
    auxiliary = ScriptedTranscriber(TRANSCRIPTS)
    with pytest.raises(K2DError, match=r"^max_speaking_rate .*: give a number above 0"):
        validate_labels(chunks, auxiliary, max_speaking_rate=limit)
    assert auxiliary.calls == []


def test_whatever_knows_of_judges_knows_each():
    """A setting of the recipe that is off, a column that cards explain, a reason that cards may name."""
    for judge in JUDGES:
        assert getattr(ValidateSettings(), judge.setting) is None
        assert judge.column in (validation_features() if judge.measure else features_of_writer(MEASURING))
        assert COLUMNS[judge.column]
        assert is_judged(judge.reason(15.0))
        assert is_judged(judge.reason(12.5))
        assert limits_of(vars(ValidateSettings(**{judge.setting: 12.0}))) == {judge.setting: 12.0}
    assert not is_judged(None)
    assert not is_judged("distance > 0.40")
    assert not is_judged("speaking rate > /home/me")
    assert describe_validation(vars(ValidateSettings())) == "composite, threshold 0.4"
    assert describe_validation(vars(ValidateSettings(max_speaking_rate=15.0))) == (
        "composite, threshold 0.4, speaking rate of at most 15 syllables a second"
    )


@pytest.mark.parametrize(
    ("settings", "kept", "reason"),
    [
        ({"max_uncertainty": 0.7}, [True, False, False, False, True], "uncertainty > 0.7"),
        ({"max_uncertainty": 0.7, "combine": "all"}, [True, True, False, False, True], None),
        ({"max_uncertainty": 0.7, "combine": "sum"}, [True, False, False, False, True], "weighted mean > 1"),
    ],
)
def test_what_labelling_measured_judges_beside_the_distance(chunks, settings, kept, reason):
    measured = chunks.add_column("uncertainty", [0.7, 1.5, 0.8, None, None])
    validated = validate_labels(measured, ScriptedTranscriber(TRANSCRIPTS), **settings)
    assert validated["keep"][:] == kept
    assert validated["drop_reason"][1] == reason
    assert validated["drop_reason"][3] == "teacher loops"
    assert validated["uncertainty"][:] == measured["uncertainty"][:]
    facts = data_facts(validated)
    assert "other reasons" not in facts.dropped
    papers = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))
    assert set(validated.column_names) == {*papers.column_names, "uncertainty"}


def test_a_limit_of_what_labelling_did_not_measure_is_an_error_before_any_work(chunks):
    auxiliary = ScriptedTranscriber(TRANSCRIPTS)
    with pytest.raises(K2DError, match=r"^max_uncertainty: the chunks have no column uncertainty; label them with mea"):
        validate_labels(chunks, auxiliary, max_uncertainty=0.7)
    assert auxiliary.calls == []


def test_a_card_counts_them(chunks):
    facts = data_facts(validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), max_speaking_rate=15))
    assert facts.dropped == {CRAMMED: 2, "teacher loops": 1}
    assert facts.kept == 2


def test_calibration_drops_them_at_every_alpha(chunks, tmp_path, capsys):
    validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), max_speaking_rate=15).save_to_disk(
        str(tmp_path / "limited")
    )
    validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS)).save_to_disk(str(tmp_path / "papers"))
    kept = {}
    for name in ("limited", "papers"):
        assert main(["calibrate", str(tmp_path / name), "--output", str(tmp_path / f"{name}.out")]) == 0
        written = json.loads((tmp_path / f"{name}.out" / "calibration.json").read_text(encoding="utf-8"))
        kept[name] = {metric: curve["points"][40]["kept"] for metric, curve in written["curves"].items()}
        assert written["judged"] == (2 if name == "limited" else 0)
    shown = capsys.readouterr().out
    assert kept["limited"] == {"full": 0.6, "trivial": 0.4, "mer": 0.4, "per": 0.4, "composite": 0.4}
    assert kept["papers"] == {"full": 1.0, "trivial": 0.8, "mer": 0.6, "per": 0.6, "composite": 0.6}
    assert shown.count("5 chunks, 0.01 h, 2 dropped by a limit beyond the distance, at every alpha") == 1
    assert shown.count("speaking rate: median ") == 2
    assert "syllables a second (max_speaking_rate sets a limit)" in shown


@pytest.mark.parametrize(("combine", "count"), [("all", 1), ("sum", 2)])
def test_calibration_names_what_several_judges_dropped_together(chunks, tmp_path, capsys, combine, count):
    given = {"max_compression_ratio": 0.7, "max_speaking_rate": 15, "threshold": 0.2, "combine": combine}
    validated = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), **given)
    dropped = drop_counts(validated)
    together = sum(number for reason, number in dropped.items() if reason != "teacher loops")
    assert together == count, dropped
    write_rows(validated, tmp_path / "validated")
    assert main(["calibrate", str(tmp_path / "validated"), "--output", str(tmp_path / "out")]) == 0
    written = json.loads((tmp_path / "out" / "calibration.json").read_text(encoding="utf-8"))
    assert (written["combined"], written["judged"], written["verdict"]["kept"]) == (count, 0, 1 - (count + 1) / 5)
    shown = capsys.readouterr().out
    assert f"{count} dropped by several judges together, here by the distance alone" in shown
    assert f"Validation kept {100 * (4 - count) // 5}%, 0.0" in shown


# A very low share


@pytest.mark.parametrize(
    ("chunks", "dropped", "parts"),
    [
        (42, {"distance > 0.40": 38}, ["only 4 of 42 chunks (10%, where the paper keeps 74%)", "38 distance > 0.40"]),
        (42, {"distance > 0.40": 38}, ["the auxiliary may not understand", "`k2d calibrate`", "another auxiliary"]),
        (3, {"distance > 0.05": 3}, ["only 0 of 3 chunks (0%"]),
        (100, {"no such file": 60, "distance > 0.40": 10}, ["60 no such file, 10 distance > 0.40", "drop_reason"]),
        (100, {"distance > 0.40": 63}, None),
        (100, {}, None),
        (0, {}, None),
    ],
)
def test_what_a_low_share_may_mean(chunks, dropped, parts):
    warnings = ValidationReport(chunks, Counter(dropped)).warnings()
    if parts is None:
        assert warnings == []
    else:
        (warning,) = warnings
        assert all(part in warning for part in parts)
        assert "\n" not in warning


def test_the_bar_lies_below_what_the_paper_keeps_by_any_metric():
    assert 0.3 < LOW_KEPT_SHARE < 0.5
    assert ValidationReport(100, Counter({"distance > 0.40": 45})).warnings() == []  # the strictest, mer, keeps 55%


@pytest.mark.parametrize(
    ("heard", "kept", "line"),
    [
        (("", ""), 2, None),
        (("", "我們用"), 1, None),
        (("我們用", "我們用"), 0, "validation dropped 2 of 2 windows without speech"),
    ],
)
def test_validation_says_where_the_auxiliary_writes_into_silence(chunks, caplog, heard, kept, line):
    """As a small model may that has only ever met speech; the lessons in silence are then lost."""
    silent = chunks.map(lambda row: {"text": "", "segments": []} if row["duration"] in (7.0, 8.0) else {})
    transcripts, report = {**TRANSCRIPTS, **dict(zip((7.0, 8.0), heard, strict=True))}, ValidationReport()
    validate_labels(silent, ScriptedTranscriber(transcripts), report=report)
    assert (report.silences, report.silences_kept) == (2, kept)
    validate_labels(silent, ScriptedTranscriber(transcripts))
    assert ("without speech" in caplog.text) is (line is not None)
    assert (line or "") in caplog.text


def test_validation_ends_with_a_warning_where_little_is_kept(chunks, caplog):
    validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))
    assert "validation kept only" not in caplog.text
    validate_labels(chunks, ScriptedTranscriber(dict.fromkeys(TRANSCRIPTS, "別的")))
    assert "validation kept only 0 of 5 chunks" in caplog.text
    assert "the auxiliary may not understand this speech" in caplog.text
    caplog.clear()
    report = ValidationReport()
    validate_labels(chunks, ScriptedTranscriber(dict.fromkeys(TRANSCRIPTS, "別的")), report=report)
    assert (report.chunks, report.kept, len(report.warnings())) == (5, 0, 1)
    assert caplog.text == ""
