"""The teacher's pass: recordings to chunks, a shard after the other, so that what is done stays done (K2D, stage 1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.selection import warnings_of
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import dataset_of
from k2d_hf.files.keywords import takes
from k2d_hf.files.shards import Shard, Values, shards_of
from k2d_hf.labelling.hypotheses import TeacherHypotheses, chunk_features, chunks_of, planned, shard_schema, skip
from k2d_hf.labelling.report import LabellingReport
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.terminal.progress import length_of, progress_bar
from k2d_hf.transcription.map_step import finished_shards
from k2d_hf.transcription.transcribers import Transcriber

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

logger = logging.getLogger(__name__)

LISTED_TWICE = "listed twice"


@takes(LabelSettings)
def label_recordings(
    recordings: Dataset | IterableDataset,
    teacher: str | Path | Sequence[str] | Transcriber,
    *,
    language: str | None = None,
    shards_dir: str | Path | None = None,
    report: LabellingReport | None = None,
    on_progress: Callable[..., None] | None = None,
    settings: LabelSettings,
) -> Dataset:
    """Transcribe recordings with timestamps and pack the segments into chunks (K2D, stage 1).

    Args:
        recordings: data set with a column `recording` (path or address), as `load_recordings` gives it, and where it
            has `start` and `duration` (s), of spans of these files, of the track and channel in `audio_track` and
            `audio_channel`; a stream is read once, and never held.
        teacher: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.
        language: code or name, such as `zh`, of all recordings; None takes that of the column `language`, and where
            there is none the teacher detects it.
        shards_dir: folder that keeps what each shard gave, so that an interrupted run resumes; one for each teacher.
        report: counts of what was read, skipped and left out, filled in.
        on_progress: called with the number of recordings done, and by Ray with a word on how it goes; None shows a bar
            as `datasets.map` does, and hides it likewise.

    Returns:
        Data set of chunks with `recording`, `start`, `duration`, `segments`, `text`, `previous_text`, `next_start`,
            `language`; where the recordings name any, `audio_track` and `audio_channel`; and the columns of `measures`.

    Raises:
        K2DError: if the teacher cannot be loaded or fails on one recording after the other, every recording was
            skipped, or `shards_dir` is of other settings.
    """
    columns = recordings.column_names or []
    if "recording" not in columns:
        raise K2DError(f"no column recording among {', '.join(columns)}: load_recordings makes one")
    report = report if report is not None else LabellingReport()
    step = TeacherHypotheses(teacher, language=language, settings=settings)
    size, length = step.work.items_per_call, length_of(recordings)
    calls = 1 << 30 if length is None else -(-length // size)

    def shards() -> Iterator[Shard]:
        return shards_of(planned(recordings, given=step.model.options.language), settings.shard_size or size)

    with (
        progress_bar(on_progress, "Label", length, "recordings") as progress,
        finished_shards(
            shards, step.work, step.model, settings, schema=shard_schema(settings), folder=shards_dir, calls=calls,
            on_progress=progress,
        ) as finished,
    ):  # fmt: skip
        chunks = dataset_of(_chunk_batches(finished, step, report), chunk_features([*columns, *step.measured]))
    if not report.recordings:
        raise K2DError("there are no recordings to label")
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in report.skip_counts().most_common())
        logger.warning("skipped %d of %d recordings: %s", len(report.skipped), report.recordings, counts)
    for line in warnings_of(report.several_tracks, report.out_of_phase):
        logger.warning("%s", line)
    if len(chunks) == 0:
        first = report.skipped[0]["detail"]
        raise K2DError(f"none of {report.recordings} recordings could be labelled; the first: {first}")
    return chunks


def _chunk_batches(
    finished: Iterable[tuple[Shard, Values]], step: TeacherHypotheses, report: LabellingReport
) -> Iterator[list[dict[str, Any]]]:
    """The chunks of each shard; what reaches none is counted and named in the report."""
    for shard, values in finished:
        rows: list[dict[str, Any]] = []
        for recording in shard.items:
            if recording.repeated:
                skip(report, recording, LISTED_TWICE, "listed twice, labelled once")
            else:
                rows += chunks_of(recording, values[recording.key], step.settings, report, step.measured)
        yield rows
