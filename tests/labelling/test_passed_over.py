"""What a source holds and no recording is made of: named with its reason, counted in a warning, or no sound at all."""

import io
import json
import os
import re
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, load_from_disk
from far_files import put
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio.media import AUDIO_EXTENSIONS
from k2d_hf.audio.reader import ADVICE, AudioError, read_audio
from k2d_hf.cli import main
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.labelling.teacher import LabellingReport, label_recordings

SCRIPT = {7.0: [(0.0, 7.0, "七")], 3.0: [(0.0, 3.0, "三")]}
# Not audio, or not supported, whatever people call it: phones, meetings, video, broadcast, archives, tables.
NAMES = (
    *("a.m4a", "b.mp4", "c.webm", "d.aac", "e.wma", "f.MOV", "g.mkv", "h.amr", "i.3gp", "j.avi", "k.ts", "l.sph"),
    *("m.mka", "n.weba", "o.m4b", "p.flv", "q.mpg", "r.ogv", "s.ape", "t.wv", "u.ac3", "v.zip", "w.tar", "x.tar.gz"),
    *("y.7z", "z.parquet", "deep/er/a.rar", "M4A.M4A", "讲 座.m4a"),
)
SILENT = ("notes.txt", "about.json", "README", "README.md", "list.csv", "words.TextGrid", "a.srt", "b.png", "c.txt.gz")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)


def flac(seconds=7, seed=0):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(seed).standard_normal(seconds * 16000), 16000, format="FLAC")
    return file.getvalue()


@pytest.fixture(params=["disk", "address"])
def folder(request, tmp_path):
    """A lecture, and beside it all that it may lie among."""
    base = str(tmp_path / "in") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/in"
    files = dict.fromkeys(NAMES, b"not sound at all") | dict.fromkeys(SILENT, b"x") | {"good.flac": flac()}
    for name, content in files.items():
        if request.param == "disk":
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(content)
        else:
            put(f"{base}/{name}", content)
    return base


@pytest.mark.parametrize("streaming", [False, True])
def test_what_may_hold_sound_beside_a_recording_is_skipped_by_name(folder, streaming):
    recordings, report = load_recordings(folder, streaming=streaming), LabellingReport()
    chunks = label_recordings(recordings, ScriptedTranscriber(SCRIPT), report=report)
    assert chunks["text"][:] == ["七"]
    assert {entry["recording"]: entry["reason"] for entry in report.skipped} == {
        f"{folder}/{name}": "not audio" if name.lower().endswith(AUDIO_EXTENSIONS) else "not supported"
        for name in NAMES
    }
    assert report.recordings == len(NAMES) + 1
    assert all(entry["recording"] in entry["detail"] and "; convert it" in entry["detail"] for entry in report.skipped)


