"""Recordings from folders, manifests, files and data sets; every source that cannot be used says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, DatasetDict

from k2d_hf.audio.reader import read_audio
from k2d_hf.data.recording_rows import PATH_COLUMNS
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.files.cache import name_of_kept


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)


def make_audio(path, seed=0, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(1600), 16000, **kwargs)
    return path


def make_manifest(path, *rows):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def names(recordings, folder):
    return [os.path.relpath(name, folder) for name in recordings["recording"]]


# Folders and files


def test_a_folder_gives_its_audio_files_sorted_without_hidden_ones(tmp_path):
    for name in ["b.wav", "a/c.FLAC", "a/b.ogg", "z/y/x.mp3", ".hidden.wav", ".git/d.wav", "a/.e/f.wav"]:
        make_audio(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("ignored")
    (tmp_path / "in" / "a" / "loop").symlink_to(tmp_path / "in")
    recordings = load_recordings(tmp_path / "in")
    assert names(recordings, tmp_path / "in") == ["a/b.ogg", "a/c.FLAC", "b.wav", "z/y/x.mp3"]
    assert recordings.column_names == ["recording", "reference", "language"]
    assert recordings["reference"][:] == recordings["language"][:] == [None] * 4


def test_paths_are_absolute_and_a_file_alone_is_a_source(tmp_path):
    make_audio(tmp_path / "a.wav")
    assert load_recordings("a.wav")["recording"][:] == load_recordings(".")["recording"][:] == [str(tmp_path / "a.wav")]


def test_nothing_is_decoded(tmp_path):
    (tmp_path / "broken.wav").write_text("not audio")
    assert names(load_recordings(tmp_path), tmp_path) == ["broken.wav"]


# Manifests


@pytest.mark.parametrize("column", PATH_COLUMNS)
def test_a_jsonl_manifest_may_call_its_path_column(tmp_path, column):
    manifest = make_manifest(tmp_path / "m.jsonl", {column: "a/b.wav", "text": "你好 world", "language": "zh"})
    assert load_recordings(manifest)[:] == {
        "recording": [str(tmp_path / "a" / "b.wav")],
        "reference": ["你好 world"],
        "language": ["zh"],
    }


REFERENCES = [
    ({"reference": "a", "text": "b"}, "a"),
    ({"sentence": "c"}, "c"),
    ({"transcription": "d"}, "d"),
    ({"segments": [{"start": 0, "end": 1, "text": " 今天 "}, {"start": 1, "end": 2, "text": "good"}]}, "今天 good"),
    ({"text": None, "segments": [{"text": "e"}]}, "e"),
    ({"text": ""}, ""),
    ({"segments": []}, None),
    ({}, None),
]


@pytest.mark.parametrize(("row", "reference"), REFERENCES)
def test_the_reference_comes_from_the_usual_columns(tmp_path, row, reference):
    manifest = make_manifest(tmp_path / "m.jsonl", {"audio": "a.wav", **row})
    assert load_recordings(manifest)["reference"][:] == [reference]


CSV = [
    ("m.csv", "audio,text\na.wav,你好\nb.wav,\n", ["你好", None]),
    (
        "m.csv",
        '\ufeffpath,text\r\na.wav,"one, two\nthree"\r\n\r\nb.wav,"say ""hi"""\r\n',
        ["one, two\nthree", 'say "hi"'],
    ),
    ("m.tsv", "file\tsentence\na.wav\tx, y\nb.wav\tz\n", ["x, y", "z"]),
    ("m.jsonl", '\ufeff{"audio": "a.wav", "text": "p\u2028q"}\r\n\r\n{"audio": "b.wav"}\r\n', ["p\u2028q", None]),
]


@pytest.mark.parametrize(("name", "content", "references"), CSV)
def test_manifests_with_quotes_marks_and_blank_lines_are_read(tmp_path, name, content, references):
    (tmp_path / name).write_bytes(content.encode())
    recordings = load_recordings(tmp_path / name)
    assert names(recordings, tmp_path) == ["a.wav", "b.wav"]
    assert recordings["reference"][:] == references


def test_a_column_of_any_name_can_be_named(tmp_path):
    manifest = make_manifest(tmp_path / "m.jsonl", {"audio": "a.wav", "far field": "b.wav"})
    assert names(load_recordings(manifest, audio_column="far field"), tmp_path) == ["b.wav"]


def test_absolute_paths_stay_and_rows_without_a_file_are_left_to_labelling(tmp_path):
    manifest = make_manifest(tmp_path / "m.jsonl", {"audio": "/x/gone.wav"}, {"audio": None}, {"text": "no path"})
    assert load_recordings(manifest)["recording"][:] == [
        "/x/gone.wav",
        f"{manifest}, line 2 (no path given)",
        f"{manifest}, line 3 (no path given)",
    ]


