"""Rows go to data sets on disk and come back the same, whole or not at all."""

import gc

import numpy as np
import pyarrow
import pytest
from datasets import Dataset, Features, List, Value, load_dataset, load_from_disk
from full_disk import files_of_at_most

from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import dataset_of, join_files, opened_files, write_file, write_rows

TEXT = Features({"text": Value("string")})
NUMBERS = Features({"n": Value("int64"), "states": List(List(Value("float16"), length=2))})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The package's cache, which is empty."""
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def batches(count, *, words=1000):
    """Ten batches of rows."""
    for at in range(0, count, count // 10):
        yield [{"text": f"{n} " * words, "left away": 1} for n in range(at, at + count // 10)]


def test_rows_lie_on_disk_and_outlive_their_file(tmp_path, cache):
    before = pyarrow.total_allocated_bytes()
    rows = dataset_of(batches(1000), TEXT)
    assert rows.data.nbytes > 3_000_000
    assert pyarrow.total_allocated_bytes() - before < 300_000
    assert list((cache / "scratch").iterdir()) == []
    part = rows.select([1, 5]).rename_column("text", "t")
    rows.save_to_disk(tmp_path / "saved")
    del rows
    gc.collect()
    assert part["t"][:] == ["1 " * 1000, "5 " * 1000]
    assert load_from_disk(str(tmp_path / "saved"))[999]["text"] == "999 " * 1000


@pytest.mark.parametrize("nothing", [[], [[]], [[], []]])
def test_no_rows_at_all(cache, nothing):
    rows = dataset_of(nothing, TEXT)
    assert (rows.features, len(rows)) == (TEXT, 0)


def test_a_disk_too_small_is_one_line_and_leaves_nothing(cache):
    with (
        files_of_at_most(10_000),
        pytest.raises(K2DError, match=r"scratch: no room on its disk \(.*free\); .*K2D_CACHE"),
    ):
        dataset_of(batches(1000), TEXT)
    assert list((cache / "scratch").iterdir()) == []


def test_an_error_comes_through_and_leaves_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        dataset_of(([{"text": str(1 // n)}] for n in (1, 0)), TEXT)
    assert list((cache / "scratch").iterdir()) == []


def test_what_is_written_replaces_what_was_there(tmp_path):
    rows = Dataset.from_dict({"n": list(range(7))})
    for output in (tmp_path / "out", "memory://test-arrow/out"):
        write_rows(rows.select(range(3)), output)
        write_rows(rows, output)
        read = (
            load_from_disk(output)
            if output == tmp_path / "out"
            else load_dataset("parquet", data_files=f"{output}/*.parquet", split="train", streaming=True)
        )
        assert [row["n"] for row in read] == list(range(7))


def test_a_full_disk_says_what_is_missing_and_keeps_what_was_there(tmp_path):
    write_rows(Dataset.from_dict({"n": [1]}), tmp_path / "out")
    many = Dataset.from_dict({"n": list(range(10_000))})
    message = r"out: no room on its disk \(.*: it takes 144 kB, .* free\); free some"
    with files_of_at_most(20_000), pytest.raises(K2DError, match=message):
        write_rows(many, tmp_path / "out")
    assert load_from_disk(str(tmp_path / "out"))["n"][:] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_join_to_a_data_set_without_a_copy(tmp_path):
    files = [tmp_path / "parts" / f"{at}.arrow" for at in range(3)]
    states = [np.full((at, 2), at, np.float16) for at in range(6)]
    for at, file in enumerate(files):
        write_file({"n": [2 * at, 2 * at + 1], "states": states[2 * at : 2 * at + 2]}, NUMBERS, file)
    join_files(files, NUMBERS, tmp_path / "out")
    assert sum(file.stat().st_nlink for file in files) == 6
    opened = opened_files(files, NUMBERS)
    for file in files:
        file.unlink()
    for rows in (load_from_disk(str(tmp_path / "out")), opened):
        assert rows.features == NUMBERS
        assert rows["n"][:] == list(range(6))
        assert [np.asarray(row).tolist() for row in rows["states"]] == [row.tolist() for row in states]
    assert len(opened_files([], NUMBERS)) == 0
