"""Spans of files, as manifests of NeMo have them: transcribed, named, resumed and measured as recordings of their own."""

import json
import math

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio.reader import AudioError, read_audio
from k2d_hf.data.chunking import Segment
from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.references import chunk_reference, read_references, references_of
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.evaluation.long_form import load_long_form
from k2d_hf.evaluation.measured_run import MeasuredRun, check_alike, ordered
from k2d_hf.labelling.teacher import LabellingReport, label_recordings
from k2d_hf.pipeline.planning.data_facts import inspect_data
from k2d_hf.pipeline.recipe import EvaluationDataSettings
from k2d_hf.reporting.gathering import _recordings
from k2d_hf.reporting.stage_facts import read_lines

# Of a lecture of 60 s: what is written of spans by their length.
SCRIPT = {
    12.0: [(0.5, 6.0, "今天講"), (6.5, 11.0, "GPU")],
    30.5: [(0.1, 20.0, "一"), (20.0, 30.4, "二")],
    16.0: [(1.0, 2.0, "尾"), (3.0, 17.0, "巴")],
    60.0: [(0.0, 30.0, "全")],
}


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", 0.1 * np.random.default_rng(0).standard_normal(60 * 16000), 16000)


def manifest(*rows, name="m.jsonl"):
    with open(name, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"audio_filepath": "a.wav", **row}) + "\n" for row in rows)
    return name


def spans(recordings):
    return [(row["start"], row["duration"]) for row in recordings]


SPANS = ({"offset": 8, "duration": 12}, {"offset": 20.25, "duration": 30.5}, {"offset": 44.0})


@pytest.mark.parametrize("streaming", [False, True])
def test_chunks_of_a_span_are_those_of_the_cut_file_by_their_place_in_the_whole_one(tmp_path, streaming):
    chunks, report = {}, {}
    whole, first, last = 60 * 16000, 8 * 16000, 20 * 16000
    samples = soundfile.read("a.wav", dtype="int16")[0]
    assert len(samples) == whole
    soundfile.write("cut.wav", samples[first:last], 16000)
    for name, rows in (("span", SPANS), ("cut", [{"audio_filepath": "cut.wav"}])):
        report[name] = LabellingReport()
        recordings = load_recordings(manifest(*rows), streaming=streaming)
        found = label_recordings(recordings, ScriptedTranscriber(SCRIPT, language="zh"), report=report[name])
        chunks[name] = found.to_list()
    (cut,) = chunks["cut"]
    assert chunks["span"][0] == cut | {"recording": f"{tmp_path}/a.wav", "start": cut["start"] + 8}
    assert [(row["start"], row["duration"], row["text"]) for row in chunks["span"]] == [
        (8.5, 10.5, "今天講GPU"),
        (20.35, 19.9, "一"),  # of 30.3 s together
        (40.25, 10.4, "二"),
        (45.0, 15.0, "尾巴"),  # the end of the last is past that of the file
    ]
    assert [row["previous_text"] for row in chunks["span"]] == [None, None, "一", None]  # spans have no past
    assert [row["next_start"] for row in chunks["span"]] == [None, 19.9, None, None]
    (left_out,) = report["span"].left_out
    assert (left_out["start"], left_out["end"], left_out["reason"]) == (60.0, 61.0, "past the end")
    assert report["span"].seconds == 12 + 30.5 + 16
    audio = read_audio(chunks["span"][0]["recording"], 8.5, 10.5)
    assert np.array_equal(audio, read_audio("cut.wav", 0.5, 10.5))


def test_columns_of_a_span_are_there_only_where_the_source_has_some():
    recordings = load_recordings(manifest(*SPANS, {"duration": 3}, {"offset": None, "duration": 5, "text": None}))
    assert recordings.column_names == ["recording", "reference", "language", "start", "duration"]
    assert spans(recordings) == [(8.0, 12.0), (20.25, 30.5), (44.0, None), (0.0, None)]  # the last two are one
    assert load_recordings(manifest({"duration": 3})).column_names == ["recording", "reference", "language"]


