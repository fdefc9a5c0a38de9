"""A Whisper processor that needs no file: the ids of Whisper's special tokens, and a token for each byte of text."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

VOCABULARY, TEXT_TOKENS = 51865, 50257  # of the multilingual Whispers up to large-v2
TIMESTAMPS = 1501  # <|0.00|> to <|30.00|>
SHAPES = {"vocab_size": VOCABULARY, "num_mel_bins": 80, "max_target_positions": 448, "max_source_positions": 1500}


def special_tokens() -> list[str]:
    """Names of the tokens from id 50257 on, in their order."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    languages = [language for language in LANGUAGES if language != "yue"]  # which large-v3 added
    names = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    times = [f"{index * 0.02:.2f}" for index in range(TIMESTAMPS)]
    return [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *languages, *names, *times)]


def write_tokenizer(path: Path) -> None:
    """A `tokenizer.json` of Whisper's size whose text tokens are the 256 bytes, and names that are never written."""
    from tokenizers.pre_tokenizers import ByteLevel

    names = special_tokens()
    letters = sorted(ByteLevel.alphabet())
    texts = letters + [f"\N{REPLACEMENT CHARACTER}{index}" for index in range(TEXT_TOKENS - len(letters))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": TEXT_TOKENS + index, "content": name, "special": index < len(names) - TIMESTAMPS, **flags}
        for index, name in enumerate(names)
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": False, "vocab": {text: index for index, text in enumerate(texts)}, "merges": [],
    }  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model,
    }  # fmt: skip
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


@cache
def processor() -> Any:
    """A `WhisperProcessor` with that tokenizer."""
    from transformers import WhisperProcessor

    from k2d_hf.models.conversion import save_processor

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(Path(folder) / "bytes.json")
        save_processor(Path(folder) / "bytes.json", Path(folder), shapes=SHAPES)
        return WhisperProcessor.from_pretrained(folder)
