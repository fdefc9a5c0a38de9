"""The teacher's pass as a map step: a batch of recordings in, their chunks out (K2D, stage 1).

`label_recordings` is this, shard by shard.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE, Reading, read_recording
from k2d_hf.audio.selection import USUAL, Selection, warnings_of
from k2d_hf.data.chunk_schema import LABELLING, MEASURING, features_of_writer
from k2d_hf.data.chunking import DroppedSpan, Segment, chunk_rows, coverage, pack_segments, valid_segments
from k2d_hf.data.data_set_rows import RowReader
from k2d_hf.data.map_step import Batch, batch_of
from k2d_hf.data.recording_rows import SELECTION_COLUMNS, ColumnNames, selection_in, span_fields, span_of
from k2d_hf.errors import K2DError
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.keywords import takes
from k2d_hf.files.paths import name_of
from k2d_hf.files.shards import NO_SPEECH, Failure
from k2d_hf.labelling.measures import CONFIDENCE, lacking_confidence, measured_columns, with_measures
from k2d_hf.labelling.report import LabellingReport
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.labelling.silences import MARGIN, choose, silent_windows, with_silences
from k2d_hf.models.languages import checked_language, language_of_row
from k2d_hf.scoring.scripts import OTHERS_HAN, to_script
from k2d_hf.transcription.map_step import Hypotheses
from k2d_hf.transcription.settings import SHARD_BY_SHARD
from k2d_hf.transcription.speech import check_detector, speech_spans
from k2d_hf.transcription.transcribers import Transcriber
from k2d_hf.transcription.worker import Work

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Features

logger = logging.getLogger(__name__)

UNKNOWN_LANGUAGE = "unknown language"
READ_AHEAD = 2  # recordings that are decoded while others are transcribed; of batches, one


def chunk_features(columns: Iterable[str] = ()) -> Features:
    """Columns and types of chunks, as the contract between the stages has them.

    Those of track and channel, and those of `label.measures`, are among them where they are among the `columns`.
    """
    columns = set(columns)
    features, selects = features_of_writer(LABELLING), bool(set(SELECTION_COLUMNS) & columns)
    known = {name: kind for name, kind in features.items() if selects or name not in SELECTION_COLUMNS}
    measured = features_of_writer(MEASURING)
    return type(features)({**known, **{name: kind for name, kind in measured.items() if name in columns}})


class TeacherHypotheses(Hypotheses):
    """Map step: recordings to chunks with the teacher's pseudo-labels, the rows of `label_recordings` (K2D, stage 1).

    For `Dataset.map(batched=True, remove_columns=...)`, `IterableDataset.map` likewise, and Ray's `map_batches`. A row
    in is a recording as `load_recordings` gives it, or an utterance as a data set of the Hub has it, with a column
    `audio` of paths, bytes or samples. Of a recording come as many rows as it has chunks, of an utterance of at most
    30 s one: it is labelled whatever text it has. Sound that is embedded is written to the cache folder, where the
    chunks find it.

    A recording that gives no chunk is named with its reason in a warning, batch by batch, and so is a segment that
    reaches none. In `report` all of it is counted and listed, for what this process did.

    The teacher is loaded by the first call in a process. With `with_rank=True` each has the GPU of its rank.

    Args:
        teacher: checkpoint (path, Hub id, or several to try in order); a loaded `Transcriber` stays in its process.
        language: code or name, such as `zh`, of all recordings; None takes that of the column `language`, and where
            there is none the teacher detects it.

    Raises:
        K2DError: for a wrong setting, a teacher that is nowhere to be found, or a batch without audio.
    """

    @takes(LabelSettings, without=SHARD_BY_SHARD)
    def __init__(
        self,
        teacher: str | Path | Sequence[str] | Transcriber,
        *,
        language: str | None = None,
        settings: LabelSettings,
    ) -> None:
        if settings.silence:
            check_detector("label.silence")
        super().__init__(teacher, settings, settings.decoding(language), teacher=teacher, language=language)
        size = settings.batch_size if self.model.batches_recordings else 1
        self.work = Work(
            _read,
            partial(_transcribe, silences=settings.silence > 0),
            order=None,
            items_per_call=size,
            read_ahead=READ_AHEAD if size == 1 else 1,
            time_limit=settings.time_limit,
        )
        self.report = LabellingReport()
        self.measured = measured_columns(self.model.confidence) if settings.measures else []
        if settings.measures and (why := lacking_confidence(self.measured, self.model.engine)):
            logger.warning("measures: %s", why)

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        """The chunks of a batch of recordings, in order, in the form in which it came; `rank` is the process'."""
        given = batch_of(batch)
        keys = count()
        plan = planned(_recordings_in(given), given=self.model.options.language, file_key=lambda _: str(next(keys)))
        items = [replace(item, repeated=False) for item, _ in plan]  # a step knows no batch but its own
        (values,) = self.transcribe(items, rank)
        report = LabellingReport()
        rows = [
            row for item in items for row in chunks_of(item, values[item.key], self.settings, report, self.measured)
        ]
        _warn(report, len(items))
        self.report.add(report)
        return given.replaced(rows, chunk_features([*given.columns, *self.measured]))


