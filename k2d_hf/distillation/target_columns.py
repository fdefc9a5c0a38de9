"""The columns that hold soft targets: their types, and how training reads them back (K2D, stage 3, its KL)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.errors import K2DError

if TYPE_CHECKING:
    from datasets import Dataset, Features

PARTIES = ("teacher", "auxiliary")
READ_ROWS = 10_000

Example = tuple[list[int], list[int]]  # decoder inputs and labels


def target_features(k: int, *, auxiliary: bool = False) -> Features:
    """Columns and types that the stage adds; `target_forms` says which rows of the others belong to which form."""
    from datasets import Features, List, Value

    columns: dict[str, Any] = {}
    for party in PARTIES if auxiliary else PARTIES[:1]:
        columns[f"{party}_top_ids"] = List(List(Value("int32"), length=k))
        columns[f"{party}_top_logprobs"] = List(List(Value("float16"), length=k))
    form = {"timestamps": Value("bool"), "prompt": Value("bool"), "tokens": Value("int32"), "digest": Value("int64")}
    return Features({**columns, "target_forms": List(form), "target_temperature": Value("float64")})


def has_targets(rows: Any, party: str = "teacher") -> bool:
    """Whether a data set holds the soft targets of a party."""
    return f"{party}_top_ids" in (getattr(rows, "column_names", None) or [])


def targets_for_loss(rows: Any, stored: Sequence[str], temperature: float, *, what: str) -> Any:
    """The rows with the targets that the loss uses as arrays, and without those that it does not.

    Args:
        rows: data set of chunks, or a dictionary of them; None and whatever else has no columns stays as it is.
        stored: parties whose targets take the model's place.
        temperature: of the loss.
        what: name of the rows, for messages.

    Raises:
        K2DError: if targets are missing, or of another temperature.
    """
    if isinstance(rows, dict):
        return {name: targets_for_loss(part, stored, temperature, what=f"{what} {name}") for name, part in rows.items()}
    if rows is None or not (stored or has_targets(rows)):
        return rows
    if not stored:
        return without_targets(rows)
    for party in stored:
        if not has_targets(rows, party):
            raise K2DError(
                f"no soft targets of the {party} ({what}): write them (stage targets), or give {party}_model"
            )
    check_temperature(rows, temperature)
    return as_arrays(rows, stored)


def as_arrays(rows: Dataset, parties: Iterable[str]) -> Dataset:
    """The rows with the targets of some parties as numpy arrays, and without those of others."""
    wanted = [f"{party}_top_{part}" for party in parties for part in ("ids", "logprobs")]
    unwanted = [f"{party}_top_{part}" for party in PARTIES for part in ("ids", "logprobs")]
    rows = rows.remove_columns([name for name in unwanted if name in rows.column_names and name not in wanted])
    return rows.with_format("numpy", columns=wanted, output_all_columns=True)


def without_targets(rows: Dataset) -> Dataset:
    """The same rows without soft targets."""
    known = target_features(1, auxiliary=True)
    return rows.remove_columns([name for name in rows.column_names if name in known])


def stored_targets(chunk: Mapping[str, Any], party: str, example: Example) -> tuple[np.ndarray, np.ndarray]:
    """The stored targets of a chunk for one form of its label: ids [tokens, k] and log-probabilities likewise.

    Args:
        chunk: row with the columns of `add_soft_targets`.
        party: `teacher` or `auxiliary`.
        example: decoder inputs and labels in that form.

    Raises:
        K2DError: if no targets are stored for these very ids.
    """
    digest, at = digest_of(example), 0
    for form in chunk["target_forms"] or ():
        if form["digest"] == digest:
            part = slice(at, at + form["tokens"])
            ids, logprobs = chunk[f"{party}_top_ids"][part], chunk[f"{party}_top_logprobs"][part]
            return np.asarray(ids, dtype=np.int32), np.asarray(logprobs, dtype=np.float16)
        at += form["tokens"]
    raise K2DError(
        f"{chunk['recording']} at {chunk['start']:.1f} s: no soft targets for this form of its label; write them again "
        "(stage targets) with the same labels, language, task and probabilities of timestamps and prompts"
    )


def check_temperature(rows: Dataset, temperature: float) -> None:
    """Raise K2DError if the targets of a data set were stored at another temperature."""
    stored: set[float] = set()
    for batch in rows.select_columns(["target_temperature"]).iter(batch_size=READ_ROWS):  # `unique` would write a file
        stored.update(batch["target_temperature"])
    if stored != {temperature}:
        told = ", ".join(f"{value:g}" for value in sorted(stored))
        raise K2DError(
            f"the soft targets are of temperature {told}, the loss has {temperature:g}: write them again, or set "
            "distil.temperature"
        )


def digest_of(example: Example) -> int:
    """A number that tells one form of a label from every other."""
    inputs, labels = example
    return zlib.crc32(np.asarray([*inputs, *labels], dtype=np.int32).tobytes())
