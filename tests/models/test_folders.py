"""Folders appear whole or not at all, whoever is killed, fails or comes second."""

import threading
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from k2d_hf.errors import K2DError
from k2d_hf.files.folders import cached_folder, clear_left_behind, locked, write_folder


def fill(folder):
    (folder / "file").write_text("content")


def fail_half_way(folder):
    fill(folder)
    raise KeyboardInterrupt


@pytest.mark.parametrize("make", [write_folder, cached_folder])
def test_the_folder_holds_what_was_built(tmp_path, make):
    target = tmp_path / "deep" / "down" / "folder"
    assert make(target, fill) == target
    assert (target / "file").read_text() == "content"


def test_weights_are_as_readable_as_any_other_file(tmp_path):
    def build(folder):
        fill(folder)
        (folder / "script").touch(0o700)
        save_file({"weight": np.zeros(1)}, folder / "model.safetensors")

    target = write_folder(tmp_path / "folder", build)
    usual = (target / "file").stat().st_mode
    assert (target / "model.safetensors").stat().st_mode == usual
    assert (target / "script").stat().st_mode == usual | 0o700


@pytest.mark.parametrize("make", [write_folder, cached_folder])
def test_an_interrupted_build_leaves_nothing_and_can_be_repeated(tmp_path, make):
    with pytest.raises(KeyboardInterrupt) as interrupt:
        make(tmp_path / "folder", fail_half_way)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    make(tmp_path / "folder", fill)
    assert interrupt.type is KeyboardInterrupt  # and its frames, still alive, hold no lock


@pytest.mark.parametrize(
    "occupy", [lambda target: target.write_text(""), lambda target: (target / "a").mkdir(parents=True)]
)
def test_what_is_there_is_not_overwritten(tmp_path, occupy):
    occupy(tmp_path / "folder")
    with pytest.raises(K2DError, match="already there and not empty; choose another output folder or remove it"):
        write_folder(tmp_path / "folder", fill)
    assert not (tmp_path / "folder" / "file").exists()


def test_what_comes_in_while_building_is_not_overwritten(tmp_path):
    def build(folder):
        fill(folder)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "other").write_text("")

    with pytest.raises(OSError):
        write_folder(tmp_path / "folder", build)
    assert [path.name for path in tmp_path.glob("**/*")] == ["folder", "other"]


def test_replaced_only_once_the_new_one_is_whole(tmp_path):
    old = write_folder(tmp_path / "folder", fill)
    with pytest.raises(KeyboardInterrupt):
        write_folder(old, fail_half_way, replace=True)
    assert (old / "file").is_file()
    write_folder(old, lambda folder: (folder / "new").write_text(""), replace=True)
    assert [path.name for path in old.iterdir()] == ["new"]


def test_of_several_at_once_one_builds(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        time.sleep(0.1)
        fill(folder)

    threads = [threading.Thread(target=cached_folder, args=(tmp_path / "folder", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "folder" / "file").is_file()


def test_leavings_of_a_killed_run_are_cleared_away(tmp_path):
    left = tmp_path / ".folder.0a1b2c3d.partial"
    left.mkdir()
    cached_folder(tmp_path / "folder", fill)
    assert not left.exists()


@pytest.mark.parametrize(
    ("make", "advice"), [(write_folder, "choose another output"), (cached_folder, "set K2D_CACHE")]
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, make, advice):
    (tmp_path / "file").write_text("")
    with pytest.raises(K2DError, match=advice):
        make(tmp_path / "file" / "folder", fill)


def test_what_a_killed_process_was_writing_is_cleared_and_nothing_else(tmp_path):
    (tmp_path / ".out.1234.partial").mkdir()
    (tmp_path / ".out.skipped.jsonl.12.partial").write_text("half")
    for other in (".other.1234.partial", "out.partial", ".out.lock"):
        (tmp_path / other).write_text("stays")
    clear_left_behind(tmp_path, "out.")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.1234.partial", ".out.lock", "out.partial"]


def test_the_lock_clears_what_was_left_in_the_folder_and_beside_it(tmp_path):
    for folder in ("run", "run/resume/label-k", "run.resume/label-k"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / ".chunks.1234.partial").write_text("half")
    with locked(tmp_path / "run"):
        assert list(tmp_path.rglob("*.partial")) == []
