"""Ctrl-C in the middle of labelling, in a process of its own."""

import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import soundfile
from conftest import RECIPE, WRITTEN
from datasets import load_from_disk
from shard_files import rewrite, stage_folder

from k2d_hf.cli import INTERRUPTED, main


def test_ctrl_c_leaves_what_was_done_and_the_next_run_goes_on(workplace, tmp_path):
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
    assert shown.endswith("\nk2d: stopped; what is done stays, and the same command goes on from here\n")
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