@pytest.mark.parametrize("duration", [60.0, 12.3, 61, 0, -1, "60", "x", math.nan, None])
def test_a_duration_alone_is_the_files_and_cuts_nothing(duration):
    recordings = load_recordings(manifest({"duration": duration}))
    assert label_recordings(recordings, ScriptedTranscriber(SCRIPT))["text"][:] == ["全"]


@pytest.mark.parametrize("duration", [60.0, 60.004, 60.49])
def test_a_duration_that_was_rounded_up_is_a_span_up_to_the_end(duration):
    recordings = load_recordings(manifest({"offset": 0.0, "duration": duration}))
    assert label_recordings(recordings, ScriptedTranscriber(SCRIPT))["text"][:] == ["全"]


TABLES = [
    ("m.csv", "path,offset,duration,text\na.wav,8,12,x\na.wav,44.0,,y\na.wav,,60,z\n"),
    ("m.tsv", "path\toffset\tduration\ttext\na.wav\t8.0\t12.0\tx\na.wav\t 44\t\ty\na.wav\t\t60\tz\n"),
]


@pytest.mark.parametrize(("name", "content"), TABLES)
def test_tables_have_spans_too(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    recordings = load_recordings(name)
    assert spans(recordings) == [(8.0, 12.0), (44.0, None), (0.0, None)]
    assert recordings["reference"][:] == ["x", "y", "z"]


def test_data_sets_have_spans_too_and_what_was_loaded_can_be_loaded_again():
    data = Dataset.from_dict({"audio_filepath": ["a.wav"] * 2, "offset": [8.0, 44.0], "duration": [12.0, None]})
    loaded = load_recordings(data)
    assert spans(loaded) == spans(load_recordings(loaded)) == [(8.0, 12.0), (44.0, None)]
    assert list(load_recordings(data.to_iterable_dataset())) == list(loaded)
    chunks = label_recordings(loaded, ScriptedTranscriber(SCRIPT))
    assert spans(load_recordings(chunks)) == spans(chunks)  # a chunk is a span of its recording


def test_a_start_of_another_kind_changes_nothing():
    row = {"audio": "a.wav", "start": "2026-11-28 09:15", "duration": 60}
    assert load_recordings(Dataset.from_list([row])).column_names == ["recording", "reference", "language"]
    ours = {"recording": "a.wav", "start": "2026-11-28 09:15", "duration": 60}
    assert spans(load_recordings(Dataset.from_list([ours]))) == [(0.0, None)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"offset": math.nan}, "line 2: offset is nan; give seconds"),
        ({"offset": math.inf, "duration": 1}, "line 2: offset is inf"),
        ({"offset": "one", "duration": 1}, "line 2: offset is 'one'"),
        ({"offset": True, "duration": 1}, "line 2: offset is True"),
        ({"offset": [1], "duration": 1}, r"line 2: offset is \[1\]"),
        ({"offset": 1, "duration": "long"}, "line 2: duration is 'long'"),
        ({"offset": 1, "duration": math.nan}, "line 2: duration is nan"),
    ],
)
def test_a_span_that_is_no_number_is_named_with_its_line(row, words):
    with pytest.raises(K2DError, match=words) as caught:
        load_recordings(manifest({"offset": 0}, row))
    assert "\n" not in str(caught.value)


BAD = [
    ({"offset": -3, "duration": 5}, "-3 to 2 s"),
    ({"offset": 1, "duration": -5}, "1 to -4 s"),
    ({"offset": 1, "duration": 0}, "1 to 1 s, of 60.00 s"),
    ({"offset": 60, "duration": 5}, "60 to 65 s, of 60.00 s"),
    ({"offset": 55, "duration": 12}, "55 to 67 s, of 60.00 s"),
    ({"offset": 9000}, "from 9000 s on, of 60.00 s"),
    ({"offset": 8000, "duration": 12000}, "8000 to 20000 s, of 60.00 s"),  # milliseconds
]


