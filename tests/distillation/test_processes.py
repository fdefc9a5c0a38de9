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
from student_layout import FILES, check_layout
from transformers import WhisperForConditionalGeneration

from distillation.train_in_processes import SCENARIOS, train
from k2d_hf import K2DDataCollator
from k2d_hf.distillation.targets.targets import add_soft_targets

pytestmark = pytest.mark.slow

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
        timeout=240,
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


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory, tiny_whisper_dir, chunks, processor):
    """A folder with a teacher, chunks with and without soft targets, and what two processes made of every scenario."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "teacher").symlink_to(tiny_whisper_dir)
    chunks.save_to_disk(folder / "chunks")
    collator = K2DDataCollator(processor, language="zh")
    for kind in ("hidden", "top"):
        add_soft_targets(chunks, str(tiny_whisper_dir), collator, kind=kind, k=8).save_to_disk(folder / kind)
    launch = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1"]
    launch += [f"--master_port={free_port()}", HERE / "train_in_processes.py"]
    done = run(*launch, folder, folder / "two", *SCENARIOS)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_bug_11_two_processes_train_as_one_with_the_double_batch(trained_by_two, scenario):
    """Loss, gradients (as weights after plain gradient descent) and evaluation, where the two have unequal tokens."""
    ours, theirs = trained_by_two / "one" / scenario, trained_by_two / "two" / scenario
    train(trained_by_two, ours, scenario)
    one, two = (json.loads((path / "figures.json").read_text()) for path in (ours, theirs))
    assert (one["processes"], two["processes"], two["sharded"]) == (1, 2, "fsdp" in scenario)
    assert one["states"] == two["states"]
    for mine, other in zip(one["logs"], two["logs"], strict=True):
        for name in {"loss", "ce", "kl", "agreement"} & mine.keys():
            assert other[name] == pytest.approx(mine[name], rel=1e-5, abs=1e-6), name
    for name in {"eval_loss", "eval_ce", "eval_kl", "eval_mer"} & one["metrics"].keys():
        assert two["metrics"][name] == pytest.approx(one["metrics"][name], rel=1e-5, abs=1e-6), name
    weights = [torch.load(path / "weights.pt") for path in (ours, theirs)]
    assert weights[0].keys() == weights[1].keys()
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 1e-6


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_processes_that_were_interrupted_end_as_two_that_were_not(trained_by_two, scenario):
    """In their second epoch, whose order and draws are others than those of the first."""
    resumed = json.loads((trained_by_two / "two" / scenario / "figures.json").read_text())["resumed"]
    assert resumed["from"] == resumed["steps"] - 1
    assert resumed["epoch"] == 1
    assert resumed["losses"][0] == resumed["losses"][1]
    assert len(set(resumed["losses"][0])) == resumed["steps"]
    assert resumed["difference"] == 0.0


def test_what_a_sharded_run_saves_is_the_whole_student(trained_by_two):
    path = trained_by_two / "two" / "fsdp"
    weights = torch.load(path / "weights.pt")
    steps = json.loads((path / "figures.json").read_text())["resumed"]["steps"]
    for saved in (path / "saved", path / f"checkpoint-{steps}"):
        loaded = WhisperForConditionalGeneration.from_pretrained(saved).state_dict()
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)


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


def test_what_is_pushed_at_every_save_is_the_student(folder, processor):
    hub = LocalHub()
    done = push(folder, hub)
    assert done.returncode == 0, done.stderr[-3000:]
    repository = hub.repository("me/student")
    assert repository.private
    assert "Training in progress, step 1" in repository.titles()
    saved = {path.name: path.read_bytes() for path in (folder / "student").iterdir() if path.is_file()}
    assert repository.contents() == saved
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= saved.keys()
    check_layout(folder / "student", processor)
    first = next(commit for commit in repository.log() if commit.title == "Training in progress, step 1")
    assert first.files.keys() >= FILES  # written by another method of the Trainer's than the last ones
    assert "processor_config.json" not in first.files
    assert not any(WRITER.encode() in content for content in saved.values())
    assert not any(name.endswith((".pt", ".pth")) or "/" in name or "state" in name for name in saved)
