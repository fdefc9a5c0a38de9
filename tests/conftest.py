"""Fixtures for all tests: tiny random Whispers with the real vocabulary, and sound to feed them. No network."""

import copy
import gc
import os
from importlib import resources
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before anything else
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import sys

import datasets
import numpy as np
import pytest
import soundfile
from tiny_whisper import BASE_SHAPES, WHEEL_WITH_TOKENIZER, make_tiny_whisper

LONG = (  # files of tests that take minutes: begun first, so that no core idles at the end while one of them runs
    "test_end_to_end.py", "distillation/test_processes.py", "labelling/test_ray.py", "test_runner.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Long files first; `make test` has pytest-xdist keep this order."""
    here = Path(__file__).parent
    turn = {here / name: at for at, name in enumerate(LONG)}
    items.sort(key=lambda item: turn.get(item.path, len(turn)))


@pytest.fixture(scope="session")
def processor(tmp_path_factory):
    """Whisper's processor: the real multilingual tokenizer of 51865 entries, 80 mel bins."""
    from transformers import WhisperProcessor

    from k2d_hf.models.conversion import save_processor

    folder = tmp_path_factory.mktemp("processor")
    with resources.as_file(resources.files(WHEEL_WITH_TOKENIZER) / "data" / "tokenizer.json") as path:
        save_processor(path, folder, shapes=BASE_SHAPES)
    return WhisperProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def english_processor(tmp_path_factory):
    """The processor of an English-only Whisper: one token fewer, so every special token has the id before."""
    import json

    from transformers import WhisperProcessor

    from k2d_hf.models.conversion import save_processor

    folder = tmp_path_factory.mktemp("english")
    source = resources.files(WHEEL_WITH_TOKENIZER) / "data" / "tokenizer.json"
    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    del tokenizer["model"]["vocab"][""]
    for token in tokenizer["added_tokens"]:
        token["id"] -= 1
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [index - 1 for index in token["ids"]]
    (folder / "source.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    save_processor(folder / "source.json", folder, shapes=BASE_SHAPES | {"vocab_size": 51864})
    return WhisperProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_whisper_dir(tmp_path_factory, processor) -> Path:
    """Checkpoint of a tiny random Whisper: 2 encoder and 4 decoder layers, d_model 32. Read it, never change it."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-whisper"
    make_tiny_whisper().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def loaded_tiny_whisper(tiny_whisper_dir):
    """That model, loaded once."""
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir)


@pytest.fixture
def tiny_whisper(loaded_tiny_whisper):
    """A fresh copy of that model, to be changed at will."""
    return copy.deepcopy(loaded_tiny_whisper)


@pytest.fixture(scope="session")
def noise_file(tmp_path_factory) -> Path:
    """A minute of seeded noise, 16 kHz mono."""
    path = tmp_path_factory.mktemp("sound") / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, 60 * 16000), 16000)
    return path


RECIPE = """
name: tiny
recordings: recordings
evaluation: dev.jsonl
teacher: teacher
auxiliary: auxiliary
language: zh
label: {engine: transformers, beam_size: 1, condition_on_previous_text: false}
validate: {engine: transformers}
student: {decoder_layers: 2}
evaluate: {beam_size: 2}
distil: {max_steps: 2, learning_rate: 5e-4, per_device_train_batch_size: 2, logging_steps: 1}
report: {enabled: false}
"""
WRITTEN = "今天講 machine learning", "我們用 GPU 來 train 一個 model"  # by the teacher of `workplace`, in every 30 s
HEARD = "今天講 machine learning", "我們用 GPU 來 train 兩個 models"  # by its auxiliary


@pytest.fixture(scope="session")
def workplace(tmp_path_factory, processor) -> Path:
    """A folder with all that a run needs: scripted teacher and auxiliary, recordings, one of them broken, a recipe."""
    import json

    from scripted_whisper import write_scripted_whisper

    folder = tmp_path_factory.mktemp("workplace")
    (folder / "recordings").mkdir()
    for model, texts in (("teacher", WRITTEN), ("auxiliary", HEARD)):
        write_scripted_whisper(folder / model, processor, (8.0, texts[0]), (20.0, texts[1]))
    noise = np.random.default_rng(0).normal(0, 0.05, 55 * 16000)
    soundfile.write(folder / "recordings" / "one.flac", noise, 16000)
    soundfile.write(folder / "recordings" / "two.flac", noise[: 25 * 16000], 16000)
    (folder / "recordings" / "broken.wav").write_bytes(b"this is no sound")
    soundfile.write(folder / "dev.flac", noise[: 25 * 16000], 16000)
    manifest = {"audio": "dev.flac", "reference": " ".join(WRITTEN)}
    (folder / "dev.jsonl").write_text(json.dumps(manifest) + "\n", encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _collections_pass_over_what_stays():
    """What libraries hold for good is no longer looked through: each training begins with a whole collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _far_files_hold_again():
    """What one test breaks after so many bytes breaks no other."""
    yield
    if "far_files" in sys.modules:
        sys.modules["far_files"].FarFileSystem.begin()


@pytest.fixture(scope="module")
def random_dir(tmp_path_factory, processor):
    """A random Whisper, whose text depends on all that it is given; it writes at most forty tokens a window."""
    folder, model = tmp_path_factory.mktemp("random"), make_tiny_whisper()
    model.generation_config.max_length = 40
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def bars():
    """Whatever a test does with the bars of data sets, the others find them as they were."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    yield
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
