"""Processors are read once for each content of their files, wherever these lie."""

import json
import shutil

from k2d_hf.models.processors import load_processor, load_tokenizer


def test_the_same_files_in_two_folders_are_read_once(tiny_whisper_dir, tmp_path):
    copied = shutil.copytree(tiny_whisper_dir, tmp_path / "copied")
    assert load_processor(copied) is load_processor(str(tiny_whisper_dir))
    assert load_tokenizer(copied) is load_tokenizer(tiny_whisper_dir)


def test_a_file_that_was_changed_is_read_again(tiny_whisper_dir, tmp_path):
    copied = shutil.copytree(tiny_whisper_dir, tmp_path / "copied")
    before = load_tokenizer(copied)
    path = copied / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 99}))
    assert load_tokenizer(copied).model_max_length == 99
    assert before.model_max_length != 99
