"""A checkpoint's fingerprint changes with what decides its output, and with nothing else; a second one is free."""

import json
import os
import shutil
import sqlite3
from contextlib import closing

import pytest
import torch
from fresh_process import run_python

from k2d_hf.errors import K2DError
from k2d_hf.models import fingerprints, load_whisper
from k2d_hf.models.exports.ctranslate2_format import export_ctranslate2
from k2d_hf.models.fingerprints import checkpoint_fingerprint, file_sha256
from k2d_hf.models.sources import model_fingerprint


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def copy(tiny_whisper_dir, tmp_path):
    return shutil.copytree(tiny_whisper_dir, tmp_path / "copy")


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files whose content was read for a digest."""
    names = []
    original = fingerprints.sha256_of_files

    def spy(*paths, **kwargs):
        names.extend(path.name for path in paths)
        return original(*paths, **kwargs)

    monkeypatch.setattr(fingerprints, "sha256_of_files", spy)
    return names


def test_a_copy_elsewhere_has_the_same_fingerprint(tiny_whisper_dir, copy):
    found = checkpoint_fingerprint(copy)
    assert found == checkpoint_fingerprint(str(tiny_whisper_dir))
    assert len(found) == 16
    assert int(found, 16) >= 0


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", True),
        ("generation_config.json", True),
        ("tokenizer.json", True),
        ("tokenizer_config.json", True),
        ("processor_config.json", True),
        ("model.safetensors", True),
        ("README.md", False),
        ("optimizer.pt", False),
    ],
)
def test_it_changes_with_what_decides_the_output(copy, file, changes):
    before = checkpoint_fingerprint(copy)
    with (copy / file).open("ab") as stream:
        stream.write(b" ")
    assert (checkpoint_fingerprint(copy) != before) is changes


def test_it_changes_when_a_file_goes_or_moves_to_another_name(copy):
    found = [checkpoint_fingerprint(copy)]
    (copy / "generation_config.json").unlink()
    found.append(checkpoint_fingerprint(copy))
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    found.append(checkpoint_fingerprint(copy))
    assert len(set(found)) == 3


def test_weights_are_read_once_until_they_change(copy, hashed):
    first = checkpoint_fingerprint(copy)
    assert checkpoint_fingerprint(copy) == first
    assert hashed == ["model.safetensors"]
    os.utime(copy / "model.safetensors", ns=(0, 0))
    assert checkpoint_fingerprint(copy) == first
    assert hashed == ["model.safetensors"] * 2


@pytest.mark.parametrize("memory", ["", "[]", "{", 600 * "x", "\ufeff"])
def test_a_damaged_memory_is_written_anew(copy, tmp_path, hashed, memory):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "digests.sqlite").write_text(memory, encoding="utf-8")
    assert file_sha256(copy / "model.safetensors") == file_sha256(copy / "model.safetensors")
    assert hashed == ["model.safetensors"]


def test_without_a_cache_the_digest_is_made_each_time(copy, tmp_path, monkeypatch, hashed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "file" / "cache"))
    assert file_sha256(copy / "model.safetensors") == file_sha256(copy / "model.safetensors")
    assert hashed == ["model.safetensors"] * 2


def test_the_memory_forgets_files_that_are_gone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
        file_sha256(tmp_path / name)
    (tmp_path / "one").unlink()
    (tmp_path / "three").write_text("three")
    file_sha256(tmp_path / "three")
    with closing(sqlite3.connect(tmp_path / "cache" / "digests.sqlite")) as database:
        kept = [os.path.basename(name) for (name,) in database.execute("SELECT name FROM sha256")]
    assert sorted(kept) == ["three", "two"]


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(K2DError, match="no safetensors weights here; give the folder of a transformers checkpoint"):
        checkpoint_fingerprint(tmp_path)


def test_content_replaced_under_the_same_size_and_time_is_found(copy):
    before, times = checkpoint_fingerprint(copy), os.stat(copy / "model.safetensors")
    with (copy / "model.safetensors").open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\x01\x02\x03\x04")
    os.utime(copy / "model.safetensors", ns=(times.st_atime_ns, times.st_mtime_ns))
    after = os.stat(copy / "model.safetensors")
    assert (after.st_size, after.st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert checkpoint_fingerprint(copy) != before


# Models in memory


@pytest.fixture
def teacher(tiny_whisper_dir):
    return load_whisper(tiny_whisper_dir)


def with_adapters(teacher, **changes):
    """The teacher with adapters that do something; weights of the adapters are the same each time."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    settings = {"r": 2, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False, **changes}
    return get_peft_model(teacher, LoraConfig(**settings))


