"""Paths in a recipe: looked up from its own folder first, then from the current one."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import is_address
from k2d_hf.formatting import quote

Data = TypeVar("Data", bound=Any)  # settings with a `source`


def data_of(data: Data, recipe: Path, key: str, *, may_lack: bool) -> Data:
    """With a path beside the recipe or from here made absolute; a Hub id is told apart by what exists."""
    source = data.source
    found = _found(source, recipe)
    if found is not None:
        return dataclasses.replace(data, source=found)
    if not may_lack and (Path(source).suffix or source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise _nowhere(source, recipe, key)
    return data


def file_of(path: str, recipe: Path, key: str, *, may_lack: bool) -> str:
    """The same of a file, which no Hub has."""
    found = _found(path, recipe)
    if found is None and not may_lack:
        raise _nowhere(path, recipe, key)
    return path if found is None else found


def _found(path: str, recipe: Path) -> str | None:
    """What there is at a path beside the recipe or from here, by its absolute path; an address as it is."""
    if is_address(path):
        return path
    expanded = Path(os.path.expanduser(path))  # which, unlike that of a Path, leaves unknown users alone
    for candidate in (recipe.parent / expanded, expanded):
        if path and os.path.exists(candidate):  # likewise with names too long for the disk
            return str(candidate.resolve())
    return None


def _nowhere(path: str, recipe: Path, key: str) -> K2DError:
    return K2DError(f"{recipe}: {key}: {quote(path)} does not exist, neither beside the recipe nor from here")


def models_of(models: str | list[str], recipe: Path, *, word: str | None = None) -> str | list[str]:
    """Model sources, of which a folder beside the recipe is given by its path from here; `word` is no folder."""
    if not isinstance(models, str):
        return [str(models_of(model, recipe, word=word)) for model in models]
    folder = recipe.parent / models
    return str(folder) if models != word and os.path.isdir(folder) else models
