"""Finished work survives: whatever a run left in its journal, the next one reads back, and never another's."""

import gc
import json
import os
import resource
import tracemalloc
from contextlib import contextmanager

import pyarrow
import pytest
from datasets import Dataset, Features, Value, load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal, file_key, map_rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab我", max_size=3), inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), VALUES, max_size=5)


@given(ENTRIES)
def test_what_is_written_is_read_back(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("journal") / "deep" / "j.jsonl"
    journal = Journal(path)
    for key, value in entries.items():
        journal.write(key, value)
    for read in (journal, Journal(path)):
        assert len(read) == len(entries)
        assert {key: read[key] for key in entries if key in read} == entries


@given(st.integers(0, 400))
def test_a_journal_torn_anywhere_keeps_its_whole_lines_and_goes_on(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    whole = Journal(path, settings={"model": "a"})
    for index in range(5):
        whole.write(f"錄音{index}", {"text": "今天講 machine learning", "n": index})
    path.write_bytes(path.read_bytes()[:cut])
    torn = Journal(path, settings={"model": "a"})
    known = [index for index in range(5) if f"錄音{index}" in torn]
    assert known == list(range(len(known)))
    for index in range(len(known), 5):
        torn.write(f"錄音{index}", {"text": "今天講 machine learning", "n": index})
    again = Journal(path, settings={"model": "a"})
    assert [again[f"錄音{index}"]["n"] for index in range(5)] == list(range(5))


@given(st.lists(st.tuples(st.sampled_from("abc我"), VALUES | st.just("reopen")), max_size=12))
def test_reading_between_writes_gives_what_was_written_last(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("journal") / "j.jsonl"
    journal, expected = Journal(path, settings={"model": "a"}), {}
    for key, value in steps:
        if value == "reopen":
            journal = Journal(path, settings={"model": "a"})
        else:
            journal.write(key, value)
            expected[key] = value
        assert {key: journal[key] for key in "abc我" if key in journal} == expected


def test_values_stay_on_disk(tmp_path):
    keys = [f"錄音{index}" for index in range(1000)]
    tracemalloc.start()
    try:
        journal = Journal(tmp_path / "j.jsonl")
        for key in keys:
            journal.write(key, "word " * 1000)
        written = tracemalloc.get_traced_memory()[0]
        read = Journal(tmp_path / "j.jsonl")
        assert read[keys[500]] == "word " * 1000
        assert tracemalloc.get_traced_memory()[0] - written < 400 * len(keys)  # bytes; a value has 5,000
        assert written < 400 * len(keys)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[1:])])
def test_a_file_that_others_change_is_an_error_and_never_another_value(tmp_path, change):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    journal.write("a", 1)
    journal.write("b", 2)
    change(path)
    with pytest.raises(K2DError, match="changed or deleted while it was in use; run again"):
        journal["a"]


