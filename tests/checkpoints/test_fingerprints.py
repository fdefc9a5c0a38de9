"""A checkpoint's fingerprint changes with what decides its output, and with nothing else; a second one is free."""

import os
import shutil

import pytest

from k2d_hf.checkpoints import fingerprints
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint, file_sha256
from k2d_hf.errors import K2DError


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
    original = fingerprints.sha256_of_stream

    def spy(*streams, **kwargs):
        names.extend(os.path.basename(stream.name) for stream in streams)
        return original(*streams, **kwargs)

    monkeypatch.setattr(fingerprints, "sha256_of_stream", spy)
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


@pytest.mark.parametrize("memory", ["", "[]", "{", '{"x": 1}', "\ufeff"])
def test_a_damaged_memory_is_written_anew(copy, tmp_path, hashed, memory):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "sha256.json").write_text(memory, encoding="utf-8")
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
    memory = (tmp_path / "cache" / "sha256.json").read_text()
    assert [name in memory for name in ("one", "two", "three")] == [False, True, True]


def test_a_folder_without_weights_is_an_error(tmp_path):
    with pytest.raises(K2DError, match="no safetensors weights here; give the folder of a transformers checkpoint"):
        checkpoint_fingerprint(tmp_path)
