"""A model's identity: one fingerprint of all its weights and settings, which every cache, shard and stage goes by.

Of a checkpoint it is made of its files, of a model in memory of its tensors; so the two differ, and each is the same in
every process and on every day for as long as nothing in the model changes.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from k2d_hf.errors import K2DError
from k2d_hf.files.content_keys import AT_REST, file_state, keep_digest, kept_digest
from k2d_hf.models.processors import FEATURES, NESTED, TOKENIZER

if TYPE_CHECKING:
    from torch import nn

_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")  # of CTranslate2
# In this order, on which every fingerprint depends.
_SMALL_FILES = ("config.json", "generation_config.json", *TOKENIZER, *_VOCABULARIES, FEATURES, NESTED)
_FINGERPRINT_LENGTH = 16  # hexadecimal digits: 64 bits are plenty for the checkpoints of one disk
_BLOCK = 1 << 24  # bytes of a tensor that are copied from a GPU at once
_TABLE = "sha256"
# Fields of a configuration about where a model comes from, not what it is.
_PROVENANCE = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")


def module_fingerprint(module: nn.Module, settings: Any = None) -> str:
    """The identity of a part of a model: 16 hexadecimal digits over its tensors, its adapters, and `settings`.

    `settings` is what else decides its output: a configuration, or anything that JSON can write. At 0.05 s a gigabyte
    on a CPU it costs less than reading the weights did; nothing is cached, as tensors may change at any time.
    """
    import torch

    module = getattr(module, "_orig_mod", module)  # of torch.compile
    digest = xxhash.xxh3_128()
    settings = settings.to_dict() if hasattr(settings, "to_dict") else settings
    if isinstance(settings, Mapping):
        settings = {name: value for name, value in settings.items() if name not in _PROVENANCE}
    digest.update(json.dumps([settings, _adapters(module)], sort_keys=True, default=str).encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for block in tensor.detach().contiguous().reshape(-1).view(torch.uint8).split(_BLOCK):
            digest.update(block.cpu().numpy())
    return digest.hexdigest()[:_FINGERPRINT_LENGTH]


def _adapters(module: nn.Module) -> dict[str, Any]:
    """What the layers that peft has put into a model keep beside tensors: which adapters act, and how strongly."""
    if "peft" not in sys.modules:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        name: {key: value for key, value in vars(layer).items() if key != "training" and _is_plain(value)}
        for name, layer in module.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_is_plain, value.values()))
    return value is None or isinstance(value, (bool, int, float, str))


def checkpoint_fingerprint(path: str | Path) -> str:
    """A short, stable identity of a local checkpoint: 16 hexadecimal digits over what decides its output.

    That is its weights (safetensors, or the `model.bin` of CTranslate2; K2DError where there are none), configuration,
    generation configuration, tokenizer and feature extractor. Digests of weight files are cached, so a second call
    costs nothing.
    """
    folder = Path(path)
    weights = sorted(folder.glob("*.safetensors")) or list(folder.glob("model.bin"))
    if not weights:
        raise K2DError(f"{folder}: no safetensors weights here; give the folder of a transformers checkpoint")
    digest = hashlib.sha256()
    for name in _SMALL_FILES:
        if (file := folder / name).is_file():
            digest.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    for file in weights:
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()[:_FINGERPRINT_LENGTH]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, kept in the cache for as long as the file is neither written to nor replaced."""
    path = path.resolve()
    stat = path.stat()
    if digest := kept_digest(_TABLE, str(path), file_state(stat)):
        return digest
    if (age := time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns)) < AT_REST:
        time.sleep(min(AT_REST, AT_REST - age) / 1e9)  # a later write could still get the same time
        stat = path.stat()
    digest = sha256_of_files(path)
    keep_digest(_TABLE, str(path), file_state(stat), digest, forget_missing=True)
    return digest


def sha256_of_files(*paths: Path, copy_to: Any = None) -> str:
    """SHA-256 over the bytes of files, one after the other, copied to the file `copy_to` on the way where given."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                if copy_to is not None:
                    copy_to.write(block)
    return digest.hexdigest()
