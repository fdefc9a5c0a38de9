"""Utterances joined to long recordings: order, audio, references, and the cache."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import load_recipe
from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.evaluation.long_form import load_long_form
from k2d_hf.files.cache import name_of_kept

UTTERANCES = [  # session, value of its samples, seconds, text, language
    (7, 0.1, 1.0, "今天講 machine", "mixed"),
    (3, 0.2, 0.5, "你好", "zh"),
    (7, 0.3, 2.0, "learning", "mixed"),
    (3, 0.4, 0.5, "everyone", "zh"),
    (7, 0.5, 1.0, "", "mixed"),  # nothing to count it against
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def utterances(tmp_path):
    """A data set as the Hub has them: audio, transcription, session_id; on disk, its audio embedded."""
    rows = []
    for index, (session, value, seconds, text, language) in enumerate(UTTERANCES):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, np.full(round(seconds * SAMPLE_RATE), value), SAMPLE_RATE)
        audio = {"bytes": path.read_bytes(), "path": path.name}
        rows.append({"audio": audio, "transcription": text, "session_id": session, "language": language})
    Dataset.from_list(rows).cast_column("audio", Audio(decode=False)).save_to_disk(tmp_path / "utterances")
    return tmp_path / "utterances"


def levels(path):
    """The values of the samples, in order, with how many seconds each lasts."""
    audio = read_audio(path)
    edges = [0, *(np.flatnonzero(np.abs(np.diff(audio)) > 0.01) + 1), len(audio)]
    return [
        (round(float(audio[a]), 1), round((b - a) / SAMPLE_RATE, 2)) for a, b in zip(edges, edges[1:], strict=False)
    ]


def test_utterances_of_a_session_are_joined_in_order(utterances):
    joined = load_long_form(str(utterances), join_by="session_id")
    assert joined.column_names == ["recording", "reference", "language"]
    assert joined["reference"][:] == ["今天講 machine learning", "你好everyone"]
    assert joined["language"][:] == ["mixed", "zh"]
    assert [levels(path) for path in joined["recording"]] == [[(0.1, 1.0), (0.3, 2.0)], [(0.2, 0.5), (0.4, 0.5)]]


def test_transcripts_name_the_session(utterances):
    recordings = load_long_form(str(utterances), join_by="session_id")
    seconds = (3.0, 1.0)
    transcripts = {one: [(0, one, text)] for one, text in zip(seconds, recordings["reference"][:], strict=True)}
    result = evaluate_model(ScriptedTranscriber(transcripts), recordings)
    assert [row["recording"] for row in result.transcripts] == ["7", "3"]
    assert result.mer == 0.0


@pytest.mark.parametrize("session", ["CS 101/3", "../up", ".hidden", "演講 1.5", "50%2F", "a" * 400, "x\x00y"])
def test_a_session_may_be_called_anything(tmp_path, utterances, session):
    line = json.dumps({"audio": "0.wav", "text": "a", "session": session})
    (tmp_path / "dev.jsonl").write_text(line, encoding="utf-8")
    (recording,) = load_long_form(tmp_path / "dev.jsonl", join_by="session")["recording"]
    assert recording.startswith(str(tmp_path / "cache" / "long-form"))
    assert len(Path(recording).relative_to(tmp_path / "cache").parts) == 2
    assert len(read_audio(recording)) == SAMPLE_RATE
    assert name_of_kept(recording) == session[: len(name_of_kept(recording))]
    assert len(name_of_kept(recording)) >= min(len(session), 170)


@pytest.mark.parametrize("why", ["no such file", "not audio", "empty file", "not a file"])
def test_a_session_with_a_file_that_cannot_be_read_is_left_out_by_name(tmp_path, utterances, why, caplog):
    names = ("a", 0), ("b", 1), ("a", 2), ("c", 3)
    lines = [{"audio": f"{n}.wav", "text": "word", "session": session} for session, n in names]
    lines.append({"audio": "0.wav", "text": " ", "session": "silent"})
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    broken = tmp_path / "2.wav"
    broken.unlink()
    if why in ("not audio", "empty file"):
        broken.write_bytes(b"" if why == "empty file" else b"no sound")
    if why == "not a file":
        broken.mkdir()
    joined = load_long_form(tmp_path / "dev.jsonl", join_by="session")
    assert [name_of_kept(path) for path in joined["recording"]] == ["b", "c"]
    assert "left out 1 of 5 utterances: no reference" in caplog.text
    assert f"left out recordings that cannot be joined, 1 of 3: a (utterance {broken}: {why}" in caplog.text
    both = [name_of_kept(path) for path in load_long_form(tmp_path / "dev.jsonl", join_by="session")["recording"]]
    assert both == ["b", "c"], "what was kept does not hide what is missing"


def test_where_no_session_is_left_one_line_says_so(tmp_path, utterances):
    lines = [{"audio": f"gone{n}.wav", "text": "word", "session": n} for n in range(30)]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(K2DError, match="no recording can be joined, 30 of 30: 0 .*no such file") as error:
        load_long_form(tmp_path / "dev.jsonl", join_by="session")
    assert "\n" not in str(error.value)


def test_a_pause_comes_between_them(utterances):
    joined = load_long_form(str(utterances), join_by="session_id", join_pause=0.25)
    assert levels(joined["recording"][1]) == [(0.2, 0.5), (0.0, 0.25), (0.4, 0.5)]


def test_what_was_joined_is_kept(utterances, monkeypatch):
    first = load_long_form(str(utterances), join_by="session_id")["recording"][:]
    monkeypatch.setattr("k2d_hf.evaluation.long_form.read_audio", None)  # a second reading would fail
    assert load_long_form(str(utterances), join_by="session_id")["recording"][:] == first


def test_without_a_column_to_join_by_recordings_are_as_they_come(utterances):
    assert len(load_long_form(str(utterances))) == len(UTTERANCES)


def test_a_manifest_serves_too_and_its_column_may_be_called_file(tmp_path, utterances):
    lines = [
        {"audio": f"{n}.wav", "text": text, "file": name}
        for n, text, name in ((1, "b", "y"), (0, "a", "x"), (3, "c", "y"))
    ]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    joined = load_long_form(tmp_path / "dev.jsonl", join_by="file")
    assert joined["reference"][:] == ["b c", "a"]
    assert levels(joined["recording"][0]) == [(0.2, 0.5), (0.4, 0.5)]


@pytest.mark.parametrize(
    ("lines", "join_by", "words"),
    [
        ([{"audio": "0.wav", "text": "a"}], "session", "line 1: nothing in column session"),
        ([{"audio": "0.wav", "session": 1}], "session", "none of 1 utterances has a reference"),
        ([{"audio": "nowhere.wav", "text": "a", "session": 1}], "session", "to join utterances every one is needed"),
    ],
)
def test_what_cannot_be_joined_is_named(tmp_path, utterances, lines, join_by, words):
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    with pytest.raises(K2DError, match=words):
        load_long_form(tmp_path / "dev.jsonl", join_by=join_by)


def test_the_recipe_and_the_command_take_it(tmp_path, utterances, capsys):
    recipe = f"name: x\nrecordings: {utterances}\nteacher: a/b\nauxiliary: teacher\nevaluation: {{source: {utterances}, join_by: session_id}}\n"
    (tmp_path / "x.yaml").write_text(recipe, encoding="utf-8")
    assert load_recipe(tmp_path / "x.yaml").evaluation.join_by == "session_id"
    assert main(["evaluate", "nowhere", "--data", str(utterances), "--join-by", "topic"]) == 1
    assert "nothing in column topic" in capsys.readouterr().err
