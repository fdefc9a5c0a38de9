"""`k2d distil` under torchrun: several processes train one student, one of them prints and writes."""

import subprocess
import sys

import pytest

from k2d_hf.cli import main
from k2d_hf.files.processes import is_main_process, process_count

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("environment", "count", "prints"),
    [({}, 1, True), ({"WORLD_SIZE": "4", "RANK": "0"}, 4, True), ({"WORLD_SIZE": "4", "RANK": "3"}, 4, False)],
)
def test_the_first_process_speaks(monkeypatch, environment, count, prints):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (process_count(), is_main_process()) == (count, prints)


def test_other_commands_are_one_process(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", str(tmp_path / "recipe.yaml")]) == 1
    assert "k2d run is one process" in capsys.readouterr().err


def test_two_processes_distil_one_student(tmp_path, tiny_whisper_dir, noise_file):
    from datasets import Dataset

    segments = [{"start": 0.0, "end": 4.0, "text": "今天講 machine learning"}]
    rows = [
        {
            "recording": str(noise_file),
            "start": 5.0 * index,
            "duration": 4.0,
            "segments": segments,
            "text": "今天講 machine learning",
            "previous_text": None,
            "language": "zh",
            "keep": True,
        }
        for index in range(4)
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "validated"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "k2d_hf"]
    command += ["distil", str(tmp_path / "validated"), "--student", str(tiny_whisper_dir)]
    command += ["--teacher", str(tiny_whisper_dir), "--output", str(tmp_path / "student")]
    command += ["--set", "max_steps=3", "--set", "per_device_train_batch_size=1", "--set", "use_cpu=true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("distil") == 1
    assert "3/3 steps" in done.stdout
    assert (tmp_path / "student" / "model.safetensors").exists()
