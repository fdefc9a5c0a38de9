"""Training on a stream of chunks, such as Parquet files read on the way, without holding the corpus (K2D, stage 3).

A stream has no length and no order to choose: what is not trained on is found as it goes by, and one pass follows the
other without a break, so that every chunk comes once a pass whatever the batches and processes.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from inspect import signature
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import IterableDataset as Stream
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from k2d_hf.data.chunk_audio import chunk_name
from k2d_hf.data.utterances import as_chunks, names_of
from k2d_hf.distillation.batches.collator import EPOCH, K2DDataCollator
from k2d_hf.distillation.batches.rows import (
    DROPPED,
    NAMED,
    check_windows,
    columns_to_inspect,
    label_exceeds,
    needs_sound,
    reasons_to_leave_out,
)
from k2d_hf.distillation.batches.target_columns import (
    check_embedding,
    check_targets,
    check_temperature,
    columns_of,
    kind_of,
    number_format,
)
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    from k2d_hf.distillation.arguments import K2DTrainingArguments

logger = logging.getLogger(__name__)

# Of several files at once, which threads read, the end takes seconds in every pass
ONE_FILE = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in signature(Stream.shuffle).parameters else {}
READ, DROPPED_ROWS, TOO_LONG, UNUSABLE = range(4)  # what is counted of the first pass


def is_stream(rows: Any) -> bool:
    """Whether rows are a stream of `datasets`, of which nothing is known but how to read it."""
    return isinstance(rows, Stream)


def described(rows: Any) -> Any:
    """Something with the `column_names` of rows; those of a stream may only be known when its first row is read."""
    return SimpleNamespace(column_names=names_of(rows)) if is_stream(rows) and rows.column_names is None else rows


class ChunkStream(IterableDataset[Any]):
    """The chunks of a stream that are trained on, pass after pass, without an end.

    Arguments are those of `open_stream`, but `stored` has the kind of each model's soft targets.
    """

    def __init__(
        self,
        rows: Any,
        collator: K2DDataCollator,
        args: K2DTrainingArguments,
        stored: Mapping[str, str],
        embedding: Tensor | None,
        *,
        what: str,
    ) -> None:
        self.rows = as_chunks(rows).with_format("arrow")  # soft targets need not become lists of numbers
        self.collator, self.what = collator, what
        self.shuffle_buffer, self.seed, self.temperature = args.shuffle_buffer, args.draw_seed, args.temperature
        self.stored, self.embedding = stored, embedding
        self.arrays = [name for model, kind in stored.items() for name in columns_of(model, kind)]
        self.checked: set[tuple[Any, Any]] = set()  # temperatures and embeddings: a corpus holds few, or one of each
        self.batches_done, self.rows_of_a_batch = 0, 1
        self._warned = 0
        # What the first pass held, by worker, in shared memory
        self.counted = torch.zeros(max(1, args.dataloader_num_workers), 4, dtype=torch.int64).share_memory_()

    def pass_over(self, batches: int, *, rows_of_a_batch: int) -> None:
        """Give None for the chunks of each process's first batches, of so many rows over all: they have been seen."""
        self.batches_done, self.rows_of_a_batch = batches, rows_of_a_batch

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        worker = get_worker_info()
        index, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        seen = len(range(index, self.batches_done, workers)) * self.rows_of_a_batch  # workers take turns
        counted = self.counted[index].zero_()
        for epoch in itertools.count():
            empty = True
            for row in self._pass(epoch, counted):
                empty = False
                seen -= 1
                yield None if seen >= 0 else {**self._chunk(row), EPOCH: epoch}
            if empty and worker is not None:
                return  # the other workers may have some
            if empty:
                raise K2DError(f"nothing to train on: {self.summary()}; raise validate.threshold, or look at the rows")

    def _pass(self, epoch: int, counted: Tensor) -> Iterator[Any]:
        """The rows of one pass that are trained on, as tables of one row; those of the first are counted."""
        rows = self.rows
        if self.shuffle_buffer > 0:
            order = np.random.default_rng([self.seed, epoch])
            rows = rows.shuffle(generator=order, buffer_size=self.shuffle_buffer, **ONE_FILE)
        for row in rows:
            verdict = self._verdict(row)
            if epoch == 0:
                counted[READ] += 1
                if verdict is not None:
                    counted[verdict] += 1
            if verdict is None:
                yield row

    def _verdict(self, row: Any) -> int | None:
        """Why a row is not trained on; of the first of a pass whose sound or text is at fault, a warning names it."""
        columns = columns_to_inspect(row.column_names, self.collator)
        chunk = row.select(columns).to_pylist()[0]
        if needs_sound(chunk, row.column_names):
            chunk = row.select([*columns, "audio"]).to_pylist()[0]
        (reason,) = reasons_to_leave_out([chunk], self.collator)
        if reason is None:
            return None
        if reason in (DROPPED, label_exceeds(self.collator)):
            return DROPPED_ROWS if reason == DROPPED else TOO_LONG
        if self._warned < NAMED:
            self._warned += 1
            logger.warning("%s: left out a chunk %s: %s", self.what, reason, chunk_name(chunk))
        return UNUSABLE

    def _chunk(self, row: Any) -> dict[str, Any]:
        """A row as the collator wants it, with soft targets that the loss uses as arrays."""
        plain = [name for name in row.column_names if number_format(name) is None]
        chunk: dict[str, Any] = row.select(plain).to_pylist()[0]
        for name in self.arrays:
            tokens = row[name].combine_chunks().flatten()
            values = tokens.flatten().to_numpy(zero_copy_only=False)
            chunk[name] = values.astype(number_format(name), copy=False).reshape(len(tokens), -1)
        if self.arrays:
            self._check_targets(chunk)
        else:
            chunk.pop("target_forms", None)
        return chunk

    def _check_targets(self, chunk: Mapping[str, Any]) -> None:
        """Raise K2DError for a row whose soft targets are not those of the loss."""
        described = temperature, embedding = chunk.get("target_temperature"), chunk.get("target_embedding")
        if described in self.checked:
            return
        if self.embedding is not None:
            check_embedding([str(embedding)], self.embedding)
        if "top" in self.stored.values():
            check_temperature([temperature or 0.0], self.temperature)
        self.checked.add(described)

    def summary(self) -> str:
        """How many chunks the first pass held so far, and how many were left out."""
        read, dropped, too_long, unusable = self.counted.sum(0).tolist()
        others = f", {unusable} have no text, no sound, or more than {CHUNK_SECONDS:g} s of it" if unusable else ""
        return (
            f"of {read} chunks of the stream {dropped} were dropped by validation and {too_long} have a label of more "
            f"than {self.collator.max_tokens} tokens{others}"
        )


