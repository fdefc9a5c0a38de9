"""A finished run of tiny models that hear, to go on with under other settings, and fresh runs to compare with."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
import torch
from scripted_whisper import write_scripted_whisper

from changed.results import results_of
from k2d_hf import load_recipe, run_recipe
from k2d_hf.terminal.console import Console

RECIPE = """
name: tiny
recordings: one.jsonl
evaluation: dev.jsonl
teacher: teacher
auxiliary: auxiliary
language: zh
label: {engine: transformers, beam_size: 1, condition_on_previous_text: false}
validate: {engine: transformers}
student: {decoder_layers: 2}
distil: {max_steps: 2, learning_rate: 1e-3, per_device_train_batch_size: 4, logging_steps: 1}
evaluate: {beam_size: 1}
report: {enabled: false}
"""
BEFORE = {"targets": ("label", "validate", "student")}
BEFORE["evaluate"] = (*BEFORE["targets"], "targets", "distil")
LATER = {"evaluate": ("evaluat*", "README.md")}  # what these stages and those after them left
LATER["targets"] = (*LATER["evaluate"], "targets*", "student", "encoder-states", "distil*")
WRITTEN = "今天講 machine learning", "我們用 GPU 來 train 一個 model"
HEARD = "今天講 machine learning", "我們用 GPU 來 train 兩個 models"


class Workplace:
    """A folder with models, sound and a recipe, and the folder that runs go to."""

    def __init__(self, folder, runs):
        self.folder = folder
        self.runs = runs
        self._count = 0

    def run(self, output, *sets):
        """Run the recipe into `output`; returns the stages that did work."""
        stream = io.StringIO()
        given = [one.format(elsewhere=f"{output}-elsewhere", teacher=self.folder / "teacher") for one in sets]
        run_recipe(self.recipe(output, *given), console=Console(stream=stream))
        lines = re.findall(r"^\[\d/\d\] (\w+) +(.*)$", stream.getvalue(), re.MULTILINE)
        return [name for name, line in lines if not line.startswith("up to date: ")]

    def recipe(self, output, *sets, elsewhere=False):
        """The recipe with other settings."""
        return load_recipe(self.folder / "recipe.yaml", [f"output={output}", *sets], elsewhere=elsewhere)

    def new(self):
        """A folder for a run, which is not there yet."""
        self._count += 1
        return self.runs / f"{self._count}"

    def fresh(self, *sets, after=None, stage="targets"):
        """What a run into a folder of its own leaves.

        Args:
            sets: settings.
            after: a run of which it may have what came before a stage; nothing else of it.
            stage: that stage, `targets` or `evaluate`.
        """
        output = self.new()
        if after is not None:
            shutil.copytree(after, output, ignore=shutil.ignore_patterns(*LATER[stage]))
            record = json.loads((output / "stages.json").read_text(encoding="utf-8"))
            kept = {name: record[name] for name in record if name in BEFORE[stage]}
            (output / "stages.json").write_text(json.dumps(kept), encoding="utf-8")
        self.run(output, *sets)
        found = results_of(output)
        shutil.rmtree(output)
        return found


def sound(seconds, seed):
    """Noise whose loudness changes, so that each part of it is another input."""
    steps = np.random.default_rng(seed).normal(0, 0.1, seconds * 16000)
    return steps * np.repeat(np.linspace(0.2, 1.0, seconds), 16000)


def write_sound(path, seconds, seed):
    soundfile.write(path, sound(seconds, seed), 16000, subtype="PCM_16")


def write_hearing_whisper(folder, processor, texts, *, seed=0):
    """A scripted Whisper of whose layers something stays: what it hears moves its probabilities, and hidden states."""
    write_scripted_whisper(folder, processor, (3.0, texts[0]), (7.0, texts[1]), seed=seed)
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            weight = layer.encoder_attn.out_proj.weight
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    model.save_pretrained(folder)
    return folder


def make_workplace(folder, processor):
    """Models, recordings and a recipe in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_hearing_whisper(folder / "teacher", processor, WRITTEN)
    write_hearing_whisper(folder / "other", processor, (HEARD[0], WRITTEN[1]), seed=1)
    write_hearing_whisper(folder / "auxiliary", processor, HEARD, seed=2)
    write_sound(folder / "one.wav", 38, 1)
    write_sound(folder / "two.wav", 9, 2)
    write_sound(folder / "dev.wav", 9, 3)
    rows = [{"audio": "one.wav", "other": "two.wav"}, {"audio": "two.wav", "other": "one.wav"}]
    lines = {"one.jsonl": rows, "two.jsonl": rows[1:]}
    spoken = " ".join(WRITTEN)
    lines["dev.jsonl"] = [{"audio": "dev.wav", "reference": spoken, "spoken": "別的 words", "session": "s"}]
    lines["corpus.jsonl"] = [{"audio": "dev.wav", "text": "語料 of a corpus"}]
    for name, content in lines.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="package")
def workplace(tmp_path_factory, processor):
    """Models, sound and a recipe. Read them, never change them."""
    torch.set_num_threads(1)
    folder = make_workplace(tmp_path_factory.mktemp("changed") / "workplace", processor)
    return Workplace(folder, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="package")
def finished(workplace):
    """The folder of a run that went through."""
    output = workplace.new()
    workplace.run(output)
    return output


@pytest.fixture
def again(finished, tmp_path):
    """A copy of that run, to go on with."""
    return shutil.copytree(finished, tmp_path / "again")
