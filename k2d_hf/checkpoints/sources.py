"""Where a model comes from: a local folder, the Hub's cache, the Hub, or data wheels, tried in the order given.

Teacher, auxiliary and student of every stage are found here, as a local folder that transformers loads.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from k2d_hf.cache import cache_root
from k2d_hf.checkpoints.conversion import fill_checkpoint
from k2d_hf.checkpoints.fingerprints import checkpoint_fingerprint
from k2d_hf.checkpoints.generation import complete_generation_config, load_tokenizer
from k2d_hf.checkpoints.hub import HUB_NOT_REACHABLE, HUB_REACHABLE, ensure_hub_state
from k2d_hf.checkpoints.wheel_parts import join_wheels, wheels_sha256
from k2d_hf.errors import K2DError
from k2d_hf.folders import cached_folder

if TYPE_CHECKING:
    import torch
    from transformers import WhisperForConditionalGeneration

WHEELS = "wheels:"
WEIGHTS_INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"  # of peft
ADAPTER_BASE = "base.json"  # beside it, where a folder is an adapter together with what it belongs to
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>\S+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Weights in one precision and the small files; never pickles (*.bin) and never code.
_WANTED = ("*.json", "*.txt", "*.model", "model.safetensors", "model-?????-of-?????.safetensors")
_UNWANTED = ("*/*",)  # what lies in folders: other formats, training states
_IMPORT_VERSION = 2  # raise it when the importer writes something else for the same model.bin


@dataclass(frozen=True)
class Checkpoint:
    """A transformers checkpoint on this disk.

    Attributes:
        path: its folder.
        name: the name the user knows it by, such as `openai/whisper-base`.
        origin: where it came from: `local`, `hub cache`, `hub`, `wheels`, or of a local folder `ctranslate2` (imported)
            and `adapter` (merged into its base).
    """

    path: Path
    name: str
    origin: str


def resolve_checkpoint(source: str | Path | Sequence[str | Path]) -> Checkpoint:
    """The first of the given sources that answers, as a local folder.

    Args:
        source: one source or several in order. Each is a folder (a transformers checkpoint, a CTranslate2 Whisper,
            which is imported, or an adapter beside a `base.json`, which is merged), a Hub id `owner/name` or
            `owner/name@revision` (looked up as a folder, then in the Hub's cache, then on the Hub), or
            `wheels:NAME,NAME#sha256=HEX&name=owner/name`: installed distributions that carry a CTranslate2 conversion
            in parts; hash and name may be left out.

    Raises:
        K2DError: if none answers; it names each and the reason.
    """
    sources = [str(one) for one in ([source] if isinstance(source, (str, Path)) else source)]
    if not sources:
        raise K2DError("no source for the model; give a folder, a Hub id or wheels")
    reasons: list[str] = []
    for one in sources:
        try:
            return _resolve(one)
        except K2DError as error:
            reasons.append(str(error))
    if len(sources) == 1:
        raise K2DError(_advised(f"model {sources[0]}: {reasons[0]}"))
    tried = "; ".join(f"{one} ({reason})" for one, reason in zip(sources, reasons, strict=True))
    raise K2DError(_advised(f"none of the model's {len(sources)} sources answers: {tried}"))


def load_whisper(source: str | Path | Sequence[str | Path]) -> WhisperForConditionalGeneration:
    """The model of the first source that answers, in float32, with a generation config that lacks nothing.

    Raises:
        K2DError: as `resolve_checkpoint`, or if the checkpoint is not a Whisper model.
    """
    import torch

    found = resolve_checkpoint(source)
    kind = _read_json(found.path / "config.json").get("model_type")
    if kind != "whisper":
        raise K2DError(f"model {found.name}: a {kind} model, not Whisper; give a Whisper checkpoint")
    return open_whisper(found.path, dtype=torch.float32)


def open_whisper(folder: str | Path, *, dtype: torch.dtype) -> WhisperForConditionalGeneration:
    """The Whisper of a local checkpoint, with a generation config that lacks nothing, however old the checkpoint is.

    Raises:
        K2DError: if something is missing there, and the tokenizer beside it is not Whisper's.
    """
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    return complete_generation_config(model, partial(load_tokenizer, folder))


def count_parameters(path: str | Path) -> int:
    """Number of parameters of a local checkpoint, read from the headers of its weights; a tied one counts once.

    Raises:
        K2DError: if the folder is not a complete checkpoint.
    """
    from math import prod

    from safetensors import safe_open

    folder = Path(path)
    if gap := checkpoint_gap(folder):
        raise K2DError(f"{folder}: not a complete checkpoint, {gap}")
    tied = {"proj_out.weight"} if _read_json(folder / "config.json").get("tie_word_embeddings", True) else set()
    total = 0
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as weights:
            total += sum(prod(weights.get_slice(name).get_shape()) for name in set(weights.keys()) - tied)
    return total


def _advised(message: str) -> str:
    advice = "; give the path of a local checkpoint folder"
    return message if message.endswith(advice) else message + advice  # which that of an adapter's base has already


def _resolve(source: str) -> Checkpoint:
    if source.startswith(WHEELS):
        return _from_wheels(source)
    folder = Path(os.path.expanduser(source))  # which, unlike that of a Path, leaves unknown users alone
    if os.path.isdir(folder):  # likewise with names too long for the disk
        return _from_folder(source, folder)
    repo, revision = hub_id(source)
    if repo is not None:
        return _from_hub(source, repo, revision)
    raise K2DError("no such folder, and not a Hub id of the form owner/name")


def hub_id(source: str) -> tuple[str | None, str | None]:
    """Repository and revision of `owner/name@revision`; None twice of what is no Hub id."""
    match = _HUB_ID.fullmatch(source)
    return (match["repo"], match["revision"]) if match else (None, None)


def _from_folder(source: str, folder: Path) -> Checkpoint:
    if is_adapter(folder):
        from k2d_hf.checkpoints.adapters import merged_checkpoint, read_adapter  # which imports this module

        return Checkpoint(merged_checkpoint(folder), read_adapter(folder).name or source, "adapter")
    model = folder / "model.bin"
    if model.is_file() and not weight_files(folder):
        imported = _imported(checkpoint_fingerprint(folder), lambda target: fill_checkpoint(folder, target))
        return Checkpoint(imported, source, "ctranslate2")
    if gap := checkpoint_gap(folder):
        raise K2DError(f"the folder is not a complete checkpoint, {gap}")
    return Checkpoint(folder, source, "local")


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter that says what it belongs to; one with whole weights beside it is not."""
    return (folder / ADAPTER_BASE).is_file() and not weight_files(folder)


def wheels_of(source: str) -> tuple[list[str], dict[str, str]]:
    """The distributions of `wheels:NAME,NAME#sha256=HEX&name=owner/name`, and its settings.

    Raises:
        K2DError: if it is written otherwise.
    """
    names, _, fragment = source.removeprefix(WHEELS).partition("#")
    distributions = [name.strip() for name in names.split(",") if name.strip()]
    settings = {key: values[-1] for key, values in parse_qs(fragment).items()}
    if "sha256" in settings:
        settings["sha256"] = settings["sha256"].lower()
    known = settings.keys() <= {"sha256", "name"}
    if not distributions or not known or not _SHA256.fullmatch(settings.get("sha256", "0" * 64)):
        raise K2DError("write wheels as wheels:NAME,NAME#sha256=HEX&name=owner/name, the hash with 64 digits")
    return distributions, settings


def _from_wheels(source: str) -> Checkpoint:
    distributions, settings = wheels_of(source)
    expected = settings.get("sha256")

    def build(target: Path) -> None:
        joined = target / "joined"
        joined.mkdir()
        join_wheels(distributions, joined, sha256=expected)
        fill_checkpoint(joined, target)
        shutil.rmtree(joined)

    path = _imported(expected or wheels_sha256(distributions), build)
    return Checkpoint(path, settings.get("name", "+".join(distributions)), "wheels")


def imported_folder(identity: str) -> Path:
    """Where an imported checkpoint is kept, whether it is there or not.

    Args:
        identity: of wheels the SHA-256 of their model.bin, of a folder its fingerprint.
    """
    return cache_root() / "checkpoints" / f"{identity[:16]}-{_IMPORT_VERSION}"


def _imported(identity: str, build: Callable[[Path], object]) -> Path:
    """The checkpoint imported from a CTranslate2 model of this identity, kept in the cache."""
    return cached_folder(imported_folder(identity), build)


def _from_hub(source: str, repo: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    # Not `snapshot_download(local_files_only=True)`: it hands back whatever part of a snapshot is there, unless the
    # same function had listed the repository before.
    try:
        config = try_to_load_from_cache(repo, "config.json", revision=revision)
    except HFValidationError as error:
        raise K2DError(f"not a folder here, and not a Hub id ({_first_line(error)})") from None
    cached = Path(config).parent if isinstance(config, str) else None
    gap = checkpoint_gap(cached) if cached else None
    if cached is not None and gap is None:
        return Checkpoint(cached, source, "hub cache")
    tried = f"not a folder here, {f'incomplete in the cache ({gap})' if gap else 'not in the cache'}, and"
    state = ensure_hub_state()
    if state == HUB_NOT_REACHABLE:
        raise K2DError(f"{tried} the Hub is not reachable")
    if state != HUB_REACHABLE:
        raise K2DError(f"{tried} the Hub is not asked ({state})")
    try:
        path = Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(_WANTED), ignore_patterns=list(_UNWANTED))
        )
    except GatedRepoError:
        raise K2DError(f"{tried} gated on the Hub: accept its terms on its page, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise K2DError(f"{tried} the Hub has no such model (a private one needs `hf auth login`)") from None
    except RevisionNotFoundError:
        raise K2DError(f"{tried} the Hub has the model, but no revision {revision}") from None
    except Exception as error:  # of three libraries, and of another HTTP library from one release to the next
        raise K2DError(f"{tried} the download failed ({_first_line(error)})") from error
    if gap := checkpoint_gap(path):
        raise K2DError(f"{tried} what the Hub has is not a complete transformers checkpoint, {gap}")
    return Checkpoint(path, source, "hub")


def checkpoint_gap(folder: Path) -> str | None:
    """What is missing for `folder` to load as model and processor; None where it is complete."""
    from safetensors import SafetensorError, safe_open

    if (folder / ADAPTER).is_file():  # transformers would load another model in its place, from anywhere
        return f"adapters for another model ({ADAPTER}); merge them, or name their base in {ADAPTER_BASE}"
    if not (folder / "config.json").is_file():
        return "no config.json"
    try:
        _read_json(folder / "config.json")
        weights = weight_files(folder)
    except K2DError as error:
        return str(error)
    if not weights:
        return "no weights as safetensors"
    for file in weights:
        if file.parent != folder:
            return f"{WEIGHTS_INDEX} names a file outside it"
        if not file.is_file():
            return f"no {file.name}"
        try:
            with safe_open(file, framework="numpy"):  # reads the header and compares it with the file's length
                pass
        except SafetensorError as error:
            return f"{file.name} is damaged ({_first_line(error)})"
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        return "no tokenizer.json"
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return "no preprocessor_config.json"
    return None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the checkpoint consists of, whether they are there or not."""
    if (folder / WEIGHTS_INDEX).is_file():
        places = _read_json(folder / WEIGHTS_INDEX).get("weight_map", {})
        return [folder / name for name in sorted(set(places.values()))]
    return [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise K2DError(f"{path}: not readable as JSON ({_first_line(error)}); download or copy it again") from None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