@contextmanager
def files_of_at_most(size):
    """Let no file grow beyond so many bytes, which is what a full disk looks like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    for index in range(5):
        journal.write(str(index), index)
    size = path.stat().st_size + 10
    with files_of_at_most(size), pytest.raises(K2DError, match=r"j.jsonl: no room on its disk \(.*\); free some"):
        journal.write("long", "word " * 10)
    again = Journal(path)
    for read in (journal, again):
        assert [read[key] for key in ("0", "1", "2", "3", "4", "long") if key in read] == [0, 1, 2, 3, 4]


def test_each_result_is_on_disk_when_it_is_written(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    for count in range(1, 4):
        journal.write(str(count), count)
        assert len(Journal(tmp_path / "j.jsonl")) == count


def test_without_path_nothing_is_written_and_without_work_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Journal().write("a", 1)
    Journal("j.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_line_costs_that_line_alone(tmp_path, caplog):
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    for key in "abc":
        journal.write(key, key)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1] + "\0\0\0\n" + lines[3])
    assert [key in Journal(path) for key in "abc"] == [True, False, True]
    assert "its work is done again" in caplog.text


@pytest.mark.parametrize("content", ['{"audio": "a.wav"}\n', '{"audio": "a.wav"}', "no newline", "RIFF\n\n", "[]\n"])
def test_a_file_that_is_no_journal_is_an_error_and_stays_as_it_was(tmp_path, content):
    path = tmp_path / "recordings.jsonl"
    path.write_text(content)
    with pytest.raises(K2DError, match="recordings.jsonl: this is no journal"):
        Journal(path)
    assert path.read_text() == content


def test_work_done_with_other_settings_is_an_error_that_says_which(tmp_path):
    path = tmp_path / "j.jsonl"
    Journal(path, settings={"model": "a", "beam_size": 5, "temperatures": (0.0, 0.2)}).write("x", 1)
    before = path.read_bytes()
    assert "x" in Journal(path, settings={"temperatures": [0.0, 0.2], "beam_size": 5, "model": "a"})
    with pytest.raises(K2DError, match=r"other settings \(beam_size 5, now 1\): delete it"):
        Journal(path, settings={"model": "a", "beam_size": 1, "temperatures": (0.0, 0.2)})
    assert path.read_bytes() == before


def test_the_first_line_holds_the_settings(tmp_path):
    Journal(tmp_path / "j.jsonl", settings={"language": "zh"}).write("a", 1)
    lines = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert lines == [{"key": "settings", "value": {"language": "zh"}}, {"key": "a", "value": 1}]


def test_the_key_of_a_file_changes_with_its_content(tmp_path):
    path = tmp_path / "a.wav"
    assert file_key(str(path)) == str(path)
    path.write_bytes(b"1")
    first = file_key(str(path))
    assert file_key(str(path)) == first
    os.utime(path, ns=(0, 0))
    second = file_key(str(path))
    path.write_bytes(b"22")
    assert len({first, second, file_key(str(path)), str(path)}) == 4


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The package's cache, which is empty."""
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lengthened(rows, *, by=1):
    """A text for each number of the rows, `by` times as long."""
    return map_rows(
        rows,
        lambda batch: {"text": [f"{n} " * by for n in batch["n"]]},
        features=Features({"text": Value("string")}),
        batch_size=100,
        desc="lengthen",
        remove_columns=["n"],
    )


def test_mapping_leaves_the_folder_of_the_rows_as_it_was(tmp_path, cache):
    Dataset.from_dict({"n": [1, 2, 3]}).save_to_disk(tmp_path / "rows")
    before = sorted(tmp_path.rglob("*"))
    rows = load_from_disk(str(tmp_path / "rows"))
    mapped = [lengthened(rows, by=by) for by in (2, 3)]
    assert [part["text"][:] for part in mapped] == [["1 1 ", "2 2 ", "3 3 "], ["1 1 1 ", "2 2 2 ", "3 3 3 "]]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, cache, cache / "scratch"])  # nothing comes from a cache


def test_what_is_mapped_lies_on_disk_and_outlives_its_file(tmp_path, cache):
    rows = Dataset.from_dict({"n": list(range(1000))})
    before = pyarrow.total_allocated_bytes()
    mapped = lengthened(rows, by=1000)
    assert mapped.data.nbytes > 3_000_000
    assert pyarrow.total_allocated_bytes() - before < 300_000
    assert list((cache / "scratch").iterdir()) == []
    part = mapped.select([1, 5]).rename_column("text", "t")
    mapped.save_to_disk(tmp_path / "saved")
    del mapped
    gc.collect()
    assert part["t"][:] == ["1 " * 1000, "5 " * 1000]
    assert load_from_disk(str(tmp_path / "saved"))[999]["text"] == "999 " * 1000


def test_mapping_to_no_rows_at_all(cache):
    nothing = map_rows(
        Dataset.from_dict({"n": [1, 2]}),
        lambda batch: {"text": []},
        features=Features({"text": Value("string")}),
        batch_size=1,
        desc="drop",
        remove_columns=["n"],
    )
    assert nothing["text"][:] == []


def test_a_disk_too_small_for_the_rows_is_one_line_and_leaves_nothing(cache):
    rows = Dataset.from_dict({"n": list(range(1000))})
    with files_of_at_most(10_000), pytest.raises(K2DError, match=r"scratch: no room on its disk \(.*\); .*K2D_CACHE"):
        lengthened(rows, by=100)
    assert list((cache / "scratch").iterdir()) == []


def test_an_error_of_the_step_comes_through_and_leaves_nothing(cache):
    with pytest.raises(ZeroDivisionError):
        map_rows(
            Dataset.from_dict({"n": [1, 0]}),
            lambda batch: {"n": [1 // n for n in batch["n"]]},
            features=Features({"n": Value("int64")}),
            batch_size=1,
            desc="divide",
        )
    assert list((cache / "scratch").iterdir()) == []
