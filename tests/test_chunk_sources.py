"""Chunks as the stages after labelling read them: saved, as Parquet with the audio inside, as a stream, far away."""

import io
import uuid

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset, DatasetDict, IterableDataset
from far_files import put

from k2d_hf.data.chunk_audio import read_chunk
from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.errors import K2DError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


def sound(seed):
    return np.random.default_rng(seed).integers(-9999, 9999, 1600 * seed).astype(np.int16)


def self_contained():
    """What `k2d push --data` writes: the chunks of two recordings, each with its audio."""
    rows = []
    for seed in (1, 2, 3):
        content = io.BytesIO()
        soundfile.write(content, sound(seed), 16000, format="FLAC")
        audio = {"bytes": content.getvalue(), "path": f"a_{seed}.flac"}
        segments = [{"start": 0.0, "end": 0.1, "text": "你好"}]
        row = {"audio": audio, "recording": "a.flac", "start": float(seed), "duration": 0.1 * seed, "text": "你好"}
        rows.append(row | {"segments": segments, "previous_text": None, "keep": True, "distance": 0.1})
    return Dataset.from_list(rows).cast_column("audio", Audio(sampling_rate=16000))


def write_parquet(base):
    for index in range(3):
        content = io.BytesIO()
        self_contained().select([index]).to_parquet(content)
        put(f"{base}/data/train-{index:05d}-of-00003.parquet", content.getvalue())
    put(f"{base}/README.md", b"---\n---\n")


@pytest.fixture(params=["saved", "disk", "address", "file"])
def source(request, tmp_path):
    if request.param == "saved":
        self_contained().save_to_disk(tmp_path / "chunks")
        return tmp_path / "chunks"
    if request.param == "file":
        self_contained().to_parquet(tmp_path / "chunks.parquet")
        return tmp_path / "chunks.parquet"
    base = f"memory://{uuid.uuid4().hex}" if request.param == "address" else f"file://{tmp_path}/chunks"
    (tmp_path / "chunks" / "data").mkdir(parents=True)
    write_parquet(base)
    return base.removeprefix("file://")


def test_chunks_are_the_same_whole_or_streamed_and_nothing_decodes_them(source):
    loaded, stream = load_chunks(source), load_chunks(source, streaming=True)
    expected = list(self_contained().cast_column("audio", Audio(decode=False)))
    assert isinstance(loaded, Dataset)
    assert isinstance(stream, IterableDataset)
    assert list(loaded) == list(stream) == list(stream) == expected
    for seed, chunk in enumerate(stream, start=1):
        assert np.array_equal(read_chunk(chunk) * 2**15, sound(seed))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("base", ["disk", "memory://nothing"])
def test_what_is_no_data_set_of_chunks_says_so(tmp_path, base, streaming):
    base = str(tmp_path) if base == "disk" else base
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("this is none")
    put("memory://nothing/text.parquet", b"this is none")
    for name in ("gone", "empty", "text.parquet"):
        with pytest.raises(K2DError, match=f"{name}: no data set of chunks") as caught:
            load_chunks(f"{base}/{name}", streaming=streaming)
        assert "\n" not in str(caught.value)


def test_several_splits_are_an_error_that_names_them(tmp_path):
    data = self_contained()
    DatasetDict({"train": data, "dev": data}).save_to_disk(tmp_path / "chunks")
    with pytest.raises(K2DError, match="several data sets of chunks, train, dev"):
        load_chunks(tmp_path / "chunks")


def test_an_address_of_an_unknown_kind_says_so():
    with pytest.raises(K2DError, match=r"nosuchkind://a: cannot be reached \(Protocol not known"):
        load_chunks("nosuchkind://a")
