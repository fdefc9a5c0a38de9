"""What is remembered of a run, and how inputs are distinguished."""

import os

import pytest

from k2d_hf.files.resuming import StageRecord, discard, files_key, folder_key, unfinished


@pytest.mark.parametrize("content", ["", "[]", "{broken", '{"label": {"key": "k"}}', '{"label": 3}'])
def test_a_damaged_record_counts_as_empty(tmp_path, content):
    path = tmp_path / "stages.json"
    path.write_text(content, encoding="utf-8")
    record = StageRecord(path)
    assert (record.line_of("label", "k"), record.run_of("label")) == (None, None)
    record.remember("label", "k", "done")
    assert (StageRecord(path).line_of("label", "k"), StageRecord(path).line_of("label", "other")) == ("done", None)


def test_each_execution_of_a_stage_is_another(tmp_path):
    record = StageRecord(tmp_path / "stages.json")
    runs = []
    for _ in range(2):
        record.remember("label", "k", "done")
        runs.append(record.run_of("label"))
    assert runs[0] != runs[1]
    record.forget(["label", "validate"])
    assert StageRecord(tmp_path / "stages.json").run_of("label") is None


def test_times_of_files_count_not_their_order(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    before = folder_key(tmp_path)
    assert files_key([str(one), str(two)]) == files_key([str(two), str(one), str(one)])
    os.utime(one, ns=(1, 1))
    assert folder_key(tmp_path) != before
    two.unlink()
    assert files_key([str(two)]) != before  # missing, and no error


def test_unfinished_work_of_other_settings_is_thrown_away(tmp_path):
    (tmp_path / "label-a").write_text("work")
    (tmp_path / "distil-a").mkdir()
    (tmp_path / "distil-a" / "weights").write_text("w")
    assert unfinished(tmp_path, "label", "a").read_text() == "work"
    assert not unfinished(tmp_path, "label", "b").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["distil-a"]
    discard(tmp_path, "distil")
    assert list(tmp_path.iterdir()) == []