def changed(name, by=1e-3):
    def change(model):
        with torch.no_grad():
            model.get_parameter(name).view(-1)[0] += by

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("model.encoder.conv1.bias"),
        changed("model.decoder.layers.0.fc1.weight"),
        changed("model.decoder.embed_tokens.weight"),
        lambda model: model.half(),
        lambda model: setattr(model.config, "decoder_attention_heads", 4),
        lambda model: setattr(model.config, "activation_function", "relu"),
        lambda model: model.model.encoder.layers.pop(1),
        with_adapters,
    ],
)
def test_a_model_in_memory_changes_with_any_weight_and_setting(teacher, change):
    before = model_fingerprint(teacher)
    change(teacher)
    assert model_fingerprint(teacher) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_model_in_memory_is_known_again_and_by_no_name(teacher, tiny_whisper_dir, dtype):
    other = load_whisper(tiny_whisper_dir).to(dtype)
    other.config.name_or_path = "elsewhere"
    for parameter in other.parameters():  # other strides, same values
        parameter.data = parameter.data.t().contiguous().t() if parameter.dim() == 2 else parameter.data
    assert model_fingerprint(other) == model_fingerprint(teacher.to(dtype))


def test_adapters_count_with_their_weights_and_strength_and_whether_they_act(teacher, tiny_whisper_dir):
    def fresh(**changes):
        return with_adapters(load_whisper(tiny_whisper_dir), **changes)

    adapted = with_adapters(teacher)
    found = [model_fingerprint(adapted)]
    assert model_fingerprint(fresh()) == found[0]
    assert model_fingerprint(adapted.get_base_model()) != model_fingerprint(load_whisper(tiny_whisper_dir))
    found.append(model_fingerprint(fresh(lora_alpha=32)))  # tensors are the same
    found.append(model_fingerprint(fresh(r=4)))
    with adapted.disable_adapter():
        found.append(model_fingerprint(adapted))
    adapted.merge_adapter()
    found.append(model_fingerprint(adapted))
    other = fresh()
    changed("base_model.model.model.decoder.layers.3.self_attn.q_proj.lora_B.default.weight")(other)
    found.append(model_fingerprint(other))
    assert len(set(found)) == len(found)


def test_a_model_in_memory_is_known_in_another_process(teacher, tiny_whisper_dir, tmp_path):
    code = f"""
import torch
from peft import LoraConfig, get_peft_model
from k2d_hf.models import load_whisper
from k2d_hf.models.sources import model_fingerprint
model = load_whisper({str(tiny_whisper_dir)!r})
result = [model_fingerprint(model)]
torch.manual_seed(0)
lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
result.append(model_fingerprint(get_peft_model(model, lora)))
"""
    there, _ = run_python(code, tmp_path)
    assert there == [model_fingerprint(teacher), model_fingerprint(with_adapters(teacher))]


# Checkpoints, whatever kind they are of


def test_every_kind_of_checkpoint_has_one(tiny_whisper_dir, copy, tmp_path):
    found = model_fingerprint(tiny_whisper_dir)
    assert found == model_fingerprint(str(copy)) == checkpoint_fingerprint(copy)
    exported = export_ctranslate2(copy, tmp_path / "ct2")
    imported = model_fingerprint(exported)
    assert len({found, imported, checkpoint_fingerprint(exported)}) == 3
    settings = json.loads((exported / "config.json").read_text(encoding="utf-8"))
    (exported / "config.json").write_text(json.dumps({**settings, "suppress_ids": [1, 2]}), encoding="utf-8")
    assert model_fingerprint(exported) != imported  # though its model.bin is the same
    with pytest.raises(K2DError, match="/nowhere/at/all"):
        model_fingerprint("/nowhere/at/all")