def _recordings_in(batch: Batch) -> Iterator[Mapping[str, Any]]:
    """Rows as `load_recordings` gives them, of these or of those of another data set."""
    rows = batch.rows()
    if "recording" in batch.columns:
        yield from rows
    elif rows:
        known = batch.columns if batch.features is None else batch.features
        read = RowReader(known, batch.features, "the batch", os.getcwd(), ColumnNames())
        for index, row in enumerate(rows):
            yield read(index, row)._asdict()


def _warn(report: LabellingReport, recordings: int) -> None:
    """Name what a batch lost; there is no file for it."""
    if skipped := report.skipped:
        named = "; ".join("{reason}: {detail}".format(**entry) for entry in skipped)
        logger.warning("skipped %d of %d recordings of a batch: %s", len(skipped), recordings, named)
    if report.left_out:
        named = "; ".join("{recording} {start:.2f} to {end:.2f} s, {reason}".format(**span) for span in report.left_out)
        logger.warning("left out %d segments of a batch: %s", len(report.left_out), named)
    for line in warnings_of(report.several_tracks, report.out_of_phase):
        logger.warning("%s", line)


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe: the span of a file that begins at `start` and lasts `duration` seconds."""

    name: str  # path or address
    key: str
    language: str | None  # where one is named
    repeated: bool  # whether it came before
    start: float = 0.0
    duration: float | None = None  # None is up to the end
    selection: Selection = USUAL  # its track and channel


def planned(
    recordings: Iterable[Any], *, given: str | None, file_key: Callable[[str], str] = content_key
) -> Iterator[tuple[Recording, None]]:
    """The recordings to transcribe, in order; of names that came before, 16 bytes are remembered."""
    seen: set[bytes] = set()
    for row in recordings:
        name, language = row["recording"], None if given else language_of_row(row)
        (start, duration), selection = span_of(row), selection_in(row)
        span = (f" {start!r}+{duration!r}" if span_fields(start, duration) else "") + selection.key
        digest = hashlib.blake2b(f"{name}{span}".encode(errors="surrogatepass"), digest_size=16).digest()
        key = f"{file_key(name)}{span} {language or ''}".rstrip()
        yield Recording(name, key, language, digest in seen, start, duration, selection), None
        seen.add(digest)


def shard_schema(settings: LabelSettings) -> pyarrow.Schema:
    """What a shard keeps of a recording: what the teacher wrote, before it is packed, and where there is no speech."""
    import pyarrow

    times = {"start": pyarrow.float64(), "end": pyarrow.float64()}
    confidence = pyarrow.struct(dict.fromkeys(CONFIDENCE, pyarrow.float64()))
    measured = {"confidence": confidence} if settings.measures else {}
    segments = pyarrow.list_(pyarrow.struct({**times, "text": pyarrow.string(), **measured}))
    silences = {"silences": pyarrow.list_(pyarrow.list_(pyarrow.float64()))} if settings.silence else {}
    read = {"tracks": pyarrow.int32(), "channel": pyarrow.int32(), "cancels": pyarrow.bool_()}
    return pyarrow.schema({"language": pyarrow.string(), "segments": segments, **silences, **read})


def _read(recording: Recording) -> Reading | Failure:
    try:
        checked_language(recording.language)
    except K2DError as error:
        return Failure(UNKNOWN_LANGUAGE, f"{recording.name}: {error}")
    reading = read_recording(
        recording.name, recording.start, recording.duration, within=True, selection=recording.selection
    )
    if reading.samples.any():
        return reading
    return Failure(NO_SPEECH, f"{recording.name}: silence from start to end", len(reading.samples) / SAMPLE_RATE)


def _transcribe(
    model: Transcriber, recordings: Sequence[Recording], audio: Sequence[np.ndarray], *, silences: bool
) -> list[dict[str, Any]]:
    transcripts = model.transcribe(audio, [recording.language for recording in recordings])
    values: list[dict[str, Any]] = [
        {"language": one.language, "segments": list(map(asdict, one.segments))} for one in transcripts
    ]
    for value, one, samples in zip(values, transcripts, audio, strict=True) if silences else ():
        spoken = [(segment.start, segment.end) for segment in one.segments]
        value["silences"] = silent_windows([*spoken, *speech_spans(samples, margin=MARGIN)], len(samples) / SAMPLE_RATE)
    return values


def chunks_of(
    recording: Recording,
    transcript: dict[str, Any],
    settings: LabelSettings,
    report: LabellingReport,
    measured: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The rows of a recording, of what a shard keeps of it; what reaches none is counted and named in the report."""
    seconds, max_duration = transcript["seconds"], settings.max_duration
    report.seconds += seconds
    if transcript["reason"] is not None:
        skip(report, recording, transcript["reason"], transcript["detail"], seconds)
        return []
    if (transcript.get("tracks") or 1) > 1 and recording.selection.track is None:
        report.several_tracks.append(recording.name)
    if transcript.get("cancels"):
        report.out_of_phase.append(recording.name)
    segments = _in_script([Segment(**segment) for segment in transcript["segments"]], transcript, settings)
    valid, left_out = valid_segments(segments, recording_duration=seconds, max_duration=max_duration)
    report.segment_seconds_in += sum(filter(math.isfinite, (segment.duration for segment in segments)))
    report.segment_seconds_out += sum(segment.duration for segment in valid)
    report.left_out += _named(left_out, recording)
    if not valid:
        skip(report, recording, NO_SPEECH, f"no segment of the teacher's could be kept in {seconds:.1f} s", seconds)
        return []
    report.recordings += 1
    chunks = pack_segments(valid, max_duration)
    covered = coverage(chunks, left_out, recording_duration=seconds)
    report.seconds_in_chunks += covered.in_chunks
    report.seconds_listed += covered.listed
    report.seconds_unlisted += covered.unlisted
    report.passed_over += _named(covered.passed_over, recording)
    rows = with_measures(chunk_rows(recording.name, chunks, language=transcript["language"]), chunks, measured)
    if settings.silence:
        seed = f"{name_of(recording.name)} {recording.start}{recording.selection.key}"
        windows = choose(transcript["silences"], len(rows), settings.silence, seed=seed)
        report.silences += len(windows)
        rows = with_silences(rows, windows)
    channel = transcript.get("channel")  # of the louder one, its number
    named = _named_selection(recording.selection.track, None if channel is None else str(channel))
    return [{**row, "start": _later(row["start"], recording.start), **named} for row in rows]


