"""Finished work survives: what a run left in a folder of shards the next one reads back, and never another's."""

import json
from dataclasses import dataclass

import pyarrow
import pytest
from full_disk import files_of_at_most
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.files.shards import Failure, Shard, ShardFolder, in_order, shards_of

SCHEMA = pyarrow.schema({"text": pyarrow.string()})


@dataclass(frozen=True)
class Item:
    """The least that work is known by."""

    key: str
    repeated: bool = False


def shard(*keys, index=0):
    return Shard(index, tuple(map(Item, keys)))


def texts(*keys):
    """A result for each key."""
    return {key: {"reason": None, "detail": None, "seconds": 1.0, "text": f"text of {key}"} for key in keys}


def open_folder(path, **settings):
    return ShardFolder(path, SCHEMA, settings=settings)


@pytest.mark.parametrize("where", ["local", "far"])
def test_what_is_written_is_read_back_by_the_next_run(tmp_path, where):
    path = tmp_path / "deep" / "shards" if where == "local" else f"memory://test-shards/{tmp_path.name}"
    failed = {"c 我": Failure("not audio", "c: not audio").row()}
    open_folder(path).write(shard("a", "b", "c 我"), {**texts("a", "b"), **failed})
    again = open_folder(path)
    read = again.read(shard("a", "b", "c 我", index=7))
    assert {key: row["text"] for key, row in read.items()} == {"a": "text of a", "b": "text of b", "c 我": None}
    assert (read["c 我"]["reason"], read["c 我"]["detail"]) == ("not audio", "c: not audio")
    assert again.read(shard("a", "b")) is None


def test_a_shard_is_known_by_its_items_alone():
    assert shard("a", "b").key == shard("a", "b", index=3).key
    assert len({shard(*keys).key for keys in [("a", "b"), ("b", "a"), ("ab",), ("a",), ("a\nb",)]}) == 5
    assert Shard(0, (Item("a"), Item("a", repeated=True))).key == shard("a").key


def test_items_are_found_again_where_shards_are_cut_otherwise(tmp_path):
    folder = open_folder(tmp_path)
    folder.write(shard("a", "b"), texts("a", "b"))
    folder.write(shard("c", "d"), texts("c", "d"))
    again = open_folder(tmp_path)
    assert again.read(shard("b", "new", "c")) is None
    assert again.known(shard("b", "new", "c")).keys() == {"b", "c"}


def test_settings_are_recorded_and_others_are_an_error(tmp_path):
    open_folder(tmp_path, language="zh", beam_size=5).write(shard("a"), texts("a"))
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["settings"] == {"language": "zh", "beam_size": 5}
    assert {"k2d_hf", "versions"} <= record.keys()
    assert open_folder(tmp_path, beam_size=5, language="zh").read(shard("a"))
    with pytest.raises(K2DError, match=r"other settings \(beam_size 5, now 1\): delete it to start anew"):
        open_folder(tmp_path, language="zh", beam_size=1)


@pytest.mark.parametrize("content", ["", "[]", "{broken", '{"other": 1}', '{"settings": 1}'])
def test_a_record_that_cannot_be_read_is_an_error(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(K2DError, match=r"record.json: cannot be read; delete .* to start anew"):
        open_folder(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(K2DError, match="a file, where a folder for finished work is expected"):
        open_folder(tmp_path / "file")


def test_without_work_nothing_is_written(tmp_path):
    open_folder(tmp_path / "shards").read(shard("a"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path):
    folder = open_folder(tmp_path)
    folder.write(shard("a"), texts("a"))
    long = {"b": {"reason": None, "detail": None, "seconds": 1.0, "text": "".join(map(chr, range(0x4E00, 0x9000)))}}
    message = r"parquet: no room on its disk \(.*: it takes .* kB, .* free\); free some and run again"
    with files_of_at_most(5_000), pytest.raises(K2DError, match=message):
        folder.write(shard("b"), long)
    again = open_folder(tmp_path)
    assert again.read(shard("a")) == texts("a")
    assert again.read(shard("b")) is None
    assert len(list(tmp_path.iterdir())) == 2  # the record, and one shard


@given(st.integers(0, 30), st.integers(1, 9), st.randoms(use_true_random=False))
def test_shards_hold_every_item_once_and_come_in_order(count, size, random):
    shards = list(shards_of(((Item(str(n)), n) for n in range(count)), size))
    assert [row for shard in shards for row in shard.rows] == list(range(count))
    assert all(len(shard.items) == size for shard in shards[:-1])
    finished = [(shard, {}) for shard in shards]
    random.shuffle(finished)
    assert [shard.index for shard, _ in in_order(finished)] == list(range(len(shards)))
