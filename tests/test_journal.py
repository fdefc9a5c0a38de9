"""Finished work survives: whatever a run left in its journal, the next one reads back, and never another's."""

import json
import os

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


def test_mapping_leaves_the_folder_of_the_rows_as_it_was(tmp_path):
    Dataset.from_dict({"n": [1, 2, 3]}).save_to_disk(tmp_path / "rows")
    before = sorted(tmp_path.rglob("*"))
    rows = load_from_disk(str(tmp_path / "rows"))
    features = Features({"twice": Value("int64")})
    mapped = [
        map_rows(
            rows,
            lambda batch: {"twice": [factor * n for n in batch["n"]]},
            features=features,
            batch_size=2,
            desc="twice",
            remove_columns=["n"],
        )
        for factor in (2, 3)
    ]
    assert [part["twice"][:] for part in mapped] == [[2, 4, 6], [3, 6, 9]]  # nothing comes from a cache
    assert sorted(tmp_path.rglob("*")) == before