def test_a_file_that_comes_twice_is_kept_once_with_a_warning(tmp_path, caplog):
    rows = [{"audio": "a.wav", "text": "x"}, {"audio": "./a.wav", "text": "x"}, {"audio": "b.wav"}]
    assert names(load_recordings(make_manifest(tmp_path / "m.jsonl", *rows)), tmp_path) == ["a.wav", "b.wav"]
    assert "1 rows" in caplog.text


# Data sets


def embedded(*paths, **columns):
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    return Dataset.from_dict({"audio": audio, **columns}).cast_column("audio", Audio(decode=False))


def decoding(data):
    return data.cast_column("audio", Audio(sampling_rate=16000))


def test_embedded_audio_is_copied_unchanged_and_once(tmp_path):
    paths = [make_audio(tmp_path / "a.wav", 1), make_audio(tmp_path / "b.flac", 2), make_audio(tmp_path / "c.mp3", 3)]
    data = decoding(embedded(*paths, sentence=["x", "y", None]))
    recordings, again = load_recordings(data), load_recordings(data)
    for name, path in zip(recordings["recording"], paths, strict=True):
        assert name.startswith(str(tmp_path / "cache"))
        assert name.endswith(path.suffix)
        assert Path(name).read_bytes() == path.read_bytes()
    assert recordings["reference"][:] == ["x", "y", None]
    assert recordings[:] == again[:]
    assert len(os.listdir(tmp_path / "cache" / "recordings")) == 3


@pytest.mark.parametrize(("extension", "kwargs"), [("wav", {}), ("flac", {}), ("ogg", {}), ("mp3", {}), ("aiff", {})])
def test_embedded_audio_without_a_name_gets_the_extension_of_its_content(tmp_path, extension, kwargs):
    content = make_audio(tmp_path / f"a.{extension}", **kwargs).read_bytes()
    data = Dataset.from_dict({"audio": [{"bytes": content, "path": None}]})
    assert load_recordings(data)["recording"][0].endswith(f".{extension}")
    assert load_recordings(Dataset.from_dict({"audio": [content]}))["recording"][0].endswith(f".{extension}")


def test_embedded_audio_keeps_the_name_that_the_data_set_has_for_it(tmp_path):
    contents = [make_audio(tmp_path / f"{level}.wav", level).read_bytes() for level in (1, 2, 3)]
    paths = [
        "clips/talk 1.5.wav",
        "/home/me/演講.wav",
        "zip://b.WAV::https://x.org/a.zip",
        "talk 1.5.wav",
        "c%2F.d",
        None,
    ]
    rows = [{"bytes": contents[n], "path": path} for n, path in zip((0, 1, 2, 1, 0, 2), paths, strict=True)]
    recordings = load_recordings(Dataset.from_list([{"audio": row} for row in rows]))["recording"][:]
    names = ["talk 1.5.wav", "演講.wav", "b.WAV", "talk 1.5.wav", "c%2F.wav", ""]
    assert list(map(name_of_kept, recordings)) == names
    assert len(set(recordings)) == 6
    assert name_of_kept(str(tmp_path / "1.wav")) is None


