"""Validated chunks as a self-contained data set: Parquet with the audio inside, and a card.

The training data of K2D's stage 3, for others to use, without names and paths of the machine that made it.
"""

from __future__ import annotations

import io
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from os.path import splitext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError
from k2d_hf.data import chunk_schema
from k2d_hf.data.chunk_audio import read_chunk
from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.paths import name_of
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.publishing.card_facts import data_facts
from k2d_hf.publishing.card_names import escaped, hub_languages
from k2d_hf.publishing.card_use import Place
from k2d_hf.publishing.model_card_data import DataFacts
from k2d_hf.terminal.console import minutes
from k2d_hf.validation.hypotheses import validation_features
from k2d_hf.validation.judges import JUDGES

if TYPE_CHECKING:
    from datasets import Dataset, Features

ROWS_AT_ONCE = 32  # chunks in memory, and in a row group: about 20 MB
SHARD_BYTES = 400_000_000  # a file is closed once it is this long
FLAC_BYTES_A_SECOND = 24_000  # 16 bit, of noisy speech; clean speech takes less
TAGS = ["k2d", "pseudo-labels", "code-switching", "whisper"]
COLUMNS = {
    **{column.name: column.description for column in chunk_schema.COLUMNS},
    **{judge.column: judge.description for judge in JUDGES},
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SHARD = re.compile(r"data/train-\d{5}-of-\d{5}\.parquet")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenChunks:
    """Chunks to publish."""

    rows: Dataset  # all of them, as validation left them
    facts: DataFacts  # of all
    kept_only: bool  # whether only those with `keep` are published
    count: int  # of those that are published, as are seconds and languages
    seconds: float
    languages: list[str]  # codes


def open_chunks(chunks_dir: str | Path, *, kept_only: bool = True) -> OpenChunks:
    """Open and count validated chunks before anything is written.

    Raises:
        K2DError: if there are none, they were not validated, or there is no room to write them.
    """
    rows = load_chunks(chunks_dir)
    if missing := {"recording", "start", "duration", "text", "keep"} - set(rows.column_names):
        raise K2DError(f"{chunks_dir}: no column {', '.join(sorted(missing))}; give what k2d validate wrote")
    facts = data_facts(rows)
    assert facts is not None
    count, seconds = (facts.kept, facts.kept_seconds) if kept_only else (facts.chunks, facts.seconds)
    if not count:
        raise K2DError(f"{chunks_dir}: none of {len(rows)} chunks is kept, so there is nothing to push")
    languages = hub_languages([*facts.languages, *facts.mixed_in])
    if not kept_only and "language" in rows.column_names:
        languages = hub_languages([*rows.unique("language"), *facts.mixed_in])
    return OpenChunks(rows, facts, kept_only, count, seconds or 0.0, languages)


def write_data_set(
    chunks: OpenChunks,
    folder: Path,
    *,
    repo_id: str,
    facts: Mapping[str, str],
    revision: str | None = None,
    on_progress: Callable[[int], Any] | None = None,
) -> dict[str, Path]:
    """Write Parquet files and card into the empty `folder`; chunks whose audio is gone are left out, and counted.

    Repository and branch are for the card, `facts` more lines of its table; progress counts chunks done since.

    Returns:
        The files by their path in the repository.

    Raises:
        K2DError: if the folder's disk has no room, or no chunk has audio any more.
    """
    needed, free = chunks.seconds * FLAC_BYTES_A_SECOND, shutil.disk_usage(folder).free
    if needed > free:
        raise K2DError(
            f"{folder}: {needed / 1e9:.0f} GB are needed for a while, {free / 1e9:.0f} are free; set TMPDIR to a "
            "folder with more room"
        )
    lost: list[tuple[str, float]] = []  # why, and how long
    features = features_of(chunks.rows)
    written = _write_shards(_with_audio(chunks, list(features), lost, on_progress), features, folder)
    if lost:
        logger.warning("left out %d of %d chunks; the first: %s", len(lost), chunks.count, lost[0][0])
    if len(lost) == chunks.count:
        raise K2DError(f"none of {chunks.count} chunks has audio any more; the first: {lost[0][0]}")
    seconds = chunks.seconds - sum(duration for _, duration in lost)
    total = len(written)
    files = {f"data/train-{index:05d}-of-{total:05d}.parquet": shard for index, shard in enumerate(written)}
    files["README.md"] = folder / "README.md"
    table = {
        "chunks": str(chunks.count - len(lost)),
        "languages": ", ".join(chunks.languages),
        "speech": f"{minutes(seconds)} of {minutes(chunks.facts.seconds)} labelled",
        "dropped by validation": ", ".join(f"{number} {reason}" for reason, number in chunks.facts.dropped.items()),
        **facts,
    }
    card = _card(Place(repo_id, revision), table, list(features), chunks, chunks.count - len(lost))
    files["README.md"].write_text(card, encoding="utf-8")
    return files


def _card(place: Place, table: Mapping[str, str], columns: Sequence[str], chunks: OpenChunks, count: int) -> str:
    """The card as text, without a licence, which is unknown."""
    from huggingface_hub import DatasetCard, DatasetCardData

    data = DatasetCardData(
        language=chunks.languages or None,
        pretty_name=str(place.repo_id).split("/")[1],
        size_categories=next((size for most, size in _SIZES if count < most), "n>1M"),
        task_categories=["automatic-speech-recognition"],
        tags=TAGS,
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(Path(__file__).with_name("data_card_template.md")),
        repo_id=place.repo_id,
        source=place.source,
        facts=[(key, escaped(value)) for key, value in table.items() if value],
        columns=[(column, COLUMNS[column]) for column in columns],
        kept_only=chunks.kept_only,
    )
    return str(card)


def is_stale_data(path: str, _: Iterable[str]) -> bool:
    """Whether a file of the repository that this data set does not have is an earlier one's, and is deleted."""
    return _SHARD.fullmatch(path) is not None


def features_of(rows: Dataset) -> Features:
    """Columns and types of the published data set: the audio, and those of the contract that the chunks have."""
    from datasets import Audio, Features

    known = {**chunk_features(), **validation_features("segment", several=True)}
    present = {name: kind for name, kind in known.items() if name in rows.column_names}
    return Features({"audio": Audio(sampling_rate=SAMPLE_RATE), **present})


def _with_audio(
    chunks: OpenChunks, columns: list[str], lost: list[tuple[str, float]], on_progress: Callable[[int], Any] | None
) -> Iterator[list[dict[str, Any]]]:
    """The chunks to publish in batches, each row with its audio; one without goes to `lost`."""
    names = _PublicNames()
    present = chunks.rows.column_names
    columns = [*columns, *chunk_schema.columns_for(chunk_schema.SOUND, among=present)]
    columns = [name for name in present if name in columns]
    for batch in chunks.rows.select_columns(columns).iter(batch_size=ROWS_AT_ONCE):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*(batch[n] for n in columns), strict=True)]
        rows = [row for row in rows if row["keep"] or not chunks.kept_only]
        done = []
        for row in rows:
            name = names.of(row["recording"])
            try:
                samples = read_chunk(row)
            except AudioError as error:
                lost.append((str(error), row["duration"]))
                continue
            stem = splitext(name)[0]
            row["recording"] = name
            row["audio"] = {"bytes": _flac(samples), "path": f"{stem}_{round(1000 * row['start']):09d}.flac"}
            done.append(row)
        if done:
            yield done
        if on_progress is not None:
            on_progress(len(rows))


