"""One process at a time in a folder of results."""

import re
import subprocess
import sys

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.files.folders import locked

HOLD = """
import sys
from pathlib import Path
from k2d_hf.files.folders import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `runs/mine`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "runs" / "mine")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_error_of_a_second_process_names_who_holds_the_folder(holder, tmp_path):
    directory = tmp_path / "runs" / "mine"
    line = rf"^{re.escape(str(directory))} is in use by process {holder.pid} \(started \d\d:\d\d on host \S+\); wait for it or choose another --output$"
    with pytest.raises(K2DError, match=line), locked(directory):
        pass


def test_a_folder_is_free_once_its_holder_was_killed(holder, tmp_path):
    holder.kill()
    holder.wait()
    with locked(tmp_path / "runs" / "mine"):
        pass


def test_a_holder_that_left_no_name_is_another_process(holder, tmp_path):
    (tmp_path / "runs" / ".mine.lock.json").write_text("{", encoding="utf-8")
    with pytest.raises(K2DError, match="is in use by another process; wait"), locked(tmp_path / "runs" / "mine"):
        pass


def test_the_folder_itself_may_come_and_go(tmp_path):
    directory = tmp_path / "mine"
    with locked(directory):
        directory.mkdir()
        directory.rmdir()
    with locked(directory):  # and may be held again
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".mine.lock"]


def test_the_current_folder_can_be_held(tmp_path, monkeypatch):
    from pathlib import Path

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with locked(Path(".")):
        assert (tmp_path / ".here.lock").exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(K2DError, match=r"file/mine: cannot be written \(.*\); choose another --output$"),
        locked(tmp_path / "file" / "mine"),
    ):
        pass
