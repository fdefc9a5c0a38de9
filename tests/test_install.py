"""Where `make install` takes torch from: a CPU build where no NVIDIA driver is at work, if its index answers."""

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CUDA = "on Linux x86-64 a CUDA build: 2.7 GB to fetch where no wheel is at hand"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class _Index(BaseHTTPRequestHandler):
    """A package index that knows torch alone."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.mute:
            self.server.ended.wait(60)
        self.send_response(200 if self.path == "/whl/torch/" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index():
    """The server of an index; `mute` makes it one that takes a request and says nothing."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Index)
    server.asked, server.mute, server.ended = [], False, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/whl"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def tools(tmp_path):
    """A folder for PATH with what make needs, and no driver; `tools.driver(status)` adds a program nvidia-smi."""
    for name in ("sh", "make", "uname"):
        (tmp_path / name).symlink_to(shutil.which(name))

    class Tools:
        @staticmethod
        def driver(status):
            file = tmp_path / "nvidia-smi"
            file.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && echo 'GPU 0: NVIDIA H100'\nexit {status}\n")
            file.chmod(0o755)

        @staticmethod
        def plan(*variables, **environment):
            """Exit status of `make -n install`, the commands that it would run, and its complaint."""
            kept = {
                name: value
                for name, value in os.environ.items()
                if name not in ("TORCH_INDEX", "MAKEFLAGS", "MAKELEVEL")
            }
            done = subprocess.run(
                ["make", "-n", "install", f"VENV={tmp_path / 'venv'}", f"PYTHON={sys.executable}", *variables],
                cwd=ROOT, env=kept | {"PATH": str(tmp_path)} | environment, capture_output=True, text=True,
            )  # fmt: skip
            return done.returncode, done.stdout, done.stderr

    return Tools


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the package index has CPU builds")


@linux
@pytest.mark.parametrize("driver", [None, 9])  # not there; there, but "couldn't communicate with the NVIDIA driver"
def test_without_a_driver_torch_is_the_cpu_build(tools, index, driver):
    if driver is not None:
        tools.driver(driver)
    status, commands, _ = tools.plan(f"CPU_INDEX={index.url}")
    assert status == 0
    assert f'echo "torch: the CPU build: 0.2 GB to fetch from {index.url}"' in commands
    assert f"pip install -c constraints.txt torch --extra-index-url {index.url}\n" in commands
    assert index.asked == ["/whl/torch/"]


@linux
def test_with_a_driver_torch_is_pips_own_and_its_size_is_told(tools, index):
    tools.driver(0)
    status, commands, _ = tools.plan(f"CPU_INDEX={index.url}")
    assert status == 0
    assert f'echo "torch: what pip chooses, {CUDA}"' in commands
    assert "pip install -c constraints.txt torch \n" in commands
    assert index.asked == []


@linux
@pytest.mark.parametrize("how", ["refused", "mute", "unknown"])
def test_an_index_that_does_not_answer_costs_seconds_and_no_more(tools, index, how):
    index.mute = how == "mute"
    url = {"refused": "http://127.0.0.1:9/whl", "mute": index.url, "unknown": f"{index.url}/other"}[how]
    status, commands, _ = tools.plan(f"CPU_INDEX={url}", "PATIENCE=1")
    assert status == 0
    assert f'echo "torch: {url} does not answer; what pip chooses, {CUDA}"' in commands
    assert "--extra-index-url" not in commands


def test_an_index_that_was_asked_for_is_taken_or_missed(tools, index):
    for given in ({"variables": [f"TORCH_INDEX={index.url}"]}, {"TORCH_INDEX": index.url}):
        status, commands, _ = tools.plan(*given.pop("variables", []), **given)
        assert status == 0
        assert f"pip install -c constraints.txt torch --extra-index-url {index.url}\n" in commands
    status, commands, error = tools.plan("TORCH_INDEX=http://127.0.0.1:9/whl")
    assert (status, "pip install -c" in commands) == (2, False)
    assert "TORCH_INDEX=http://127.0.0.1:9/whl does not answer; try again, or `make install TORCH_INDEX=`" in error
    status, commands, _ = tools.plan("TORCH_INDEX=")
    assert (status, "--extra-index-url" in commands) == (0, False)


def test_the_cpu_index_is_torchs_own():
    assert f"CPU_INDEX := {CPU_INDEX}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_an_editable_install_warns_of_nothing(tmp_path):
    """Setuptools warns of an editable install through a finder of modules; ours is a line in a .pth."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "k2d_hf").mkdir()
    shutil.copy(ROOT / "k2d_hf" / "__init__.py", tree / "k2d_hf")
    shutil.copy(ROOT / "k2d_hf" / "version.py", tree / "k2d_hf")
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Please be careful" not in done.stderr, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