def test_they_are_listed_and_counted_by_the_command(tmp_path, workplace, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.flac").write_bytes((workplace / "recordings" / "two.flac").read_bytes())
    for name in ("film.mp4", "call.ape", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"not sound at all")
    engine = ["--engine", "transformers", "--beam-size", "1", "--condition-on-previous-text", "false"]
    teacher = ["--teacher", str(workplace / "teacher"), "--language", "Chinese"]
    assert main(["label", "in", *teacher, *engine, "--output", "out"]) == 0
    assert re.search(r"2 skipped, .*see out\.skipped\.jsonl", capsys.readouterr().out)
    skipped = [json.loads(line) for line in Path("out.skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    reasons = {os.path.basename(entry["recording"]): entry["reason"] for entry in skipped if "detail" in entry}
    assert reasons == {"film.mp4": "not audio", "call.ape": "not supported"}
    assert set(load_from_disk("out")["language"]) == {"zh"}


def test_a_file_whose_name_says_otherwise_and_that_can_be_read_is_a_recording(tmp_path):
    (tmp_path / "a.m4a").write_bytes(flac(3))
    (tmp_path / "b.flac").write_bytes(flac(7))
    chunks = label_recordings(load_recordings("."), ScriptedTranscriber(SCRIPT))
    assert chunks["text"][:] == ["三", "七"]


@pytest.mark.parametrize("name", ["a.ape", "b.dts", "c.RM", "d.zip"])
def test_the_reason_is_one_of_the_list_wherever_the_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not sound at all")
    with pytest.raises(AudioError) as caught:
        read_audio(tmp_path / name)
    assert caught.value.reason == "not supported"
    assert caught.value.reason in ADVICE
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": name}))
    report = LabellingReport()
    with pytest.raises(K2DError, match="none of 1 recordings could be labelled"):
        label_recordings(load_recordings("m.jsonl"), ScriptedTranscriber(SCRIPT), report=report)
    assert [entry["reason"] for entry in report.skipped] == ["not supported"]


@pytest.mark.parametrize(("path", "magic"), [("call.ape", b"MAC "), (None, b"PK\3\4")])
@pytest.mark.parametrize("streaming", [False, True])
def test_what_a_data_set_holds_and_cannot_be_read_is_skipped_for_the_same_reason(path, magic, streaming):
    audio = [
        {"bytes": magic + bytes(99), "path": path},
        {"bytes": flac(), "path": None},
        {"bytes": None, "path": None},
        None,
    ]
    data = Dataset.from_dict({"audio": audio}).cast_column("audio", Audio(decode=False))
    report = LabellingReport()
    recordings = load_recordings(data, streaming=streaming)
    assert label_recordings(recordings, ScriptedTranscriber(SCRIPT), report=report)["text"][:] == ["七"]
    assert [entry["reason"] for entry in report.skipped] == ["not supported", "no such file", "no such file"]
    assert report.recordings == 4


def test_samples_without_a_header_are_skipped_by_name_too(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac())
    for name in ("b.raw", "c.pcm", "d.vox"):
        (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(999))
    report = LabellingReport()
    label_recordings(load_recordings("."), ScriptedTranscriber(SCRIPT), report=report)
    assert [(os.path.basename(entry["recording"]), entry["reason"]) for entry in report.skipped] == [
        (name, "not audio") for name in ("b.raw", "c.pcm", "d.vox")
    ]


def test_rows_without_a_path_stay_and_are_skipped_with_their_line(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac())
    (tmp_path / "m.csv").write_text("audio,speaker\na.flac,x\n,y\n")
    report = LabellingReport()
    label_recordings(load_recordings("m.csv"), ScriptedTranscriber(SCRIPT), report=report)
    assert [entry["recording"] for entry in report.skipped] == [f"{tmp_path}/m.csv, line 3 (no path given)"]


def test_hidden_recordings_and_unknown_kinds_are_counted_in_a_warning(tmp_path, caplog):
    for name in ("a.flac", ".b.flac", ".cache/c.wav", ".cache/deep/d.mp4", "e/.f/g.wav", ".DS_Store", ".git/config"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(flac(3))
    for name in ("h.xyz", "i.xyz", "recording 1", *SILENT):
        (tmp_path / "in" / name).write_bytes(b"x")
    assert load_recordings("in")["recording"][:] == [f"{tmp_path}/in/a.flac"]
    assert "left out 4 hidden recordings: .b.flac, .cache/c.wav, .cache/deep/d.mp4 and 1 more" in caplog.text
    assert "left out what is no audio by its name: 2 .xyz, 1 recording 1" in caplog.text
    caplog.clear()
    list(load_recordings("in", streaming=True))
    assert "4 hidden recordings" in caplog.text


def test_a_folder_that_cannot_be_listed_is_skipped_by_name(tmp_path, monkeypatch):
    for name in ("in/a.flac", "in/shut/b.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(flac())
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/shut"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    report = LabellingReport()
    label_recordings(load_recordings("in"), ScriptedTranscriber(SCRIPT), report=report)
    assert [(entry["recording"], entry["reason"]) for entry in report.skipped] == [
        (f"{tmp_path}/in/shut", "not readable")
    ]


def test_finished_work_that_lies_beside_the_recordings_is_none(tmp_path):
    (tmp_path / "a.flac").write_bytes(flac())
    label_recordings(load_recordings("."), ScriptedTranscriber(SCRIPT), shards_dir=tmp_path / "out.resume")
    assert list(tmp_path.glob("out.resume/*.parquet"))
    assert load_recordings(".")["recording"][:] == [f"{tmp_path}/a.flac"]


def test_what_lies_beside_parquet_files_is_counted_in_a_warning(tmp_path, caplog):
    (tmp_path / "in" / "data").mkdir(parents=True)
    audio = [{"bytes": flac(), "path": "a.flac"}]
    data = Dataset.from_dict({"audio": audio}).cast_column("audio", Audio(decode=False))
    data.to_parquet(tmp_path / "in" / "data" / "train-00000-of-00001.parquet")
    with zipfile.ZipFile(tmp_path / "in" / "more.zip", "w") as archive:
        archive.writestr("b.flac", flac())
    (tmp_path / "in" / "c.ape").write_bytes(b"x")
    assert len(load_recordings("in")) == 1
    assert "its Parquet files are read, and not 1 .ape, 1 .zip beside them" in caplog.text.replace(
        "1 .zip, 1 .ape", "1 .ape, 1 .zip"
    )
