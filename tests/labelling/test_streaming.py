"""Recordings as a stream: the rows that loading gives, of every source, without holding it; and from addresses."""

import io
import json
import os
import pickle
import tracemalloc
import uuid

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, IterableDataset
from far_files import FarFileSystem, put

from k2d_hf.audio.reader import read_audio
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)


def flac(seed):
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(seed).standard_normal(1600), 16000, format="FLAC")
    return buffer.getvalue()


def embedded():
    audio = [{"bytes": flac(seed), "path": f"{seed}.flac"} for seed in (1, 2, 2, 3)]
    data = Dataset.from_dict({"audio": audio, "sentence": ["a", "b", "b", None], "language": ["zh"] * 4})
    return data.cast_column("audio", Audio(sampling_rate=16000))


def parquet():
    buffer = io.BytesIO()
    embedded().to_parquet(buffer)
    return buffer.getvalue()


JSONL = '\ufeff{"audio": "a b/空 🎧.wav", "text": "你好"}\r\n\r\n{"audio": "s3://b/x.wav"}\r\n{"audio": "a b/空 🎧.wav", "text": "你好"}\n'
CSV = 'path,text,language\r\n"空,1.wav","one, two\nthree",zh\r\n\r\n/x/b.wav,,\r\n'
FILES = {
    "manifest/m.jsonl": JSONL.encode(),
    "manifest/m.csv": CSV.encode(),
    "folder/b.flac": flac(1),
    "folder/a b/空\n🎧.wav": flac(2),
    "folder/.hidden.wav": flac(3),
    "folder/notes.txt": b"x",
    "parquet/data/train-00000-of-00001.parquet": parquet(),
}
SOURCES = {
    "manifest/m.jsonl": ["manifest/a b/空 🎧.wav", "s3://b/x.wav"],
    "manifest/m.csv": ["manifest/空,1.wav", "/x/b.wav"],
    "folder": ["folder/a b/空\n🎧.wav", "folder/b.flac"],
    "folder/b.flac": ["folder/b.flac"],
    "parquet": 3,
    "parquet/data/train-00000-of-00001.parquet": 3,
}


@pytest.fixture(params=["disk", "address"])
def base(request, tmp_path):
    if request.param == "address":
        address = f"memory://{uuid.uuid4().hex}"
        for name, content in FILES.items():
            put(f"{address}/{name}", content)
        return address
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return str(tmp_path)


@pytest.mark.parametrize("source", SOURCES)
def test_a_stream_has_the_rows_that_loading_gives_here_and_far_away(base, source):
    loaded, expected = load_recordings(f"{base}/{source}"), SOURCES[source]
    stream = load_recordings(f"{base}/{source}", streaming=True)
    assert isinstance(stream, IterableDataset)
    assert stream.column_names == loaded.column_names == ["recording", "reference", "language"]
    assert list(stream) == list(stream) == list(loaded)  # and again
    assert list(pickle.loads(pickle.dumps(stream))) == list(loaded)
    if expected == 3:
        assert [len(read_audio(row["recording"])) for row in stream] == [1600] * 3
    else:
        names = [name if "://" in name or name[0] == "/" else f"{base}/{name}" for name in expected]
        assert [row["recording"] for row in stream] == names


def raw(rows):
    return IterableDataset.from_generator(lambda: iter(rows))


@pytest.mark.parametrize(
    "source",
    [
        embedded(),
        embedded().to_iterable_dataset(),
        embedded().cast_column("audio", Audio(decode=False)).to_iterable_dataset(),
        raw([dict(row) for row in embedded().cast_column("audio", Audio(decode=False))]),
    ],
    ids=["data set", "decoding stream", "stream", "stream of unknown columns"],
)
def test_data_sets_and_streams_are_sources_of_streams(source, tmp_path):
    stream = load_recordings(source, streaming=True)
    assert not list((tmp_path / "cache" / "recordings").iterdir())[1:]  # unpacked when it is reached
    assert list(stream) == list(load_recordings(embedded()))


def test_a_stream_as_source_is_always_streamed():
    assert isinstance(load_recordings(raw([{"audio": "a.wav"}])), IterableDataset)


BAD_SOURCES = [
    ("m.jsonl", b"\n\n", "no rows"),
    ("m.jsonl", b'{"speech": "a.wav"}\n' * 2000, "no column with audio"),
    ("m.csv", b"name\na.wav\n", "no column with audio"),
    ("m.jsonl", b'{"audio": \n', "line 1: not JSON"),
    ("folder/notes.txt", b"x", "no audio in it"),
    ("m.txt", b"x", "neither audio"),
    ("gone/x", b"x", "no such file or folder"),
]


