"""The script that makes the quickstart's auxiliary: what it begins with, and which neurons it keeps."""

import importlib.util
from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from k2d_hf import create_student
from k2d_hf.distillation.models import with_adapters
from k2d_hf.models import load_whisper
from k2d_hf.models.adapters import read_adapter, save_adapter
from k2d_hf.models.parts import keep_neurons

SCRIPT = Path(__file__).parents[1] / "recipes" / "quickstart" / "train_auxiliary.py"
FEATURES = torch.randn(2, 80, 3000, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def script(monkeypatch, tmp_path):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("train_auxiliary", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DECODER_LAYERS", [0, 3])
    return module


def lora(student, rank):
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "fc1", "fc2"])
    return with_adapters(student, config, freeze_encoder=False).eval()


@torch.no_grad()
def logits(model):
    return model.eval()(input_features=FEATURES[:1], decoder_input_ids=torch.tensor([[50258, 50260, 100]])).logits


@pytest.mark.parametrize("had", [None, [[*range(40)], [*range(60, 20, -1)]]])
def test_it_begins_with_what_an_adapter_has_of_its_layers_and_neurons(
    script, tiny_whisper, tiny_whisper_dir, tmp_path, had
):
    torch.manual_seed(0)
    student = create_student(tiny_whisper, [0, 3], [1, 0])
    earlier = lora(keep_neurons(student, had) if had else student, rank=2)
    with torch.no_grad():
        for weights in earlier.parameters():
            if weights.requires_grad:
                weights.normal_(0, 0.2)
    folder = tmp_path / "earlier"
    layers = {"encoder_layers": [1, 0], "decoder_layers": [0, 3], "encoder_neurons": had}
    save_adapter(earlier, folder, sources=str(tiny_whisper_dir), dtype="float32", **layers)

    whole, of_base = script.first_student(str(tiny_whisper_dir), folder, [0])
    chosen = script.neurons_that_matter(whole, FEATURES, 10)
    neurons = [[numbers[index] for index in kept] for numbers, kept in zip(of_base, chosen, strict=True)]
    student = lora(keep_neurons(create_student(tiny_whisper, [0, 3], [0]), neurons), rank=3)
    script.begin_with(student, folder, [0], chosen)

    expected = keep_neurons(create_student(load_whisper(folder), [0, 1], [1]), chosen)
    assert read_adapter(folder).encoder_neurons == had
    assert torch.allclose(logits(student), logits(expected), atol=1e-3)


def test_neurons_that_say_nothing_do_not_matter(script, tiny_whisper, tiny_whisper_dir):
    whole, of_base = script.first_student(str(tiny_whisper_dir), None, [1])
    assert of_base == [range(64)]
    layer = whole.model.encoder.layers[0]
    with torch.no_grad():
        layer.fc1.weight[:20], layer.fc1.bias[:20] = 0, 0  # silent
        layer.fc2.weight[:, 20:40] = 0  # not heard
    assert script.neurons_that_matter(whole, FEATURES, 24) == [[*range(40, 64)]]
