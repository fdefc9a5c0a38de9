"""Ctrl-C in the middle of labelling, in a process of its own."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import RECIPE, WRITTEN
from datasets import load_from_disk
from shard_files import rewrite, stage_folder

from k2d_hf.cli import INTERRUPTED, main

pytestmark = pytest.mark.slow


def test_ctrl_c_leaves_what_was_done_and_the_next_run_resumes(workplace, tmp_path):
    """Sixteen recordings, one at a time; the interrupt comes once two are done."""
    here = shutil.copytree(workplace, tmp_path / "here", ignore=shutil.ignore_patterns("recordings"))
    (here / "recordings").mkdir()
    sound = np.random.default_rng(2).normal(0, 0.05, 25 * 16000)
    for index in range(16):
        soundfile.write(here / "recordings" / f"{index:02}.wav", sound[index:], 16000)
    text = RECIPE.replace("beam_size: 1,", "beam_size: 1, batch_size: 1,")
    (here / "recipe.yaml").write_text(text, encoding="utf-8")
    short = ["--set", "evaluation=null", "--set", "distil.max_steps=1"]
    command = ["run", str(here / "recipe.yaml"), "--output", str(here / "out"), *short]

    process = subprocess.Popen(
        [sys.executable, "-m", "k2d_hf", *command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    deadline = time.monotonic() + 60
    while finished(here / "out") < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert shown.endswith("\nk2d: stopped; what is done stays, and the same command resumes from here\n")
    assert "Traceback" not in shown
    before = finished(here / "out")
    assert 2 <= before < 16
    assert not (here / "out" / "chunks").exists()

    # a word that no model would write now
    rewrite(stage_folder(here / "out" / "resume", "label"), "00.wav", WRITTEN[0], "記得 this")
    assert main(command) == 0
    after = load_from_disk(str(here / "out" / "chunks"))
    assert [text.startswith("記得 this") for text in after["text"]] == [True, *[False] * (len(after) - 1)]
    assert len(set(after["recording"])) == 16


def heed_interrupts():
    """Undo what a shell does to the processes that it starts in the background: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finished(output):
    return len(list((output / "resume").glob("label-*/*.parquet")))


PROGRAM = "import sys; from k2d_hf.__main__ import main; print('up', flush=True)\n"  # as the script `k2d` begins
LINE = "\nk2d: stopped; what is done stays, and the same command resumes from here\n"
LONG = "[time.sleep(0.01) for _ in range(9000)]"  # a signal that comes just before one long sleep does not end it


def interrupted(code, *arguments, after=0.0, mark="up"):
    """Exit status, output and messages of a program in Python that gets a Ctrl-C, some seconds after a line of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert any(line.strip() == mark for line in process.stdout)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


@pytest.mark.parametrize("after", [0, 0.01, 0.03, 0.08, 0.15, 0.3, 0.6, 1.2])
def test_ctrl_c_while_the_program_starts_is_one_line(tiny_whisper_dir, noise_file, tmp_path, after):
    """While arguments are read, libraries imported, models loaded, or at work."""
    label = ["label", noise_file.parent, "--teacher", tiny_whisper_dir, "--output", tmp_path / "chunks"]
    command = [*label, "--language", "zh", "--engine", "transformers", "--beam-size", "5"]
    assert interrupted(PROGRAM + "sys.exit(main())", *command, after=after) == (INTERRUPTED, "", LINE)
    assert not (tmp_path / "chunks").exists()


def test_ctrl_c_while_the_program_ends_is_one_line_and_nothing_printed_is_lost():
    code = f"{PROGRAM}import atexit, time\natexit.register(lambda: (print('ending', flush=True), {LONG}))\n"
    code += "sys.exit(main())"
    assert interrupted(code, "--version", mark="ending") == (INTERRUPTED, "", LINE)


def test_ctrl_c_in_the_very_last_moment_changes_nothing():
    """When modules are cleared away there is nobody to answer, and all is done."""
    code = f"""{PROGRAM}import os, time
class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"last\\n")
        sleep(0.5)
last = Last()
sys.exit(main())"""
    assert interrupted(code, "--version", mark="last") == (0, "", "")


@pytest.mark.parametrize(
    "swallowed",
    [
        "class Gone:\n  def __del__(self): signal.raise_signal(signal.SIGINT)\nGone()\n" + LONG,
        "try:\n  signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: raise ImportError('half a library')",
    ],
)
def test_ctrl_c_where_no_exception_leaves_is_heeded_all_the_same(swallowed):
    """In a destructor, Python prints it and goes on; libraries in C make an error of their own of it."""
    code = f"""{PROGRAM}import signal, time
from k2d_hf.pipeline.commands.export import Export
def execute(self, arguments):
    exec({swallowed!r}, globals())
Export.execute = execute
sys.exit(main())"""
    done = subprocess.run(
        [sys.executable, "-c", code, "export", "x", "--to", "ctranslate2", "--output", "y"],
        capture_output=True, text=True, timeout=60, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED, "up\n", LINE)


def test_where_interrupts_are_ignored_they_stay_so():
    """As under nohup, or in the background of a shell without job control."""
    code = "import signal, sys; from k2d_hf import __main__; print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)"
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=ignore)
    assert done.stdout == "True\n", done.stderr


def test_a_reader_that_goes_is_no_error():
    code = f"{PROGRAM}sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.wait(60)
