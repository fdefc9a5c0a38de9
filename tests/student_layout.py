"""What a student's folder must look like for transformers 4 and 5, CTranslate2's converter and whisper.cpp's."""

import json
from pathlib import Path

FILES = {
    *("config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    "normalizer.json",
}
GENERATION = {
    *("lang_to_id", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id", "is_multilingual", "max_length"),
    *("suppress_tokens", "begin_suppress_tokens", "decoder_start_token_id", "eos_token_id", "pad_token_id"),
}


def json_of(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_layout(folder: Path, original) -> None:
    """Assert that a folder has the layout of OpenAI's checkpoints, and the tokenizer of the processor `original`."""
    names = {path.name for path in folder.iterdir()}
    assert FILES - names == set()
    assert "processor_config.json" not in names  # over which 4.49 fails to build a processor
    check_settings(folder)
    check_processor(folder, original)


def check_settings(folder: Path) -> None:
    config, generation = json_of(folder / "config.json"), json_of(folder / "generation_config.json")
    assert config["torch_dtype"] == "float32"
    assert "dtype" not in config
    assert config["max_length"] == config["max_target_positions"] == generation["max_length"]
    assert not any(config.get(name) for name in ("forced_decoder_ids", "suppress_tokens", "begin_suppress_tokens"))
    assert GENERATION - generation.keys() == set()
    assert generation.get("forced_decoder_ids") is None
    assert generation["no_timestamps_token_id"] == 50363
    assert generation["lang_to_id"]["<|zh|>"] == 50260


def check_processor(folder: Path, original) -> None:
    from transformers import WhisperProcessor

    settings, whole = json_of(folder / "tokenizer_config.json"), json_of(folder / "tokenizer.json")
    vocabulary, added = json_of(folder / "vocab.json"), json_of(folder / "added_tokens.json")
    assert not isinstance(settings.get("extra_special_tokens"), list)  # which 4.49 and 4.57 take for a mapping
    assert settings["additional_special_tokens"][-1] == "<|notimestamps|>"  # timestamps are counted from there
    assert (
        json_of(folder / "special_tokens_map.json")["additional_special_tokens"]
        == settings["additional_special_tokens"]
    )
    decoder = {token["content"]: index for index, token in settings["added_tokens_decoder"].items()}
    assert decoder == {token["content"]: str(token["id"]) for token in whole["added_tokens"]}
    assert vocabulary | added == original.tokenizer.get_vocab()
    assert vocabulary.keys() & added.keys() == set()
    plain = sorted(index for token, index in vocabulary.items() if token != "<|endoftext|>")
    assert plain == list(range(len(plain)))  # whisper.cpp counts them
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert merges[0].startswith("#version")
    assert [tuple(line.split(" ")) for line in merges[1:]] == [tuple(pair) for pair in whole["model"]["merges"]]
    assert json_of(folder / "normalizer.json")["colour"] == "color"
    features = json_of(folder / "preprocessor_config.json")
    assert features["processor_class"] == "WhisperProcessor"
    assert features["feature_size"] == original.feature_extractor.feature_size
    loaded = WhisperProcessor.from_pretrained(folder)
    assert loaded.tokenizer.get_vocab() == original.tokenizer.get_vocab()
    assert loaded.tokenizer.all_special_ids == original.tokenizer.all_special_ids
    for text in ("今天我們要介紹 business model 的基本概念。", "<|zh|><|0.00|> isn't it?<|1.00|>"):
        ids = original.tokenizer(text).input_ids
        assert loaded.tokenizer(text).input_ids == ids
        assert loaded.tokenizer.decode(ids) == original.tokenizer.decode(ids)
    assert loaded.tokenizer.decode([50364, 2415], decode_with_timestamps=True).startswith("<|0.00|>")
    assert loaded.feature_extractor.to_dict().items() >= original.feature_extractor.to_dict().items()
