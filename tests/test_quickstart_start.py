"""The script that makes what the quickstart's small student begins from."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from k2d_hf.models import load_whisper
from k2d_hf.models.adapters import WEIGHTS, read_adapter
from k2d_hf.models.inspect import inspect_model

FOLDER = Path(__file__).parents[1] / "recipes" / "quickstart"


@pytest.fixture
def script(monkeypatch, tmp_path, tiny_whisper_dir):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(FOLDER)
    import train_start

    recipe = dataclasses.replace(train_start.load_recipe(FOLDER / "quickstart.yaml"), teacher=[str(tiny_whisper_dir)])
    monkeypatch.setattr(train_start, "load_recipe", lambda path: recipe)
    monkeypatch.setattr(train_start, "DECODER_LAYERS", [0, 3])
    monkeypatch.setattr(train_start, "RANK", 4)
    yield train_start
    del sys.modules["train_start"], sys.modules["train_auxiliary"]


def test_it_writes_an_adapter_and_goes_on_from_one(script, monkeypatch, tmp_path, tiny_whisper_dir):
    chance = np.random.default_rng(0)
    soundfile.write(tmp_path / "talk.flac", chance.normal(0, 0.1, 32 * 16000), 16000)
    segments = [{"start": 10 * at, "end": 10 * at + 9, "text": f"今天 talk {at}"} for at in range(3)]
    row = {"id": "talk", "audio": "talk.flac", "duration": 32.0, "segments": segments}
    (tmp_path / "speech.jsonl").write_text(json.dumps(row))

    def make(name, *options):
        given = [str(tmp_path / "speech.jsonl"), "--teacher", str(tiny_whisper_dir), "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["train_start.py", *given, "--output", str(tmp_path / name), *options])
        script.main()
        (tmp_path / "work" / "training").rename(tmp_path / f"training-of-{name}")
        return load_whisper(tmp_path / name).state_dict()

    first = make("first", "--epochs", "2")
    assert read_adapter(tmp_path / "first").decoder_layers == [0, 3]
    layers = [0, 3]
    base = load_whisper(tiny_whisper_dir).state_dict()
    changed = {
        name
        for name, weights in first.items()
        if not torch.equal(weights, base[".".join(_of_base(name, layers))].to(weights.dtype))
    }
    assert changed
    assert all(name.startswith("model.decoder.layers.") for name in changed)

    same = make("same", "--epochs", "1", "--learning-rate", "0", "--begin", str(tmp_path / "first"))
    assert all(torch.equal(weights, same[name]) for name, weights in first.items())


def test_the_one_of_the_repository_is_small_and_has_two_layers():
    folder = FOLDER / "start"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 8e6
    shape = inspect_model(str(folder)).shape
    assert (shape.encoder_layers, shape.decoder_layers, shape.d_model) == (6, 2, 512)
    weights = load_file(folder / WEIGHTS)
    assert all(bool(torch.isfinite(matrix).all()) for matrix in weights.values())


def _of_base(name, layers):
    parts = name.split(".")
    if parts[:3] == ["model", "decoder", "layers"]:
        parts[3] = str(layers[int(parts[3])])
    return parts
