"""The auxiliary's pass: each chunk again, from scratch, then distance and verdict (K2D, stage 2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
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
from k2d_hf.transcription.map_step import Source, finished_shards
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
    auxiliary: Source,
    *,
    more_auxiliaries: Sequence[Source] = (),
    language: str | None = None,
    shards_dir: str | Path | Sequence[str | Path] | None = None,
    report: ValidationReport | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: ValidateSettings,
) -> Dataset:
    """Transcribe every chunk with the auxiliary and mark those to keep (K2D, stage 2, Eq. 1 to 5).

    Args:
        chunks: what `label_recordings` gave; a stream is never held, and read once for one auxiliary.
        auxiliary: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own
            options.
        more_auxiliaries: a list of others, each given likewise, which transcribe the chunks one after the other; the
            distance is that of all, by `auxiliaries_by`.
        language: code or name, such as `zh`, of chunks that carry none.
        shards_dir: folder that keeps the transcripts of each shard, so that an interrupted run resumes; one for each
            auxiliary, whatever the metric and threshold, and a list of them where there are several.
        report: counts of what was kept and dropped, filled in. Without one, a very low share of kept chunks is a
            warning; whoever gives one has it from there.
        on_progress: called with the number of chunks done, and by Ray with a word on how it goes; None shows a bar as
            `datasets.map` does, and hides it likewise.

    Returns:
        The same rows, or with `unit="segment"` and `keep="cut"` parts of them, with `auxiliary_text`,
        `teacher_loops`, `auxiliary_loops`, `mer`, `per`, `distance`, what the judges measure (such as
        `speaking_rate`), `keep` and `drop_reason` (null where kept). With more auxiliaries the text, loops and rates
        are those of the first, `distance` is that of all, and `more_auxiliaries` has what the others wrote. With
        `unit="segment"` also `segment_verdicts`, null where a chunk was judged as one, and `chunk_distance`;
        `previous_text` is then what of it is trusted.

    Raises:
        K2DError: for an unknown metric, a threshold outside [0, 1], a limit of 0 or less, an auxiliary that cannot be
            loaded or fails on one chunk after the other, no chunks, chunks to be cut that carry their own sound, a
            `shards_dir` of other settings, or not one for each auxiliary.
    """
    chunks = as_chunks(chunks)
    check_chunks(chunks.column_names or [], limits_of(vars(settings)))
    step = AuxiliaryHypotheses(auxiliary, more_auxiliaries=more_auxiliaries, language=language, settings=settings)
    folders = _folders(shards_dir, len(step.models))
    known: Any = chunks.features if chunks.features is not None else chunk_features(names_of(chunks))
    features = type(known)({**known, **added_features(settings, known, several=step.several)})

    def shards() -> Iterator[Shard]:
        return shards_of(planned(chunks.with_format(None)), settings.shard_size)

    length = length_of(chunks)
    calls = 1 << 30 if length is None else -(-length // settings.batch_size)
    total = None if length is None else length * len(step.models)
    with progress_bar(on_progress, "Validate", total, "chunks") as progress, ExitStack() as stack:
        finished = [
            stack.enter_context(
                finished_shards(
                    shards, step.work, model, settings, schema=shard_schema(), folder=folder, calls=calls,
                    on_progress=progress, ahead=step.several,
                )
            )
            for model, folder in zip(step.models, folders, strict=True)
        ]  # fmt: skip
        validated = dataset_of(_judged(finished, step), features)
    if len(validated) == 0:
        raise K2DError("there are no chunks to validate")
    counted = report if report is not None else ValidationReport()
    counted.threshold = settings.threshold
    count_kept(validated, counted, by_segment=settings.unit == "segment")
    for warning in counted.warnings() if report is None else ():
        logger.warning("%s", warning)
    return validated


def drop_counts(chunks: Dataset) -> Counter[str]:
    """Chunks dropped, by reason."""
    return Counter(reason for reason in chunks["drop_reason"] if reason is not None)


def count_kept(validated: Dataset, report: ValidationReport, *, by_segment: bool) -> None:
    """Fill a report with what was kept and dropped of validated chunks, and where these were judged by segments."""
    report.chunks, report.dropped = len(validated), drop_counts(validated)
    for batch in validated.select_columns(["text", "keep"]).iter(batch_size=COUNTED_AT_ONCE):
        silent = [keep for text, keep in zip(batch["text"], batch["keep"], strict=True) if not text.strip()]
        report.silences += len(silent)
        report.silences_kept += sum(silent)
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


def _folders(given: str | Path | Sequence[str | Path] | None, count: int) -> Sequence[str | Path | None]:
    """The folder of shards of each of so many auxiliaries."""
    if given is None:
        return [None] * count
    folders = [given] if isinstance(given, (str, Path)) else list(given)
    if len(folders) != count:
        raise K2DError(f"shards_dir: {len(folders)} for {count} auxiliaries; give a list with a folder for each")
    return folders


def _judged(
    finished: Sequence[Iterable[tuple[Shard, Values]]], step: AuxiliaryHypotheses
) -> Iterator[list[dict[str, Any]]]:
    """The rows of each shard with their verdicts, from what each auxiliary wrote of them."""
    before = TextBefore()
    for by_each in zip(*finished, strict=True):
        rows = by_each[0][0].rows
        transcripts = zip(*([values[span.key] for span in shard.items] for shard, values in by_each), strict=True)
        pairs = zip(rows, transcripts, strict=True)
        yield [part for row, texts in pairs for part in step.judged(row, texts, before)]
