"""The columns that hold soft targets: their types, and how training reads them back (K2D, stage 3, its KL)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_audio import chunk_name
from k2d_hf.errors import K2DError

if TYPE_CHECKING:
    from datasets import Dataset, Features
    from torch import Tensor

MODELS = ("teacher", "auxiliary")
READ_ROWS = 10_000
FULL_WINDOW = -1  # no token

Example = tuple[list[int], list[int]]  # decoder inputs and labels
KINDS = ("hidden", "top")
DTYPES = {"hidden": np.float16, "top_ids": np.int32, "top_logprobs": np.float16}  # by end of the column's name
DESCRIBED = ("target_forms", "target_temperature", "target_embedding")


def target_features(kinds: Mapping[str, str], widths: Mapping[str, int]) -> Features:
    """Columns and types that the stage adds; `target_forms` holds which rows of the others belong to which form.

    For each model whose targets are stored its kind, and how many numbers a position takes: d where that is `hidden`,
    else k.
    """
    from datasets import Features, List, Value

    columns = {
        name: List(List(Value(np.dtype(number_format(name)).name), length=widths[model]))
        for model, kind in kinds.items()
        for name in columns_of(model, kind)
    }
    form = {"timestamps": Value("bool"), "prompt": Value("bool"), "tokens": Value("int32"), "digest": Value("int64")}
    described = (List(form), Value("float64"), Value("string"))
    return Features({**columns, **dict(zip(DESCRIBED, described, strict=True))})


def number_format(column: str) -> Any:
    """The number format of a column of targets; None of any other."""
    return DTYPES.get(column.partition("_")[2])


def kind_of(rows: Any, model: str = "teacher") -> str | None:
    """Which kind of targets of a model a data set holds; None if it holds none."""
    names = getattr(rows, "column_names", None) or []
    return next((kind for kind in KINDS if set(columns_of(model, kind)) <= set(names)), None)


def columns_of(model: str, kind: str) -> list[str]:
    """Names of the columns of a model's targets."""
    return [f"{model}_hidden"] if kind == "hidden" else [f"{model}_top_ids", f"{model}_top_logprobs"]


def targets_for_loss(rows: Any, stored: Sequence[str], temperature: float, *, what: str) -> Any:
    """The rows, or the dictionary of them, with the targets that the loss uses as arrays, and without all others.

    None, and whatever else has no columns, stays as it is. `stored` are the models whose targets take their place.

    Raises:
        K2DError: if targets are missing, or of another temperature than the loss.
    """
    if isinstance(rows, dict):
        return {name: targets_for_loss(part, stored, temperature, what=f"{what} {name}") for name, part in rows.items()}
    if hasattr(rows, "column_names") and hasattr(rows, "with_format"):
        rows = rows.with_format(None)  # that of another library would turn texts and lists into arrays
    if rows is None or not (stored or kind_of(rows)):
        return rows
    if not stored:
        return without_targets(rows)
    for model in stored:
        check_targets(rows, model, what=what)
    if any(kind_of(rows, model) == "top" for model in stored):
        check_temperature(values_of(rows, "target_temperature"), temperature)
    wanted = [name for model in stored for name in columns_of(model, kind_of(rows, model) or "top")]
    rows = rows.remove_columns(
        [name for name in rows.column_names if is_target(name) and name not in (*wanted, *DESCRIBED)]
    )
    return rows.with_format("numpy", columns=wanted, output_all_columns=True)


def check_targets(rows: Any, model: str, *, what: str) -> None:
    """Raise K2DError if rows do not hold the soft targets of a model."""
    if kind_of(rows, model) is None:
        raise K2DError(f"no soft targets of the {model} ({what}): write them (stage targets), or give {model}_model")


def without_targets(rows: Dataset) -> Dataset:
    """The same rows without soft targets."""
    return rows.remove_columns([name for name in rows.column_names if is_target(name)])


def is_target(column: str) -> bool:
    """Whether a column is one of those that soft targets add."""
    return column in DESCRIBED or (column.partition("_")[0] in MODELS and number_format(column) is not None)


def stored_targets(chunk: Mapping[str, Any], example: Example, *, full_window: bool = False) -> dict[str, np.ndarray]:
    """The stored targets of a chunk for one form of its label, by column: [tokens, d] or [tokens, k] each.

    Raises:
        K2DError: if none are stored for these very ids and this input, the chunk or the full window.
    """
    digest, at = digest_of(example, full_window=full_window), 0
    for form in chunk["target_forms"] or ():
        if form["digest"] == digest:
            names = [f"{model}_{end}" for model in MODELS for end in DTYPES if f"{model}_{end}" in chunk]
            end = at + form["tokens"]
            return {name: np.asarray(chunk[name][at:end], dtype=number_format(name)) for name in names}
        at += form["tokens"]
    raise K2DError(
        f"{chunk_name(chunk)}: no soft targets for this form of its label; write them again "
        "(stage targets) with the same labels, language, task, windows and probabilities of timestamps and prompts"
    )


def check_embedding(stored: Iterable[str], embedding: Tensor) -> None:
    """Raise K2DError if an embedding, by its digest, is not the one that turns stored hidden states into logits."""
    if set(stored) - {embedding_digest(embedding)}:
        raise K2DError(
            "the soft targets are hidden states of a teacher whose embedding is not the student's: start with a "
            "student that is not trained yet, give teacher_model, or write targets of kind top"
        )


def embedding_digest(embedding: Tensor) -> str:
    """A short hash of an output embedding, in float32."""
    values: Any = embedding.detach().float().cpu().contiguous().numpy()
    return hashlib.blake2b(values, digest_size=8).hexdigest()


def check_temperature(stored: Iterable[float], wanted: float) -> None:
    """Raise K2DError if targets were stored at other temperatures than the loss has."""
    if set(stored) != {wanted}:
        values = ", ".join(f"{value:g}" for value in sorted(stored))
        raise K2DError(
            f"the soft targets are of temperature {values}, the loss has {wanted:g}: write them again, or set "
            "distil.temperature"
        )


def values_of(rows: Dataset, column: str) -> set[Any]:
    """What a column holds; `Dataset.unique` would write a file into the rows' folder."""
    values: set[Any] = set()
    for batch in rows.select_columns([column]).iter(batch_size=READ_ROWS):
        values.update(batch[column])
    return values


def digest_of(example: Example, *, full_window: bool = False) -> int:
    """A digest of one form of a label, and of its input where that is a full window."""
    inputs, labels = example
    ends = [FULL_WINDOW] if full_window else []
    return zlib.crc32(np.asarray([*inputs, *labels, *ends], dtype=np.int32).tobytes())