def _flac(audio: Any) -> bytes:
    # libsndfile would scale by 32767 what it read by 32768, and change samples of 16 bits
    samples = np.clip(np.round(audio * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    content = io.BytesIO()
    soundfile.write(content, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return content.getvalue()


class _PublicNames:
    """Names of recordings without their folders; of two alike, the second gets a number."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()

    def of(self, path: str) -> str:
        if path not in self.names:
            name = name_of(path.rstrip("/\\"))
            stem, ending = splitext(name)
            numbered = (f"{stem}-{number}{ending}" for number in count(2))
            self.names[path] = name if name not in self.taken else next(n for n in numbered if n not in self.taken)
            self.taken.add(self.names[path])
        return self.names[path]


def _write_shards(batches: Iterable[list[dict[str, Any]]], features: Features, folder: Path) -> list[Path]:
    """Parquet files of bounded size, a row group a batch."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = features.arrow_schema  # with the types of datasets in its metadata, so that audio is known as such
    shards: list[Path] = []
    writer = None
    try:
        for batch in batches:
            if writer is None:
                shards.append(folder / f"{len(shards)}.parquet")
                writer = parquet.ParquetWriter(shards[-1], schema)
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            if shards[-1].stat().st_size >= SHARD_BYTES:
                writer.close()
                writer = None
    finally:
        if writer is not None:
            writer.close()
    return shards