def test_a_span_that_is_not_in_its_file_is_skipped_by_its_place(tmp_path, caplog):
    report = LabellingReport()
    rows = [*(row for row, _ in BAD), SPANS[0]]
    chunks = label_recordings(load_recordings(manifest(*rows)), ScriptedTranscriber(SCRIPT), report=report)
    assert len(chunks) == 1
    assert [(entry["start"], entry["duration"]) for entry in report.skipped] == [
        (row["offset"], row.get("duration")) for row, _ in BAD
    ]
    assert {entry["reason"] for entry in report.skipped} == {"no such span"}
    for entry, (_, words) in zip(report.skipped, BAD, strict=True):
        assert f"{tmp_path}/a.wav: no such span ({words}" in entry["detail"]
    assert "skipped 7 of 8 recordings: 7 no such span" in caplog.text


def test_spans_are_distinct_wherever_recordings_are():
    rows = [SPANS[0], SPANS[0], {"offset": 8, "duration": 12.5}, {}, {"offset": 0}]
    recordings = load_recordings(manifest(*rows))
    assert spans(recordings) == [(8.0, 12.0), (8.0, 12.5), (0.0, None)]
    with pytest.raises(K2DError, match="line 2: .*came before with another transcript.*spans of it by `offset`"):
        load_recordings(manifest({**SPANS[0], "text": "x"}, {**SPANS[0], "text": "y"}))
    twice = Dataset.from_list([dict(row) for row in recordings] + [dict(recordings[0])])
    report = LabellingReport()
    label_recordings(twice, ScriptedTranscriber(SCRIPT), report=report)
    assert [(e["reason"], e.get("start"), e.get("duration")) for e in report.skipped] == [
        ("no speech found", 8.0, 12.5),
        ("listed twice", 8.0, 12.0),
    ]


def test_a_span_that_was_labelled_is_not_labelled_again(tmp_path):
    for rows, calls in ((SPANS[:2], [[12.0], [30.5]]), (SPANS, [[16.0]]), ([{"offset": 8, "duration": 16}], [[16.0]])):
        teacher = ScriptedTranscriber(SCRIPT)
        label_recordings(load_recordings(manifest(*rows)), teacher, shards_dir=tmp_path / "shards")
        assert teacher.calls == calls


@pytest.mark.parametrize("count", [999, 1000])
def test_a_stream_whose_first_span_comes_late_says_so(count):
    rows = [{"audio_filepath": f"{number}.wav"} for number in range(count)]
    stream = load_recordings(manifest(*rows, SPANS[0]), streaming=True)
    if count < 1000:
        assert spans(stream)[-1] == (8.0, 12.0)
        return
    with pytest.raises(K2DError, match="line 1001: the first with `offset`"):
        list(stream)


def test_a_span_may_be_asked_to_lie_in_the_recording():
    assert len(read_audio("a.wav", 50, 20)) == 10 * 16000  # as ever
    with pytest.raises(AudioError) as caught:
        read_audio("a.wav", 50, 20, within=True)
    assert caught.value.reason == "no such span"
    assert len(read_audio("a.wav", 50, 10.4, within=True)) == 10 * 16000


# Where they go on to


TEXTS = [("今天 GPU", 8, 12), ("一二", 20.25, 30.5)]


def test_spans_are_measured_one_by_one():
    rows = [{"offset": offset, "duration": length, "text": text} for text, offset, length in TEXTS]
    rows += [{"offset": 70, "duration": 1, "text": "沒有"}]
    result = evaluate_model(ScriptedTranscriber(SCRIPT, batch_size=1), load_recordings(manifest(*rows)))
    assert (result.recordings, result.audio_seconds, result.mer) == (2, 42.5, pytest.approx(1 / 5))
    assert [(one["start"], one["duration"], one["hypothesis"]) for one in result.transcripts] == [
        (8.0, 12.0, "今天講GPU"),
        (20.25, 30.5, "一二"),
    ]
    assert [(one["start"], one["reason"]) for one in result.skipped] == [(70.0, "no such span")]