class OnePass(ChunkStream):
    """The chunks of a stream once and in their order, to evaluate on; of a prediction those too that no loss takes."""

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        index = 0 if (worker := get_worker_info()) is None else worker.id
        counted = self.counted[min(index, len(self.counted) - 1)].zero_()
        rows = self.rows if self.what == "prediction" else self._pass(0, counted)
        return (self._chunk(row) for row in rows)


def open_stream(
    rows: Stream,
    collator: Any,
    args: K2DTrainingArguments,
    stored: Collection[str],
    embedding: Tensor | None,
    *,
    what: str,
) -> ChunkStream:
    """A stream as the trainer wants it, without an end where `what` is training, and settings as a stream needs them.

    The soft targets of the models in `stored` take their place, with the `embedding` that makes hidden states logits.

    Raises:
        K2DError: if the number of steps is not given, the collator is not ours, or soft targets are missing.
    """
    training = what == "training"
    if training and args.max_steps <= 0:
        raise K2DError("a stream has no length: set max_steps, the number of steps to train")
    if training and args.shares:
        raise K2DError(
            "shares: a stream keeps the order that it has; mix its sources before, by datasets.interleave_datasets "
            "with probabilities"
        )
    if not isinstance(collator, K2DDataCollator):
        raise K2DError(f"a stream of chunks takes the K2DDataCollator, not {type(collator).__name__}")
    if training and args.group_by_label_length:
        logger.info("labels are not grouped by length: a stream has its own order")
    if training and args.dataloader_num_workers > rows.num_shards:
        logger.info("%d workers read the stream, one for each of its files", rows.num_shards)
        args.dataloader_num_workers = rows.num_shards
    # else one process reads for all, and cannot join batches of unequal length
    accelerator: Any = args.accelerator_config
    accelerator.dispatch_batches = False
    columns = described(as_chunks(rows))
    check_windows(columns.column_names, collator, what=what)
    for model in stored:
        check_targets(columns, model, what=what)
    kinds = {model: str(kind_of(columns, model)) for model in stored}
    return (ChunkStream if training else OnePass)(rows, collator, args, kinds, embedding, what=what)


def collate_unseen(
    collate: Callable[[Any], dict[str, Tensor]], chunks: Sequence[dict[str, Any] | None]
) -> dict[str, Tensor]:
    """A batch; of one that an interrupted run has seen nothing, which the data loader throws away."""
    return {} if chunks[0] is None else collate(chunks)