@pytest.mark.parametrize("shape", [(4000,), (2, 4000)])
def test_arrays_are_written_as_float_wav_under_a_name_that_stays(tmp_path, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    data = Dataset.from_dict({"audio": [{"array": array, "sampling_rate": 16000}], "text": ["你好"]})
    recordings = load_recordings(data)
    assert np.allclose(read_audio(recordings["recording"][0]), array if array.ndim == 1 else array.mean(axis=0))
    assert recordings["reference"][:] == ["你好"]
    os.remove(recordings["recording"][0])
    assert load_recordings(data)[:] == recordings[:]


def test_paths_in_a_data_set_are_taken_from_where_one_stands(tmp_path):
    for data in (
        Dataset.from_dict({"audio": ["a.wav"]}),
        Dataset.from_dict({"audio": ["a.wav"]}).cast_column("audio", Audio()),
        Dataset.from_dict({"speech": ["a.wav"], "id": [1]}).cast_column("speech", Audio()),
        load_recordings(Dataset.from_dict({"audio": ["a.wav"]})),
    ):
        assert names(load_recordings(data), tmp_path) == ["a.wav"]


def test_rows_without_audio_are_left_to_labelling():
    data = Dataset.from_dict({"audio": ["a.wav", None]}).cast_column("audio", Audio())
    assert load_recordings(data)["recording"][1] == "the data set, row 1 (no audio given)"


def test_saved_and_parquet_data_sets_are_recognised(tmp_path):
    path = make_audio(tmp_path / "a.wav")
    data = decoding(embedded(path, text=["x"]))
    data.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": data}).save_to_disk(tmp_path / "saved_splits")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    data.to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    expected = load_recordings(data)[:]
    for name in ("saved", "saved_splits", "hub"):
        assert load_recordings(tmp_path / name)[:] == expected


def test_the_split_can_be_given_and_must_be_where_there_are_several(tmp_path):
    data = DatasetDict({name: Dataset.from_dict({"audio": [f"{name}.wav"]}) for name in ("train", "dev")})
    assert names(load_recordings(data, split="dev"), tmp_path) == ["dev.wav"]
    for split in (None, "test"):
        with pytest.raises(K2DError, match="train, dev"):
            load_recordings(data, split=split)


def test_a_class_label_of_languages_gives_their_names():
    data = Dataset.from_dict({"audio": ["a.wav"], "language": [1]}).cast_column(
        "language", ClassLabel(names=["en", "zh"])
    )
    assert load_recordings(data)["language"][:] == ["zh"]


# What cannot be used


def bad(name, content, *words):
    return pytest.param(name, content, words, id=f"{name}: {words[0]}")


BAD_FILES = [
    bad("m.jsonl", b'{"audio": "a.wav"}\n{"audio": \n', "line 2", "not JSON"),
    bad("m.jsonl", b'["a.wav"]', "line 1", "not a JSON object"),
    bad("m.jsonl", b'{"speech": "a.wav", "id": 1}', "no column with audio", "speech, id", "audio_filepath"),
    bad("m.jsonl", b'{"audio": 3}', "line 1", "is 3"),
    bad("m.jsonl", b'{"audio": "a.wav", "text": 42}', "line 1", "the transcript is 42"),
    bad("m.jsonl", b'{"audio": "a.wav", "segments": ["x"]}', "line 1", "`segments`"),
    bad("m.jsonl", b'{"audio": "a.wav", "text": "x"}\n{"audio": "a.wav", "text": "y"}', "line 2", "another transcript"),
    bad("m.jsonl", b"\n\n", "no rows"),
    bad("m.csv", b"", "no rows"),
    bad("m.csv", b"audio,text\n", "no rows"),
    bad("m.csv", b"name,text\na.wav,x\n", "no column with audio", "name, text"),
    bad("m.csv", b'audio,text\na.wav,"x\n', "not CSV"),
    bad("m.csv", "audio,text\na.wav,你好".encode("gbk"), "line 2", "the transcript is not UTF-8"),
    bad("film.ape", b"x", "neither audio", ".flac"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_FILES)
def test_a_file_that_cannot_be_used_says_where_and_why(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(K2DError) as caught:
        load_recordings(tmp_path / name)
    assert all(word in str(caught.value) for word in (name, *words)), caught.value
    assert "\n" not in str(caught.value)


def test_a_folder_without_audio_says_what_it_holds(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(K2DError, match="no audio in it"):
        load_recordings(tmp_path / "in")
    for name in ("a.ape", "b.ape", "c.txt"):
        (tmp_path / "in" / name).write_text("x")
    with pytest.raises(K2DError, match=r"2 \.ape, 1 \.txt"):
        load_recordings("in")


@pytest.mark.parametrize("source", ["", "gone.wav", "/x/y/gone", "./a/b/c", 3, None, ["a.wav"], ("a", "b")])
def test_what_is_no_source_says_what_is_one(source):
    with pytest.raises(K2DError, match="give a folder of audio files"):
        load_recordings(source)


BAD_DATA = [
    (Dataset.from_dict({"audio": []}), "no rows"),
    (Dataset.from_dict({"speech": ["a.wav"]}), "no column with audio"),
    (Dataset.from_dict({"audio": [1, 2]}), "holds no audio"),
    (Dataset.from_dict({"audio": ["a.wav"], "language": [1]}), "the language is 1"),
]


@pytest.mark.parametrize(("data", "words"), BAD_DATA)
def test_a_data_set_that_cannot_be_used_says_why(data, words):
    with pytest.raises(K2DError, match=words):
        load_recordings(data)


def test_a_hub_id_that_cannot_be_had_says_how_to_give_a_local_path(tmp_path):
    # In a process of its own: being offline is a setting of the whole process.
    code = "from k2d_hf.data.recordings import load_recordings; load_recordings('nobody/no-such-data')"
    settings = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, timeout=60
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert "K2DError: data set nobody/no-such-data: it cannot be loaded" in last
    assert "give the path of a local copy" in last
