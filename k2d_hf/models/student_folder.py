"""The files of a student, written in one place, so that it opens wherever people have Whisper.

transformers 5 alone saves less than its predecessors, CTranslate2's converter, faster-whisper and whisper.cpp read, and
some of it in a form that transformers 4 refuses. So every folder of ours has the layout that OpenAI's checkpoints have
on the Hub: what is written here beside `save_pretrained` has the same values under the names that the others know.
`make test-compat` opens such a folder in each of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import read_json
from k2d_hf.formatting import error_message
from k2d_hf.models.generation import MOVED_FIELDS, complete_generation_config, generation_gaps
from k2d_hf.models.processors import FEATURES, NESTED, TOKENIZER
from k2d_hf.scoring.normalisers import english_spellings

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

CONFIG = "config.json"
GENERATION = "generation_config.json"
SETTINGS = (CONFIG, GENERATION)
PROCESSOR = (*TOKENIZER, FEATURES)

_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_OF_THIS_MACHINE = ("backend", "is_local", "local_files_only")  # notes of transformers 5 on how it loaded the file
_FIX = "save the student again, or copy that file of its teacher"
_read = partial(read_json, fix=_FIX)
_FLAGS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def save_student(model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: str | Path) -> None:
    """Write a complete student: weights, settings, tokenizer and feature extractor.

    Its generation config is completed first, if it is of an old checkpoint: K2DError if the tokenizer is not Whisper's.
    """
    complete_generation_config(model, lambda: processor.tokenizer)
    model.save_pretrained(folder)
    rewrite_config(folder)
    write_processor(processor, folder)


def write_processor(processor: Any, folder: str | Path) -> None:
    """Write a processor's files as all of Whisper's users read them; any other processor as it saves itself."""
    from transformers import WhisperProcessor

    processor.save_pretrained(folder)
    if not isinstance(processor, WhisperProcessor):
        return
    folder, tokenizer = Path(folder), processor.tokenizer
    processor.feature_extractor.save_pretrained(folder)
    _update(folder / FEATURES, processor_class="WhisperProcessor")
    (folder / NESTED).unlink(missing_ok=True)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()  # by id
    ids = {token.content: index for index, token in added.items()}
    end = tokenizer.eos_token
    _update(folder / "vocab.json", indent=None, **({end: ids[end]} if end in ids else {}))
    _write(folder / "added_tokens.json", {name: index for name, index in ids.items() if name != end})
    _write(folder / "normalizer.json", getattr(tokenizer, "english_spelling_normalizer", None) or english_spellings())
    config = _tokenizer_config(folder / "tokenizer_config.json", added)
    _write(folder / "tokenizer_config.json", config)
    special = {name: config[name] for name in ("additional_special_tokens", *_NAMED) if name in config}
    _write(folder / "special_tokens_map.json", special)


def rewrite_config(folder: str | Path) -> None:
    """Write the `config.json` of a folder, if it has one, under the names that transformers 4 reads as well."""
    path = Path(folder) / CONFIG
    if not path.is_file():  # that of an adapter
        return
    config = _read(path)
    if dtype := config.pop("dtype", None):
        config["torch_dtype"] = dtype
    if "max_target_positions" in config:
        config["max_length"] = config["max_target_positions"]  # whisper.cpp's converter takes it from here
    config |= dict.fromkeys(config.keys() & MOVED_FIELDS)  # the generation config has them
    _write(path, dict(sorted(config.items())))


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint has all the files of a student, in the form in which all of Whisper's users read them."""
    if not all((folder / name).is_file() for name in (*SETTINGS, *PROCESSOR)) or (folder / NESTED).exists():
        return False
    config, tokenizer = _read(folder / CONFIG), _read(folder / "tokenizer_config.json")
    return (
        "dtype" not in config
        and "max_length" in config
        and not any(config.get(name) for name in MOVED_FIELDS)
        and "added_tokens_decoder" in tokenizer
        and not isinstance(tokenizer.get("extra_special_tokens"), list)
        and not generation_gaps(_generation_config(folder))
    )


def complete_student(folder: Path, target: Path) -> None:
    """Write settings and processor of a checkpoint into `target`, with all that `save_student` writes but weights."""
    from transformers import WhisperConfig, WhisperProcessor

    try:
        processor = WhisperProcessor.from_pretrained(folder)
    except Exception as error:  # of several libraries, for what is no tokenizer
        raise K2DError(f"{folder}: its tokenizer cannot be read ({error_message(error)}); {_FIX}") from None
    settings = _generation_config(folder)
    parts: Any = SimpleNamespace(config=WhisperConfig.from_pretrained(folder), generation_config=settings)
    complete_generation_config(parts, lambda: processor.tokenizer).generation_config.save_pretrained(target)
    shutil.copyfile(folder / CONFIG, target / CONFIG)
    rewrite_config(target)
    write_processor(processor, target)


@contextmanager
def saving_complete_processor(trainer: Any) -> Iterator[None]:
    """Let a Trainer, which saves its processor in several places, write all of that processor's files."""
    own = trainer.processing_class
    trainer.processing_class = SimpleNamespace(save_pretrained=partial(write_processor, own))
    try:
        yield
    finally:
        trainer.processing_class = own


def _tokenizer_config(path: Path, added: Mapping[int, Any]) -> dict[str, Any]:
    """The tokenizer's settings with the names of special tokens where transformers 4 looks for them."""
    config = {name: value for name, value in _read(path).items() if name not in _OF_THIS_MACHINE}
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
    # with these the tokenizers of transformers 4 that are written in Python have the same ids
    config["added_tokens_decoder"] = {
        str(index): {name: getattr(token, name) for name in _FLAGS} for index, token in added.items()
    }
    return dict(sorted(config.items()))


def _generation_config(folder: Path) -> Any:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        raise K2DError(f"{folder / GENERATION}: not a generation config ({error_message(error)}); {_FIX}") from None


@lru_cache(maxsize=1)
def _update(path: Path, *, indent: int | None = 2, **values: Any) -> None:
    _write(path, {**_read(path), **values}, indent=indent)


def _write(path: Path, values: dict[str, Any], *, indent: int | None = 2) -> None:
    text = json.dumps(values, ensure_ascii=False)
    path.write_text((text if indent is None else _indented(text, indent)) + "\n", encoding="utf-8")


@lru_cache(maxsize=16)
def _indented(text: str, indent: int) -> str:
    """JSON for people; making it takes longer than all else about a processor, and each checkpoint has the same."""
    return json.dumps(json.loads(text), indent=indent, ensure_ascii=False)
