"""Training in processes of its own: two of them as one, and a push to the Hub that fails in the background."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hub_server import WRITER, LocalHub, serving

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def run(*command, **environment):
    """Run Python with the package and the helpers of these tests, without a network."""
    path = os.pathsep.join([str(ROOT), str(HERE.parent)])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def folder(tmp_path, tiny_whisper_dir, chunks):
    """A folder with teacher and chunks."""
    (tmp_path / "teacher").symlink_to(tiny_whisper_dir)
    chunks.save_to_disk(tmp_path / "chunks")
    return tmp_path


def test_bug_11_two_processes_train_as_one_with_the_double_batch(folder):
    from distillation import train_in_processes

    train_in_processes.main(folder, folder / "one", 4)
    script = HERE / "train_in_processes.py"
    launch = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_addr=127.0.0.1",
        f"--master_port={free_port()}",
    ]
    done = run(*launch, script, folder, folder / "two", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((folder / name / "figures.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    assert (one["states"], two["states"]) == (8, 8)
    for mine, theirs in zip(one["logs"], two["logs"], strict=True):
        for name in ("loss", "ce", "kl", "agreement"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-6), name
    for name in ("eval_loss", "eval_ce", "eval_kl", "eval_mer"):
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-5), name
    weights = [torch.load(folder / name / "weights.pt") for name in ("one", "two")]
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-6


PUSH = """
import sys
from pathlib import Path
from datasets import load_from_disk
from distillation.tiny_training import trainer_for
from transformers import WhisperProcessor
from k2d_hf import create_student

folder = Path(sys.argv[1])
trainer = trainer_for(
    create_student(str(folder / "teacher")),
    load_from_disk(folder / "chunks"),
    WhisperProcessor.from_pretrained(folder / "teacher"),
    folder / "student",
    teacher_model=str(folder / "teacher"),
    max_steps=2, save_strategy="steps", save_steps=1,
    push_to_hub=True, hub_model_id="me/student", hub_token=sys.argv[2], hub_private_repo=True,
)
trainer.train()
print("trained")
"""


def push(folder, hub):
    """Train with a push at every save."""
    with serving(hub) as address:
        settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return run("-c", PUSH, folder, WRITER, HF_HOME=str(folder / "hf"), **settings)


def test_bug_13_a_push_that_fails_in_the_background_is_an_error_at_the_end(folder):
    hub = LocalHub()
    hub.fail("preupload", 403, times=None)
    done = push(folder, hub)
    assert done.returncode != 0
    assert "K2DError: training is done, but its push to me/student failed: 403 Forbidden" in done.stderr
    assert "Bearer <token>" in done.stderr  # the server sends it back
    assert WRITER not in done.stderr + done.stdout
    assert "trained" not in done.stdout
    assert (folder / "student" / "checkpoint-1" / "model.safetensors").exists()
    assert hub.repository("me/student").contents() == {}


def test_what_is_pushed_at_every_save_is_the_student(folder):
    hub = LocalHub()
    done = push(folder, hub)
    assert done.returncode == 0, done.stderr[-3000:]
    repository = hub.repository("me/student")
    assert repository.private
    assert "Training in progress, step 1" in repository.titles()
    saved = {path.name: path.read_bytes() for path in (folder / "student").iterdir() if path.is_file()}
    assert repository.contents() == saved
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= saved.keys()
    assert not any(WRITER.encode() in content for content in saved.values())
    assert not any(name.endswith((".pt", ".pth")) or "/" in name or "state" in name for name in saved)
