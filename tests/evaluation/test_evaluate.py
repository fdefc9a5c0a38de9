"""Evaluation: figures that can be checked by hand, and every recording counted or named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber
from scripted_whisper import write_scripted_whisper

from k2d_hf.data.chunking import Segment
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model, looping_windows
from k2d_hf.evaluation.switching import switching_of
from k2d_hf.evaluation.table import render_table
from k2d_hf.pipeline.recipe import EvaluateSettings
from k2d_hf.publishing.model_card_data import EvaluatedSet, K2DModelCardData

# 9 + 6 tokens; two substitutions (個, model), one insertion (attention), one deletion (要)
REFERENCES = {3.0: "我們用 GPU 來 train 一個 model", 4.0: "這個 attention 很重要"}
SCRIPT = {
    3.0: [(0.0, 1.0, "我们用GPU來"), (1.0, 3.0, " train 一隻 models")],
    4.0: [(0.0, 4.0, " 這個 attention attention 很重")],
}
WARM_UP = [30.0]


def make(folder, seconds, name=None, level=0.1):
    path = folder / (name or f"{seconds}.wav")
    samples = level * np.random.default_rng(0).standard_normal(round(seconds * 16000))
    soundfile.write(path, samples, 16000)
    return str(path)


@pytest.fixture
def recordings(tmp_path):
    return Dataset.from_list(
        [{"recording": make(tmp_path, seconds), "reference": text} for seconds, text in REFERENCES.items()]
    )


def test_figures_are_those_counted_by_hand(recordings):
    model = ScriptedTranscriber(SCRIPT, language="zh", beam_size=2, batch_size=2)
    result = evaluate_model(model, recordings, name="scripted")
    assert (result.substitutions, result.deletions, result.insertions, result.reference_length) == (2, 1, 1, 15)
    assert result.mer == pytest.approx(4 / 15)
    assert result.zh_cer == pytest.approx(2 / 11)  # 隻, and 要 that is missing, of 6 + 5 characters
    assert result.en_wer == pytest.approx(2 / 4)  # models, and attention that is twice, of 4 words
    assert (result.model, result.recordings, result.audio_seconds) == ("scripted", 2, 7.0)
    assert (result.parameters, result.engine) == (12_300_000, "faster-whisper")
    assert (result.language, result.beam_size, result.looping_outputs, result.skipped) == ("zh", 2, 0, [])
    written = ["我们用GPU來train 一隻 models", "這個 attention attention 很重"]
    assert result.transcripts == [
        {"recording": row["recording"], "reference": row["reference"], "hypothesis": text, "looping_windows": 0}
        for row, text in zip(recordings, written, strict=True)
    ]
    assert model.calls == [WARM_UP, [3.0, 4.0]]


def test_another_pair_of_languages_has_no_rate_that_is_called_mandarin_or_english(tmp_path):
    said = [{"recording": make(tmp_path, 3.0), "reference": "आज हम machine learning पढ़ेंगे"}]
    model = ScriptedTranscriber({3.0: [(0.0, 2.0, "आज हम machine पढ़ेंगे")]}, language="hi")
    figures = evaluate_model(model, Dataset.from_list(said)).figures()
    assert (figures["mer"], figures["zh_cer"], figures["en_wer"]) == (0.2, None, None)
    assert figures["parts"] == {"hi WER": 0.0, "Latin WER": 0.5}
    shown = render_table({"student": figures})
    assert shown.split()[:6] == ["MER", "%", "hi", "WER", "Latin", "WER"]
    card = K2DModelCardData(evaluations=[EvaluatedSet({"student": figures})])
    results = {one.metric_name: (one.metric_type, one.metric_value) for one in card._results()}
    assert results == {"Mixed error rate": ("mer", 20.0), "hi WER": ("wer", 0.0), "Latin WER": ("wer", 50.0)}


def test_figures_can_be_written_as_json_without_the_transcripts(recordings):
    figures = evaluate_model(ScriptedTranscriber(SCRIPT), recordings).figures()
    assert {"model", "mer", "zh_cer", "en_wer", "rtf", "parameters", "looping_outputs", "skipped"} <= set(figures)
    assert "transcripts" not in figures
    assert json.loads(json.dumps(figures)) == figures


def test_speed_may_be_that_of_the_first_recordings_and_errors_are_those_of_all(recordings):
    model, done = ScriptedTranscriber(SCRIPT, batch_size=1), []
    result = evaluate_model(model, recordings, speed_runs=3, speed_recordings=1, on_progress=done.append)
    assert model.calls == [WARM_UP, [3.0], [3.0], [3.0], [4.0]]
    assert len(result.rtf_runs) == 3
    whole = evaluate_model(ScriptedTranscriber(SCRIPT, batch_size=1), recordings)
    assert (result.transcripts, result.mer, result.audio_seconds) == (whole.transcripts, whole.mer, whole.audio_seconds)
    assert sum(done) == EvaluateSettings(speed_runs=3, speed_recordings=1).passes(2) == 4
    assert EvaluateSettings(speed_runs=3, speed_recordings=9).passes(2) == EvaluateSettings(speed_runs=3).passes(2) == 6


def test_a_language_without_references_has_no_rate(tmp_path):
    recordings = Dataset.from_list([{"recording": make(tmp_path, 3.0), "reference": "just English"}])
    result = evaluate_model(ScriptedTranscriber({3.0: [(0, 1, "just english")]}), recordings)
    assert (result.mer, result.zh_cer, result.en_wer) == (0.0, None, 0.0)


def test_speed_is_the_mean_over_the_runs(recordings):
    model, done = ScriptedTranscriber(SCRIPT, batch_size=1), []
    result = evaluate_model(model, recordings, speed_runs=3, on_progress=done.append)
    assert model.calls == [WARM_UP, *[[3.0], [4.0]] * 3]  # the warm-up is not timed
    assert len(result.rtf_runs) == 3
    assert all(factor > 0 for factor in result.rtf_runs)
    assert result.rtf == pytest.approx(sum(result.rtf_runs) / 3)
    assert sum(done) == 6  # each run moves the bar
    assert result.recordings == 2


def test_what_cannot_be_evaluated_is_named(recordings, tmp_path, caplog):
    (tmp_path / "bad.wav").write_text("not audio")
    speech = make(tmp_path, 4.0, "speech.wav")
    more = [(speech, None), (speech, ""), (speech, " ... "), (str(tmp_path / "bad.wav"), "a"), ("/nowhere.wav", "b")]
    rows = [*recordings, *({"recording": name, "reference": text} for name, text in more)]
    result = evaluate_model(ScriptedTranscriber(SCRIPT), Dataset.from_list(rows))
    assert result.recordings == 2
    assert result.mer == pytest.approx(4 / 15)
    assert [(entry["recording"], entry["reason"]) for entry in result.skipped] == [
        *[(speech, "no reference")] * 3,
        (str(tmp_path / "bad.wav"), "not audio"),
        ("/nowhere.wav", "no such file"),
    ]
    assert "skipped 5 of 7 recordings: 3 no reference, 1 not audio, 1 no such file" in caplog.text


def test_what_leaves_nothing_to_evaluate_is_an_error_before_any_model_runs(recordings, tmp_path):
    model = ScriptedTranscriber(SCRIPT)
    for rows, settings, message in [
        (
            recordings.remove_columns("reference"),
            {},
            "none of 2 recordings can be evaluated: each needs readable audio",
        ),
        (recordings.select([]), {}, "none of 0 recordings can be evaluated"),
        (recordings.rename_column("recording", "audio"), {}, "no column recording among audio, reference"),
        (recordings, {"speed_runs": 0}, "speed_runs 0: at least 1"),
        (recordings, {"speed_recordings": 0}, "speed_recordings 0: at least 1"),
    ]:
        with pytest.raises(K2DError, match=message):
            evaluate_model(model, rows, **settings)
    assert model.calls == []


@pytest.mark.parametrize(
    ("column", "setting", "languages"),
    [(["zh", None], None, ["zh", None]), (["zh", None], "ja", [None, None]), (None, None, [None, None])],
)
def test_the_language_is_the_one_asked_for_or_known(recordings, column, setting, languages):
    rows = recordings if column is None else recordings.add_column("language", column)
    model = ScriptedTranscriber(SCRIPT, language=setting)
    evaluate_model(model, rows)
    assert model.languages[1:] == languages


LOOP = "謝謝大家收看" * 6


@pytest.mark.parametrize(
    ("segments", "loops"),
    [
        ([], 0),
        ([(0, 5, LOOP)], 1),
        ([(0, 20, LOOP), (20, 29, LOOP), (31, 40, LOOP), (95, 96, "好")], 2),
        ([(5 * i, 5 * i + 5, "謝謝大家收看") for i in range(6)], 1),  # a loop of segments
        (
            [(30 * i, 30 * i + 5, "machine learning is fun") for i in range(20)],
            0,
        ),  # a favourite phrase in a long lecture
        ([(0, 30, "《" * 223)], 1),
        ([(0, 30, "《 " * 30), (30, 60, "♪" * 20), (60, 90, "-" * 5)], 2),
        ([(30 * i, 30 * i + 30, "《《《") for i in range(9)], 9),  # a few at a time, and nothing else
        ([(30 * i, 30 * i + 30, "《《《" + ("", "好")[i % 2]) for i in range(9)], 0),  # speech in between
        ([(0, 9, "好。"), (30, 39, "……"), (60, 69, "。。。"), (90, 99, "好！！！")], 0),
    ],
)
def test_loops_are_counted_in_windows_of_30_s(segments, loops):
    assert looping_windows([Segment(*segment) for segment in segments]) == loops


def test_loops_are_told_of_each_recording(recordings):
    result = evaluate_model(ScriptedTranscriber({**SCRIPT, 4.0: [(0.0, 4.0, LOOP)]}), recordings)
    assert [row["looping_windows"] for row in result.transcripts] == [0, 1]
    assert result.looping_outputs == 1


def test_what_an_error_rate_hides_is_told(tmp_path):
    """Han in an English set has no rate of its own, and marks are no tokens."""
    text = "we train a model"
    recordings = Dataset.from_list([{"recording": make(tmp_path, 3.0), "reference": text}])
    written = [(0, 1, text), (1, 2, "謝謝觀看"), (2, 3, "《" * 223)]
    result = evaluate_model(ScriptedTranscriber({3.0: written}), recordings)
    assert (result.zh_cer, result.en_wer, result.looping_outputs) == (None, 0.0, 1)
    assert result.figures()["insertions_by_script"] == {"Han": 4, "marks": 223}


def test_errors_where_the_language_changes_are_among_the_figures(tmp_path):
    recordings = Dataset.from_list([{"recording": make(tmp_path, 3.0), "reference": "我開 meeting 吧"}])
    result = evaluate_model(ScriptedTranscriber({3.0: [(0.0, 3.0, "我开会吧")]}), recordings)
    assert result.switching == result.figures()["switching"] == switching_of([("我開 meeting 吧", "我开会吧")])


def test_transcripts_name_what_a_data_set_calls_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    sounds = [Path(make(tmp_path, seconds)).read_bytes() for seconds in (3.0, 4.0, 5.0)] + [b"no sound"]
    for paths, names in [
        (["a.wav", "clips/b.wav", None, "c.wav"], ["a.wav", "b.wav", "row 2", "c.wav"]),
        ([None] * 4, [f"row {n}" for n in range(4)]),
        (["same.wav"] * 4, [f"same.wav (row {n})" for n in range(4)]),
    ]:
        audio = [{"bytes": content, "path": path} for content, path in zip(sounds, paths, strict=True)]
        recordings = load_recordings(Dataset.from_dict({"audio": audio, "text": ["a"] * 4}))
        result = evaluate_model(ScriptedTranscriber({}), recordings)
        assert [row["recording"] for row in result.transcripts] == names[:3]
        assert result.skipped == [{"recording": names[3], "reason": "not audio"}]


# Real models


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, processor):
    segments = (8.0, "我們用 GPU"), (20.0, "來 train 一個 model")
    return write_scripted_whisper(tmp_path_factory.mktemp("model"), processor, *segments)


@pytest.mark.parametrize("engine", ["transformers", "faster-whisper"])
def test_a_checkpoint_is_evaluated_long_form(model_dir, tmp_path, engine, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    reference = "我們用 GPU 來 train 一個 model " * 2
    rows = Dataset.from_list([{"recording": make(tmp_path, 55), "reference": reference}])
    result = evaluate_model([str(tmp_path / "nowhere"), str(model_dir)], rows, engine=engine, language="zh")
    assert (result.mer, result.reference_length, result.engine) == (0.0, 18, engine)
    assert result.model == str(model_dir)
    assert result.rtf > 0
    assert result.parameters > 3_000_000


def test_a_loaded_model_is_evaluated_with_its_processor(model_dir, processor, recordings):
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(model_dir)
    result = evaluate_model(model, recordings.select([0]), processor=processor, language="zh")
    assert (result.mer, result.parameters, result.model) == (0.0, model.num_parameters(), str(model_dir))
    with pytest.raises(K2DError, match="a loaded model needs its processor"):
        evaluate_model(model, recordings)


def test_a_checkpoint_that_is_nowhere_is_an_error(recordings):
    with pytest.raises(K2DError, match="/nowhere/at/all"):
        evaluate_model("/nowhere/at/all", recordings)
