"""The CTranslate2 twin that the fast engine reads: made once, and it writes what the checkpoint writes."""

import shutil

import numpy as np
import pytest

from k2d_hf.errors import K2DError
from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


def test_faster_whisper_writes_what_the_checkpoint_writes(tiny_whisper, tiny_whisper_dir):
    import torch
    from ctranslate2 import StorageView
    from faster_whisper import WhisperModel

    model = WhisperModel(str(CTRANSLATE2.cached(tiny_whisper_dir)), device="cpu", compute_type="float32", cpu_threads=1)
    assert model.model.is_multilingual
    assert model.hf_tokenizer.token_to_id("<|30.00|>") == 51864
    features = model.feature_extractor(np.random.default_rng(0).normal(0, 0.1, 480000).astype(np.float32))[
        None, :, :3000
    ]
    encoded = np.array(model.model.encode(StorageView.from_array(np.ascontiguousarray(features, np.float32))))
    with torch.no_grad():
        expected = tiny_whisper.model.encoder(torch.from_numpy(features).float()).last_hidden_state.numpy()
    np.testing.assert_allclose(encoded, expected, atol=1e-3)


def test_each_content_is_converted_once_for_each_quantisation(tiny_whisper_dir, tmp_path):
    first = CTRANSLATE2.cached(tiny_whisper_dir)
    written = (first / "model.bin").stat().st_mtime_ns
    assert CTRANSLATE2.cached(str(shutil.copytree(tiny_whisper_dir, tmp_path / "copy"))) == first
    assert (first / "model.bin").stat().st_mtime_ns == written
    with (tmp_path / "copy" / "generation_config.json").open("a") as file:
        file.write("\n")
    assert (
        CTRANSLATE2.cached(tmp_path / "copy", quantization="int8").name.partition("-")[0]
        != first.name.partition("-")[0]
    )


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(K2DError, match="no safetensors weights here; give the folder of a transformers checkpoint"):
        CTRANSLATE2.cached(tmp_path)
