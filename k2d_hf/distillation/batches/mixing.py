"""Several sources of chunks in one training: how many of each an epoch has, and in which order (data mixing).

Beyond the paper, which learns from pseudo-labels alone. Chunks whose text was given name their source in the column
`source`, where pseudo-labels have null. Without a share all chunks of a source are in an epoch once, as pseudo-labels
are. With one it has that share of the epoch, to the nearest chunk, and goes on in the next epoch where it stopped, so
that no chunk comes again before all have come. `datasets.interleave_datasets` draws a source at a time, so its shares
are those of chance, and its order is the same in every epoch; it is the way for streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from k2d_hf.data.chunk_schema import SOURCE
from k2d_hf.distillation.settings import chunks_in_epoch
from k2d_hf.errors import K2DError
from k2d_hf.formatting import counted, quote, short_name

READ_ROWS = 10_000


@dataclass(frozen=True)
class Source:
    """The chunks of one source among the rows of a training."""

    name: str | None  # None is the pseudo-labels
    rows: np.ndarray  # [chunks] int64, their indices
    share: float | None  # of an epoch; None is one pass of all of them
    in_epoch: int  # chunks of it in an epoch

    def drawn(self, epoch: int, *, seed: int, number: int) -> np.ndarray:
        """Its rows in an epoch, in an order drawn anew in each pass, [in_epoch] int64; `number` is its own."""
        first, count = epoch * self.in_epoch, len(self.rows)
        passes = range(first // count, (first + self.in_epoch - 1) // count + 1)
        orders = [np.random.default_rng([seed, number, one]).permutation(self.rows) for one in passes]
        return np.concatenate(orders)[first % count :][: self.in_epoch]


class Mixture:
    """The sources of a training and the order of an epoch, which depends on seed and epoch alone.

    Args:
        sources: names of the sources by row; None of pseudo-labels.
        shares: by name; what is not named has none.

    Raises:
        K2DError: for a share of a source that has no row.
    """

    def __init__(self, sources: np.ndarray, shares: Mapping[str, float]) -> None:
        names = sorted({name for name in sources if name is not None})
        if lacking := [name for name in shares if name not in names]:
            there = f"of {', '.join(map(quote, names))}" if names else "and all are pseudo-labels (column source)"
            raise K2DError(
                f"shares: no chunk to train on is of {quote(lacking[0])}, {there}; give the name of a source"
            )
        every = [name for name in (None, *names) if (sources == name).any()]
        rows = {name: np.flatnonzero(sources == name) for name in every}
        if all(name in shares for name in rows):
            raise K2DError("shares: every source has one, so nothing says how long an epoch is; leave out one of them")
        counts = chunks_in_epoch({name: len(of_one) for name, of_one in rows.items()}, shares)
        self.sources = [
            Source(name, of_one, shares.get(name) if name is not None else None, counts[name])
            for name, of_one in rows.items()
        ]

    def __len__(self) -> int:
        """Chunks in an epoch."""
        return sum(source.in_epoch for source in self.sources)

    def order(self, epoch: int, *, seed: int) -> np.ndarray:
        """The rows of an epoch, [chunks] int64: each source spread evenly over it, so that each batch has its share."""
        drawn = [source.drawn(epoch, seed=seed, number=at) for at, source in enumerate(self.sources)]
        offsets = np.random.default_rng([seed, epoch]).random(len(drawn))
        places = [(np.arange(len(rows)) + offset) / len(rows) for rows, offset in zip(drawn, offsets, strict=True)]
        return np.concatenate(drawn)[np.argsort(np.concatenate(places), kind="stable")]

    def facts(self) -> list[dict[str, Any]]:
        """The sources for logs and cards, ready for JSON: name, chunks, those in an epoch, and share."""
        return [
            {"name": source.name, "chunks": len(source.rows), "in_epoch": source.in_epoch, "share": source.share}
            for source in self.sources
        ]


class MixedSampler(Sampler[int]):
    """Indices of rows in the order of a mixture, another in each epoch."""

    def __init__(self, mixture: Mixture, *, seed: int = 0) -> None:
        self.mixture, self.seed, self.epoch = mixture, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[int]:
        return iter(self.mixture.order(self.epoch, seed=self.seed).tolist())


def mixture_of(rows: Any, shares: Mapping[str, float] | None) -> Mixture | None:
    """The sources among the rows of a training; None where all are pseudo-labels, and where nobody knows.

    Raises:
        K2DError: for shares that the rows do not have sources for.
    """
    if SOURCE not in (getattr(rows, "column_names", None) or ()) or not hasattr(rows, "select_columns"):
        if shares:
            wanted = ", ".join(map(short_name, shares))
            raise K2DError(
                f"shares: the chunks have no column {SOURCE}, which names where each is from ({wanted}): k2d mix and "
                "load_labelled write it"
            )
        return None
    batches = rows.select_columns([SOURCE]).with_format(None).iter(batch_size=READ_ROWS)
    sources = np.array([name for batch in batches for name in batch[SOURCE]], dtype=object)
    return Mixture(sources, shares or {}) if shares or any(name is not None for name in sources) else None


def described_source(fact: Mapping[str, Any]) -> str:
    """A source in a line: `300 chunks of cv, 20% of an epoch`."""
    chunks = counted(fact["chunks"], "chunk")
    of = f"{chunks} of {fact['name']}" if fact["name"] is not None else f"{chunks} with pseudo-labels"
    if fact["share"] is None:
        return of
    times = fact["in_epoch"] / fact["chunks"]
    often = f", each {times:.1f} times" if times > 1.5 else ""
    return f"{of}, {fact['share']:.0%} of an epoch ({fact['in_epoch']}{often})"