def test_spans_are_distinct_in_report_and_comparisons(tmp_path):
    lines = [
        {"recording": "/x/a.wav", "start": start, "duration": 12.0, "reference": "好", "hypothesis": text}
        for start, text in ((8.0, "好"), (44.0, "不"))
    ]
    with open("transcripts.jsonl", "w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({**line, "model": model}) + "\n" for model in ("teacher", "student") for line in lines
        )
    facts = _recordings(read_lines(tmp_path / "transcripts.jsonl"))
    assert [fact.recording for fact in facts] == ["a.wav, 0:08 to 0:20", "a.wav, 0:44 to 0:56"]
    assert [fact.errors["student"].errors for fact in facts] == [0, 1]
    figures = {name: {"engine": "x", "language": "zh", "beam_size": 1} for name in ("teacher", "student")}
    run = MeasuredRun("one", {}, None, figures, {"teacher": lines, "student": lines[::-1]})
    assert ordered(run, "teacher") == ordered(run, "student") == lines
    less = MeasuredRun("two", {}, None, figures, {"teacher": lines[:1], "student": lines[:1]})
    with pytest.raises(K2DError, match=r"only one has a\.wav"):
        check_alike([run, less])


def test_utterances_that_are_spans_are_joined():
    rows = [{"offset": offset, "duration": 2, "text": text, "talk": 1} for offset, text in ((50, "b"), (8, "a"))]
    (joined,) = load_long_form(manifest(*rows), join_by="talk")
    assert (sorted(joined), joined["reference"]) == (["language", "recording", "reference"], "b a")
    expected = np.concatenate([read_audio("a.wav", 50, 2), read_audio("a.wav", 8, 2)])
    assert np.allclose(read_audio(joined["recording"]), expected, atol=1e-4)
    (other,) = load_long_form(manifest(*rows[::-1]), join_by="talk")
    assert other["recording"] != joined["recording"]


def test_a_plan_counts_spans_and_not_their_files():
    facts = inspect_data(EvaluationDataSettings(manifest(*SPANS, {"offset": 70, "duration": 1})))
    assert (facts.recordings, facts.seconds, facts.note) == (4, 12 + 30.5 + 16, "1 cannot be read")


def test_references_of_spans_are_put_together_by_file(tmp_path):
    inside = [{"start": 0, "end": 2, "text": "尾"}, {"start": 3, "end": 16, "text": "巴"}]
    rows = [
        {"offset": 20.25, "duration": 30.5, "text": "一二"},
        {"offset": 8, "duration": 12, "text": "今天講 GPU"},
        {"offset": 44.0, "segments": inside},
    ]
    references = read_references(manifest(*rows))
    assert references == {
        f"{tmp_path}/a.wav": [
            Segment(8.0, 20.0, "今天講 GPU"),
            Segment(20.25, 50.75, "一二"),
            Segment(44.0, 46.0, "尾"),
            Segment(47.0, 60.0, "巴"),
        ]
    }
    chunks = label_recordings(load_recordings(manifest(*rows)), ScriptedTranscriber(SCRIPT))
    references = references_of("m.jsonl", chunks["recording"])
    (chunk,) = (row for row in chunks if row["start"] == 8.5)
    assert chunk_reference(references[chunk["recording"]], chunk["start"], chunk["duration"]) == "今天講 GPU"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"offset": 8, "text": "x"}], "line 1: a span from 8 s on; give its `duration` and `text`, or its `segments`"),
        ([{"offset": 8, "duration": 1}], "line 1: a span from 8 s on"),
        ([{"segments": []}, {"segments": [{"start": 0, "end": 1, "text": "x"}]}], "line 2: .* came before"),
        ([{"offset": 8, "duration": 1, "text": "x"}, {"offset": None, "segments": []}], "line 2: .* came before"),
    ],
)
def test_ambiguous_references_are_named(rows, words):
    with pytest.raises(K2DError, match=words):
        read_references(manifest(*rows))