def _in_script(segments: list[Segment], transcript: dict[str, Any], settings: LabelSettings) -> list[Segment]:
    """The segments of a recording in the script that labels are to have, if any; times stay."""
    if settings.script is None or transcript["language"] in OTHERS_HAN:
        return segments
    texts = to_script([segment.text for segment in segments], settings.script)
    return [replace(segment, text=text) for segment, text in zip(segments, texts, strict=True)]


def _later(time: float, start: float) -> float:
    """A time of a span as one of its file, without float noise: the teacher knows nothing of what is before it."""
    return round(time + start, 7) if start else time


def _named_selection(track: int | None, channel: str | None) -> dict[str, Any]:
    return dict(zip(SELECTION_COLUMNS, (track, channel), strict=True))


def _named(spans: Iterable[DroppedSpan], recording: Recording) -> Iterator[dict[str, Any]]:
    """Spans as the report lists them, with their times in the file."""
    for span in spans:
        times = {"start": _later(span.start, recording.start), "end": _later(span.end, recording.start)}
        yield {"recording": recording.name, **times, "reason": span.reason}


def skip(report: LabellingReport, recording: Recording, reason: str, detail: str, seconds: float = 0.0) -> None:
    """Name a recording that gives no chunk; `seconds` of it were read."""
    name, selection = recording.name, recording.selection
    span: dict[str, Any] = span_fields(recording.start, recording.duration)
    if selection != USUAL:
        span |= _named_selection(selection.track, selection.channel)
    detail = detail if name in detail else f"{name}: {detail}"
    report.recordings += 1
    report.seconds_listed += seconds
    entry = {"recording": name, **span, "reason": reason, "detail": detail}
    report.skipped.append({**entry, "seconds": seconds} if seconds else entry)
    logger.info("skipped %s", detail)
