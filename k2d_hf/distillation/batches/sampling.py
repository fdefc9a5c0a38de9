"""The order of chunks in training: at random, yet labels of like length in a batch, so that little of it is padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import Sampler

from k2d_hf.data.chunk_schema import DRAW, LABEL, PROMPT, columns_for, rows_of
from k2d_hf.models.whisper_tokens import MAX_PROMPT_TOKENS

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.distillation.batches.collator import K2DDataCollator
    from k2d_hf.distillation.batches.mixing import Mixture

POOL = 50  # batches that are sorted together; fewer where the data set is small, as order would replace chance
READ_ROWS = 4096
LETTERS_PER_TOKEN = 4.0  # of Whisper's vocabulary, in English
TOKENS_PER_WIDE_CHARACTER = 1.2  # likewise, in Chinese


class LengthGroupedSampler(Sampler[int]):
    """Indices in an order drawn anew each epoch, neighbours of like length in the form that the collator draws for it.

    `batch_size` is in chunks of one step, of all processes and accumulated batches; `seed` is that of the order. With a
    `mixture` an epoch has the chunks that this draws, its sources evenly among those that are sorted together.
    """

    def __init__(
        self,
        rows: Dataset,
        collator: K2DDataCollator,
        *,
        batch_size: int,
        seed: int = 0,
        mixture: Mixture | None = None,
    ) -> None:
        self.rows = rows.select_columns(columns_for(DRAW, among=rows.column_names))
        self.collator, self.mixture = collator, mixture
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.plain, self.timestamps, self.prompt = label_parts(rows)

    def set_epoch(self, epoch: int) -> None:
        """Take the order and the draws of this epoch; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.plain) if self.mixture is None else len(self.mixture)

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        mixed = None if self.mixture is None else self.mixture.order(self.epoch, seed=self.seed)
        return iter(grouped_order(self.lengths(), batch_size=self.batch_size, generator=generator, order=mixed))

    def lengths(self) -> np.ndarray:
        """About how many positions each chunk takes in this epoch, [rows] int32."""
        if not self.rows.column_names:
            return self.plain  # utterances, whose labels have one form
        keys = (key for batch in self.rows.iter(batch_size=READ_ROWS) for key in rows_of(batch))
        draws = (self.collator.draws(key, epoch=self.epoch) for key in keys)
        timestamps, prompt = np.fromiter(draws, np.dtype((bool, 2)), len(self.plain)).T
        return self.plain + timestamps * self.timestamps + prompt * self.prompt


def grouped_order(
    lengths: np.ndarray, *, batch_size: int, generator: np.random.Generator, order: np.ndarray | None = None
) -> list[int]:
    """Indices in batches of like length that follow each other at random; what fills no batch comes last.

    They are all indices, in an order drawn here, or those of an `order`, of which neighbours are sorted together.
    """
    order = generator.permutation(len(lengths)) if order is None else order.copy()
    count = len(order)
    pool = batch_size * max(1, min(POOL, count // (4 * batch_size)))
    for start in range(0, count, pool):
        some = order[start : start + pool]
        order[start : start + pool] = some[np.argsort(lengths[some], kind="stable")]
    full = count - count % batch_size  # a pool is a number of batches, so that only the last of them may be short
    batches = order[:full].reshape(-1, batch_size)
    return [*batches[generator.permutation(len(batches))].ravel().tolist(), *order[full:].tolist()]


def label_parts(rows: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """About how many tokens a chunk's label has, timestamps add, and a prompt adds; [rows] int32 each.

    Counted from the letters: to tokenise a corpus would take long, and only the order needs it.
    """
    batches = rows.select_columns(columns_for(LABEL, PROMPT, among=rows.column_names)).iter(batch_size=READ_ROWS)
    parts = (_parts(chunk) for batch in batches for chunk in rows_of(batch))
    plain, timestamps, prompt = np.fromiter(parts, np.dtype((np.int32, 3)), len(rows)).T
    return plain, timestamps, prompt


def _parts(chunk: Mapping[str, Any]) -> tuple[int, int, int]:
    segments = chunk.get("segments") or ()  # which `datasets` gives as a list of mappings or a mapping of lists
    times = 2 * len(segments["start"] if isinstance(segments, dict) else segments)
    return _tokens(chunk["text"]), times, min(MAX_PROMPT_TOKENS, _tokens(chunk.get("previous_text")))


def _tokens(text: str | None) -> int:
    if not text:
        return 0
    wide = sum(character > "\u2e7f" for character in text)
    return round(wide * TOKENS_PER_WIDE_CHARACTER + (len(text) - wide) / LETTERS_PER_TOKEN)
