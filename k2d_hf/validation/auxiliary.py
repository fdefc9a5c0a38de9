"""The auxiliary's pass: each chunk again, from scratch, then distance and verdict (K2D, stage 2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import COUNTED_AT_ONCE
from k2d_hf.data.chunk_schema import rows_of
from k2d_hf.data.segment_verdicts import READ, distrusted_seconds, kept_seconds
from k2d_hf.data.utterances import as_chunks, names_of
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import dataset_of
from k2d_hf.files.keywords import takes
from k2d_hf.files.shards import Shard, Values, shards_of
from k2d_hf.labelling.hypotheses import chunk_features
from k2d_hf.terminal.progress import length_of, progress_bar
from k2d_hf.transcription.map_step import finished_shards
from k2d_hf.transcription.transcribers import Transcriber
from k2d_hf.validation.distance import ValidationReport
from k2d_hf.validation.hypotheses import AuxiliaryHypotheses, added_features, check_chunks, planned, shard_schema
from k2d_hf.validation.judges import limits_of
from k2d_hf.validation.kept_parts import TextBefore
from k2d_hf.validation.settings import ValidateSettings

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.getLogger(__name__)


@takes(ValidateSettings)
def validate_labels(
    chunks: Dataset | IterableDataset,
    auxiliary: str | Path | Sequence[str] | Transcriber,
    *,
    language: str | None = None,
    shards_dir: str | Path | None = None,
    report: ValidationReport | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: ValidateSettings,
) -> Dataset:
    """Transcribe every chunk with the auxiliary and mark those to keep (K2D, stage 2, Eq. 1 to 5).

    Args:
        chunks: what `label_recordings` gave; a stream is read once, and never held.
        auxiliary: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own
            options.
        language: code or name, such as `zh`, of chunks that carry none.
        shards_dir: folder that keeps the transcripts of each shard, so that an interrupted run resumes; one for each
            auxiliary, whatever the metric and threshold.
        report: counts of what was kept and dropped, filled in. Without one, a very low share of kept chunks is a
            warning; whoever gives one has it from there.
        on_progress: called with the number of chunks done, and by Ray with a word on how it goes; None shows a bar as
            `datasets.map` does, and hides it likewise.

    Returns:
        The same rows, or with `unit="segment"` and `keep="cut"` parts of them, with `auxiliary_text`,
        `teacher_loops`, `auxiliary_loops`, `mer`, `per`, `distance`, what the judges measure (such as
        `speaking_rate`), `keep` and `drop_reason` (null where kept). With `unit="segment"` also `segment_verdicts`,
        null where a chunk was judged as one, and `chunk_distance`; `previous_text` is then what of it is trusted.

    Raises:
        K2DError: for an unknown metric, a threshold outside [0, 1], a limit of 0 or less, an auxiliary that cannot be
            loaded or fails on one chunk after the other, no chunks, chunks to be cut that carry their own sound, or a
            `shards_dir` of other settings.
    """
    chunks = as_chunks(chunks)
    check_chunks(chunks.column_names or [], limits_of(vars(settings)))
    step = AuxiliaryHypotheses(auxiliary, language=language, settings=settings)
    known: Any = chunks.features if chunks.features is not None else chunk_features(names_of(chunks))
    features = type(known)({**known, **added_features(settings, known)})

    def shards() -> Iterator[Shard]:
        return shards_of(planned(chunks.with_format(None)), settings.shard_size)

    length = length_of(chunks)
    calls = 1 << 30 if length is None else -(-length // settings.batch_size)
    with (
        progress_bar(on_progress, "Validate", length, "chunks") as progress,
        finished_shards(
            shards, step.work, step.model, settings, schema=shard_schema(), folder=shards_dir, calls=calls,
            on_progress=progress,
        ) as finished,
    ):  # fmt: skip
        validated = dataset_of(_judged(finished, step), features)
    if len(validated) == 0:
        raise K2DError("there are no chunks to validate")
    counted = report if report is not None else ValidationReport()
    counted.threshold = settings.threshold
    count_kept(validated, counted, by_segment=settings.unit == "segment")
    if report is None and (warning := counted.warning()):
        logger.warning("%s", warning)
    return validated


def drop_counts(chunks: Dataset) -> Counter[str]:
    """Chunks dropped, by reason."""
    return Counter(reason for reason in chunks["drop_reason"] if reason is not None)


def count_kept(validated: Dataset, report: ValidationReport, *, by_segment: bool) -> None:
    """Fill a report with what was kept and dropped of validated chunks, and where these were judged by segments."""
    report.chunks, report.dropped = len(validated), drop_counts(validated)
    if not by_segment:
        return
    report.whole_seconds = 0.0
    columns = [*READ, "chunk_distance"]
    for batch in validated.select_columns(columns).iter(batch_size=COUNTED_AT_ONCE):
        for row in rows_of(batch):
            report.seconds += row["duration"]
            report.kept_seconds += kept_seconds(row)
            for reason, seconds in distrusted_seconds(row):
                report.masked[reason] += 1
                report.masked_seconds += seconds
            if row["chunk_distance"] is not None and row["chunk_distance"] <= report.threshold:
                report.whole_seconds += row["duration"]


def _judged(finished: Iterable[tuple[Shard, Values]], step: AuxiliaryHypotheses) -> Iterator[list[dict[str, Any]]]:
    """The rows of each shard with their verdicts."""
    before = TextBefore()
    for shard, values in finished:
        pairs = zip(shard.items, shard.rows, strict=True)
        yield [part for span, row in pairs for part in step.judged(row, values[span.key], before)]
