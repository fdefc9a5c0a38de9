"""Validated chunks on the Hub as a data set of their own: what a stranger loads, and what of this machine stays here."""

import base64
import io

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from fresh_process import PythonProcess, run_python
from hub_server import WRITER, LocalHub, serving
from pyarrow import parquet

from k2d_hf.audio.reader import read_audio
from k2d_hf.errors import K2DError
from k2d_hf.publishing import data_set
from k2d_hf.publishing.data_set import open_chunks, write_data_set

TEXTS = ("我們用 GPU", " train 一個 model", "對", "dropped", "another 檔案")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home-of-the-user")


@pytest.fixture(scope="module")
def rows(home):
    """Chunks of two recordings of one name, at 16 and 44.1 kHz; the fourth was dropped."""
    paths = []
    for folder, rate in (("a", 16000), ("b", 44100)):
        (home / folder).mkdir()
        paths.append(str(home / folder / "talk.wav"))
        soundfile.write(paths[-1], np.random.default_rng(rate).normal(0, 0.1, 20 * rate), rate)
    rows = []
    for index, text in enumerate(TEXTS):
        keep = text != "dropped"
        row = {"recording": paths[index // 4], "start": 2.5 * index, "duration": 2.5, "text": text, "language": "zh"}
        row |= {
            "segments": [{"start": 0.0, "end": 2.5, "text": text}],
            "previous_text": TEXTS[index - 1] if index else None,
        }
        row |= {"auxiliary_text": text, "distance": 0.0 if keep else 0.9, "keep": keep}
        row |= {"drop_reason": None if keep else "distance > 0.40", "teacher_top_ids": [[1]], "my_path": paths[0]}
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def chunks(home, rows):
    """The folder that validation wrote."""
    Dataset.from_list(rows).save_to_disk(str(home / "validated"))
    return home / "validated"


@pytest.fixture(scope="module")
def hub():
    hub = LocalHub()
    with serving(hub):
        yield hub


@pytest.fixture(scope="module")
def python(hub, tmp_path_factory):
    with PythonProcess(tmp_path_factory.mktemp("client"), HF_ENDPOINT=hub.address, HF_TOKEN=WRITER) as python:
        yield python


@pytest.fixture(scope="module")
def pushed(hub, python, chunks):
    """The repository after a push by command, and the output of the command."""
    code = f"from k2d_hf.cli import main\nresult = main(['push', '--data', {str(chunks)!r}, '--repo-id', 'me/talks'])"
    done = python.run(code)
    assert done.result == 0, done.said
    return hub.repository("me/talks", "dataset"), done.said


def test_a_stranger_loads_it_and_decodes_its_audio(pushed, hub, rows, tmp_path):
    repository, output = pushed
    assert output.startswith("push ")
    assert f"4/4 chunks      2 of 2 files to {hub.address}/datasets/me/talks (private, commit" in output
    code = """
import base64
from datasets import Audio, load_dataset
loaded = load_dataset("me/talks", split="train")
kind = repr(loaded.features["audio"])
loaded = loaded.cast_column("audio", Audio(decode=False))
rows = [{**row, "audio": {**row["audio"], "bytes": base64.b64encode(row["audio"]["bytes"]).decode()}} for row in loaded]
result = [kind, loaded.column_names, rows]
"""
    (kind, names, loaded), _ = run_python(code, tmp_path, HF_ENDPOINT=hub.address, HF_TOKEN=WRITER)
    assert kind.startswith("Audio(sampling_rate=16000")
    assert names == ["audio", "recording", "start", "duration", "segments", "text", "previous_text", "language",
                     "auxiliary_text", "distance", "keep", "drop_reason"]  # fmt: skip
    kept = [row for row in rows if row["keep"]]
    assert [row["text"] for row in loaded] == [row["text"] for row in kept]
    assert [row["recording"] for row in loaded] == ["talk.wav"] * 3 + ["talk-2.wav"]
    assert [row["segments"] for row in loaded] == [row["segments"] for row in kept]
    for row, original in zip(loaded, kept, strict=True):
        sound, rate = soundfile.read(io.BytesIO(base64.b64decode(row["audio"]["bytes"])), dtype="float32")
        expected = read_audio(original["recording"], original["start"], original["duration"])
        assert rate == 16000
        assert np.abs(sound - expected).max() < 1 / 32768
    assert loaded[0]["audio"]["path"] == "talk_000000000.flac"


def test_nothing_of_the_machine_is_in_it(pushed, home):
    for content in pushed[0].contents().values():
        assert home.name.encode() not in content
    assert pushed[0].private


def test_the_card_says_how_much_and_why_not_more(pushed):
    card = pushed[0].contents()["README.md"].decode()
    info = pushed[0].info(pushed[0].log()[0])["cardData"]
    assert info["language"] == ["en", "zh"]  # of code-switched labels
    assert info["task_categories"] == ["automatic-speech-recognition"]
    assert info["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert "license" not in info
    for line in ("| chunks | 4 |", "| speech | 0.2 min of 0.2 min labelled |", "| dropped by validation | 1 distance > 0.40 |",
                 "| `drop_reason` | why it was not |", 'load_dataset("me/talks", split="train")'):  # fmt: skip
        assert line in card
    assert "| `per` |" not in card  # these chunks have none


def test_pushed_again_it_makes_no_commit(pushed, python, chunks):
    code = f"result = main(['push', '--data', {str(chunks)!r}, '--repo-id', 'me/talks'])"
    assert "/datasets/me/talks (private) is up to date" in python.run(code).said
    assert len(pushed[0].titles()) == 1


def test_on_a_branch_the_card_loads_the_branch_and_what_is_private_becomes_public_where_asked(pushed, python, chunks):
    code = (
        f"result = main(['push', '--data', {str(chunks)!r}, '--repo-id', 'me/talks', '--revision', 'v2', '--public'])"
    )
    output = python.run(code).said
    assert "/datasets/me/talks (public, which it was not before, commit" in output
    assert not pushed[0].private
    assert 'load_dataset("me/talks", revision="v2", split="train")' in pushed[0].contents("v2")["README.md"].decode()
    pushed[0].private = True


def test_fewer_files_than_before_leave_none_of_the_old(pushed, python, hub, chunks):
    old = {
        "data/train-00000-of-00002.parquet": b"old",
        "data/train-00001-of-00002.parquet": b"old",
        "data/notes.csv": b"x",
    }
    pushed[0].commit("an older one", old)
    assert python.run(f"result = main(['push', '--data', {str(chunks)!r}, '--repo-id', 'me/talks'])").result == 0
    assert sorted(pushed[0].contents()) == ["README.md", "data/notes.csv", "data/train-00000-of-00001.parquet"]


def test_files_are_bounded_and_hold_every_chunk_once(chunks, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "SHARD_BYTES", 100_000)
    monkeypatch.setattr(data_set, "ROWS_AT_ONCE", 1)
    seen = []
    files = write_data_set(
        open_chunks(chunks, kept_only=False),
        tmp_path,
        repo_id="me/x",
        facts={"teacher": "big"},
        on_progress=seen.append,
    )
    shards = [path for path in files if path.endswith(".parquet")]
    assert shards == [f"data/train-{index:05d}-of-00003.parquet" for index in range(3)]
    texts = [text for path in shards for text in parquet.read_table(files[path], columns=["text"])["text"].to_pylist()]
    assert texts == list(TEXTS)
    assert sum(seen) == 5
    card = files["README.md"].read_text(encoding="utf-8")
    assert "| teacher | big |" in card
    assert "with `keep` false" in card


def test_a_chunk_without_audio_is_left_out_and_counted(rows, tmp_path, caplog):
    gone = [{**rows[0], "recording": str(tmp_path / "gone.wav")}, rows[1]]
    Dataset.from_list(gone).save_to_disk(str(tmp_path / "chunks"))
    (tmp_path / "out").mkdir()
    files = write_data_set(open_chunks(tmp_path / "chunks"), tmp_path / "out", repo_id="me/x", facts={})
    assert "left out 1 of 2 chunks; the first: " in caplog.text
    assert "| chunks | 1 |" in files["README.md"].read_text(encoding="utf-8")
    Dataset.from_list(gone[:1]).save_to_disk(str(tmp_path / "lost"))
    with pytest.raises(K2DError, match="^none of 1 chunks has audio any more; the first: .*gone.wav: no such file"):
        write_data_set(open_chunks(tmp_path / "lost"), tmp_path / "out", repo_id="me/x", facts={})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"keep": False}, "none of 1 chunks is kept, so there is nothing to push"),
        ({"keep": None}, "no column keep; give what k2d validate wrote"),
    ],
)
def test_what_was_not_validated_is_refused(rows, tmp_path, change, line):
    row = {name: value for name, value in (rows[0] | change).items() if value is not None}
    Dataset.from_list([row]).save_to_disk(str(tmp_path / "chunks"))
    with pytest.raises(K2DError, match=line):
        open_chunks(tmp_path / "chunks")


def test_without_room_nothing_is_written(chunks, tmp_path, monkeypatch):
    monkeypatch.setattr(data_set, "FLAC_BYTES_A_SECOND", 1e15)
    with pytest.raises(K2DError, match="GB are needed for a while, .* are free; set TMPDIR to a folder with more room"):
        write_data_set(open_chunks(chunks), tmp_path, repo_id="me/x", facts={})
    assert list(tmp_path.iterdir()) == []
