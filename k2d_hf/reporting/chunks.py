"""The chunks of a run, as a report shows them: columns of numbers of all, texts of a few."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.data.chunk_schema import MORE_AUXILIARIES, SEGMENT_VERDICTS, SOUND, columns_for
from k2d_hf.data.segment_verdicts import READ, distrusted_seconds
from k2d_hf.errors import K2DError
from k2d_hf.reporting.facts import ChunkFact, Share, short_names
from k2d_hf.validation.judges import JUDGES

if TYPE_CHECKING:
    from datasets import Dataset

WORST = 20
SAMPLE = 10
SEED = 0  # of the sample: the same run gives the same page
KEPT = "kept"
MASKED = "masked: "  # before the reason, of segments within chunks that are kept
_SHOWN = (
    *("start", "duration", "text", "auxiliary_text", "distance", "mer", "per", "keep"),
    *("drop_reason", "teacher_loops", "auxiliary_loops"),
)
_NUMBERS = ("duration", "distance", "per", "keep", "drop_reason")


@dataclass(frozen=True)
class ChunkTable:
    """Columns of validated chunks; without chunks all are empty."""

    rows: Dataset | None = None
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    per: np.ndarray = field(default_factory=lambda: np.zeros(0))
    keep: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    recordings: list[str] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)  # what is kept first, then the reasons of dropping


def read_chunks(validated: Path) -> ChunkTable:
    """The chunks of the folder `validated`; an empty table where there are none, or they were not validated."""
    if not validated.is_dir():
        return ChunkTable()
    try:
        rows = load_chunks(validated).with_format(None)
    except K2DError:
        return ChunkTable()
    if not len(rows) or not {*_NUMBERS, "recording", "text", "auxiliary_text"} <= set(rows.column_names):
        return ChunkTable()
    columns = rows.select_columns(list(_NUMBERS))[:]
    masked = Masked.of(rows)
    seconds, keep = np.array(columns["duration"], float), np.array(columns["keep"], bool)
    return ChunkTable(
        rows=rows,
        seconds=seconds,
        distances=np.array(columns["distance"], float),
        per=np.array(columns["per"], float),
        keep=keep,
        recordings=sorted(rows.unique("recording")),
        shares=_shares(seconds - masked.seconds, keep, columns["drop_reason"]) + masked.shares,
    )


@dataclass(frozen=True)
class Masked:
    """The distrusted segments of chunks that are kept: their seconds by chunk [chunks], and by reason."""

    seconds: np.ndarray
    shares: list[Share]

    @classmethod
    def of(cls, rows: Dataset) -> Masked:
        """Those of validated chunks; none where no segments were judged."""
        seconds, chunks, lengths = np.zeros(len(rows)), Counter[str](), defaultdict[str, float](float)
        if SEGMENT_VERDICTS in rows.column_names:
            for index, row in enumerate(rows.select_columns(list(READ))):
                of_chunk = list(distrusted_seconds(row))
                seconds[index] = sum(length for _, length in of_chunk)
                chunks.update({reason for reason, _ in of_chunk})
                for reason, length in of_chunk:
                    lengths[reason] += length
        order = sorted(lengths, key=lambda reason: -lengths[reason])
        return cls(seconds, [Share(f"{MASKED}{reason}", chunks[reason], lengths[reason]) for reason in order])


def _shares(seconds: np.ndarray, keep: np.ndarray, reasons: Iterable[str | None]) -> list[Share]:
    """Chunks and seconds by verdict: what is kept first, then the reasons, those that cost most first."""
    verdicts = np.array([KEPT if kept else (reason or "no reason") for kept, reason in zip(keep, reasons, strict=True)])
    found = [
        Share(str(verdict), int((verdicts == verdict).sum()), float(seconds[verdicts == verdict].sum()))
        for verdict in sorted({*verdicts.tolist(), KEPT})
    ]
    return sorted(found, key=lambda share: (share.verdict != KEPT, -share.seconds))


def chunk_facts(table: ChunkTable, references: str | Path | None = None) -> tuple[list[ChunkFact], list[ChunkFact]]:
    """The chunks of the largest distance, that first (of two alike the one of the larger PER), and some kept.

    Raises:
        K2DError: for references that cannot be read, or are of other recordings.
    """
    from k2d_hf.data.references import references_of

    if table.rows is None:
        return [], []
    distances, per = (np.nan_to_num(column, nan=np.inf, posinf=np.inf) for column in (table.distances, table.per))
    worst = [int(index) for index in np.lexsort((-per, -distances))[:WORST] if distances[index] > 0]
    others = np.flatnonzero(table.keep & ~np.isin(np.arange(len(distances)), worst)).tolist()
    sample = sorted(random.Random(SEED).sample(others, min(SAMPLE, len(others))))
    names = short_names(table.recordings)
    segments = {} if references is None else references_of(references, table.recordings)
    facts = [_fact(table.rows[index], names, segments) for index in (*worst, *sample)]
    return facts[: len(worst)], facts[len(worst) :]


def _fact(row: dict[str, Any], names: dict[str, str], segments: Mapping[str, Any]) -> ChunkFact:
    from k2d_hf.data.references import chunk_reference, label_error_rate

    known = segments.get(row["recording"])
    reference = None if known is None else chunk_reference(known, row["start"], row["duration"])
    return ChunkFact(
        recording=names[row["recording"]],
        reference=reference,
        true_mer=None if reference is None else label_error_rate(reference, row["text"]),
        source={name: row[name] for name in (*columns_for(SOUND, among=row), "language") if name in row},
        more_texts=[one["text"] for one in row.get(MORE_AUXILIARIES) or ()],
        measures={judge.name: row[judge.column] for judge in JUDGES if row.get(judge.column) is not None},
        **{name: row[name] for name in _SHOWN},
    )