@pytest.mark.parametrize("kind", ["disk", "address"])
@pytest.mark.parametrize(("name", "content", "words"), BAD_SOURCES)
def test_a_source_that_cannot_be_used_is_known_at_once(tmp_path, name, content, words, kind):
    base = str(tmp_path) if kind == "disk" else f"memory://{uuid.uuid4().hex}"
    (tmp_path / "folder").mkdir()
    if kind == "disk":
        (tmp_path / name).write_bytes(content) if name != "gone/x" else None
    else:
        put(f"{base}/{name if name != 'gone/x' else 'other/x'}", content)
    source = f"{base}/{'folder' if name.startswith('folder') else name}"
    for streaming in (False, True):
        with pytest.raises(K2DError, match=words) as caught:
            load_recordings(source, streaming=streaming)
        assert "\n" not in str(caught.value)


GOOD = b'{"audio": "%d.wav", "text": "x"}\n'
BAD_LINES = [
    (b'{"audio": \n', "line 1501: not JSON"),
    (b"[" * 100_000 + b"\n", "line 1501: not JSON"),
    (b'{"audio": 3}\n', "line 1501: column `audio` is 3"),
    (b'{"audio": "7.wav", "text": "y"}\n', r"line 1501: .*7\.wav came before with another transcript"),
    (
        b'{"audio": "b.wav", "text": "\xe4"}\n',
        r"line 1501: the transcript is not UTF-8 .'\\\\udce4'.; save it as UTF-8",
    ),
]


@pytest.mark.parametrize(("line", "words"), BAD_LINES)
def test_a_broken_line_is_named_when_it_is_reached_as_it_is_at_once_without_a_stream(tmp_path, line, words):
    before = b"".join(GOOD % number for number in range(1500))
    (tmp_path / "m.jsonl").write_bytes(before + line + GOOD % 9999)
    with pytest.raises(K2DError, match=words):
        load_recordings("m.jsonl")
    rows = iter(load_recordings("m.jsonl", streaming=True))
    assert [next(rows)["recording"] for _ in range(1500)][-1].endswith("/1499.wav")
    with pytest.raises(K2DError, match=words) as caught:
        next(rows)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("content", [b"audio,text\nb\xe4d.wav,x\na.wav,y\n", b"audio,\xe4\nb\xe4d.wav,x\na.wav,y\n"])
def test_a_path_that_is_no_utf_8_is_named_and_the_others_stay(tmp_path, before, content):
    (tmp_path / "m.csv").write_bytes(before + content)
    named = [os.path.basename(name) for name in load_recordings("m.csv")["recording"]]
    assert named == ["b\\udce4d.wav", "a.wav"]


def test_a_line_without_end_is_an_error_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("k2d_hf.data.manifests.LONGEST_LINE", 1000)
    (tmp_path / "m.jsonl").write_bytes(b'{"audio": "' + b"a" * 5000)
    with pytest.raises(K2DError, match="line 1: longer than 1,000 bytes"):
        load_recordings("m.jsonl")


def test_a_network_that_breaks_is_one_clear_line():
    manifest = put("far://broken/m.jsonl", b"".join(GOOD % number for number in range(200_000)))
    FarFileSystem.begin(breaks_after=3_000_000)
    with pytest.raises(
        K2DError, match=r"far://broken/m.jsonl: it cannot be read .*ConnectionLost: peer went away"
    ) as one:
        load_recordings(manifest)
    assert "\n" not in str(one.value)


def test_names_that_are_no_utf_8_are_shown_and_stop_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    with open(bytes(tmp_path / "in") + b"/b\xe4d.wav", "wb") as file:
        file.write(flac(1))
    (tmp_path / "m.jsonl").write_text('{"audio": "\\ud800.wav"}\n{"audio": "a\\u0000b.wav"}\n')
    for streaming in (False, True):
        assert [row["recording"] for row in load_recordings("in", streaming=streaming)] == [
            f"{tmp_path}/in/b\\udce4d.wav"
        ]
        row, other = load_recordings("m.jsonl", streaming=streaming)
        assert row["recording"] == f"{tmp_path}/\\ud800.wav"
        assert other["recording"].startswith(f"{tmp_path}/a")


def test_memory_stays_flat_over_a_long_manifest(tmp_path):
    count, length = 5_000, 10_000
    with (tmp_path / "m.jsonl").open("w") as file:
        file.writelines(json.dumps({"audio": f"{n}.wav", "text": "a" * length}) + "\n" for n in range(count))
    stream = load_recordings("m.jsonl", streaming=True)
    tracemalloc.start()
    assert sum(1 for _ in stream) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * length / 3  # of which most are the lines in which columns are looked for
