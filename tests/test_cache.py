"""The folder for what is in work: gone after use, and after the process, however that ended."""

import os
import subprocess
import sys

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.files.cache import scratch_folder

LEAVE = """
import os
from k2d_hf.files.cache import scratch_folder
with scratch_folder() as folder:
    (folder / "rows.arrow").write_text("half")
    print(folder, flush=True)
    os._exit(1)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_folder_goes_with_what_is_in_it_also_after_an_error(cache):
    def use(error):
        with scratch_folder() as folder:
            (folder / "rows.arrow").write_text("half")
            if error is not None:
                raise error

    use(None)
    assert list((cache / "scratch").iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        use(KeyboardInterrupt())
    assert list((cache / "scratch").iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_another_uses_stays(cache):
    left = subprocess.run([sys.executable, "-c", LEAVE], stdout=subprocess.PIPE, text=True).stdout.strip()
    assert os.listdir(left) == ["rows.arrow"]
    elsewhere = cache / "scratch" / "1-abc@another-host"
    elsewhere.mkdir()
    with scratch_folder() as one, scratch_folder() as other:
        assert sorted((cache / "scratch").iterdir()) == sorted([one, other, elsewhere])


def test_a_cache_that_cannot_be_written_is_one_line(cache):
    cache.write_text("")
    with pytest.raises(K2DError, match=r"cache/scratch: cannot be written \(.*\); set K2D_CACHE"), scratch_folder():
        pass
