"""The teacher's pass: recordings to chunks, a shard after the other, so that what is done stays done (K2D, stage 1)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.data.chunk_schema import LABELLING, features_of_writer
from k2d_hf.data.chunking import (
    LEAST_LISTED,
    PASSED_OVER,
    PASSED_OVER_INSIDE,
    Coverage,
    LeftOut,
    Segment,
    chunk_rows,
    coverage,
    pack_segments,
    sound_segments,
)
from k2d_hf.data.recording_rows import span_fields, span_of
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import dataset_of
from k2d_hf.files.content_keys import content_key
from k2d_hf.files.shards import NO_SPEECH, Failure, Shard, Values, shards_of
from k2d_hf.models.languages import checked_language, language_of_row
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS
from k2d_hf.terminal.progress import length_of, progress_bar
from k2d_hf.transcription.engines import OnDemand
from k2d_hf.transcription.spreading import WorkersOptions, finished_shards
from k2d_hf.transcription.transcribers import DecodingOptions, Transcriber, temperatures
from k2d_hf.transcription.worker import Work

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Dataset, Features, IterableDataset

logger = logging.getLogger(__name__)

LISTED_TWICE = "listed twice"
UNKNOWN_LANGUAGE = "unknown language"
READ_AHEAD = 2  # recordings that are decoded while others are transcribed; of batches, one
TIME_LIMIT = 600.0  # s for 30 s of audio: twenty times as long as it lasts


@dataclass
class LabellingReport:
    """What labelling took in and left out; filled while it runs.

    Seconds of segments in equal those of segments out plus those of the spans left out. Seconds of audio read equal
    those in chunks plus those that are listed (whole recordings in `skipped`, spans in `left_out` and `passed_over`)
    plus those of spans too short to be listed.
    """

    recordings: int = 0
    seconds: float = 0.0  # of audio read
    seconds_in_chunks: float = 0.0
    seconds_listed: float = 0.0  # in no chunk, and named in one of the three lists
    seconds_unlisted: float = 0.0  # in no chunk, in spans of less than 2 s
    segment_seconds_in: float = 0.0  # as the teacher wrote them
    segment_seconds_out: float = 0.0  # in chunks
    skipped: list[dict[str, Any]] = field(default_factory=list)  # recording, (start, duration), reason, detail
    left_out: list[dict[str, Any]] = field(default_factory=list)  # recording, start, end (s), reason
    passed_over: list[dict[str, Any]] = field(default_factory=list)  # likewise, where the teacher wrote nothing

    @property
    def seconds_passed_over(self) -> float:
        """Seconds in no chunk about which the teacher wrote nothing, in spans that are listed."""
        return self._seconds_listed_as(PASSED_OVER)

    @property
    def seconds_without_text(self) -> float:
        """Likewise seconds between two segments of a chunk: of pauses, or of speech that the chunk's label lacks."""
        return self._seconds_listed_as(PASSED_OVER_INSIDE)

    def _seconds_listed_as(self, reason: str) -> float:
        return math.fsum(span["end"] - span["start"] for span in self.passed_over if span["reason"] == reason)

    def figures(self) -> dict[str, Any]:
        """The counts without the lists, ready for JSON."""
        lists = ("skipped", "left_out", "passed_over")
        counts = {name: value for name, value in vars(self).items() if name not in lists}
        derived = ("seconds_passed_over", "seconds_without_text")
        return {**counts, **{name: getattr(self, name) for name in derived}, "least_listed": LEAST_LISTED}

    def skip_counts(self) -> Counter[str]:
        """Recordings skipped, by reason."""
        return Counter(entry["reason"] for entry in self.skipped)


def chunk_features() -> Features:
    """Columns and types of chunks, as the contract between the stages has them."""
    return features_of_writer(LABELLING)


def label_recordings(
    recordings: Dataset | IterableDataset,
    teacher: str | Path | Sequence[str] | Transcriber,
    *,
    language: str | None = None,
    engine: str = "auto",
    beam_size: int = 5,
    condition_on_previous_text: bool = True,
    temperature_fallback: bool = True,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    max_duration: float = CHUNK_SECONDS,
    time_limit: float | None = TIME_LIMIT,
    shard_size: int | None = None,
    address: str | None = None,
    workers: int | None = None,
    worker_cpus: float = 1.0,
    worker_gpus: float = 0.0,
    shards_dir: str | Path | None = None,
    report: LabellingReport | None = None,
    on_progress: Callable[..., None] | None = None,
) -> Dataset:
    """Transcribe recordings with timestamps and pack the segments into chunks (K2D, stage 1).

    Args:
        recordings: data set with a column `recording` (path or address), as `load_recordings` gives it, and where it
            has `start` and `duration` (s), of spans of these files; a stream is read once, and never held.
        teacher: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.
        language: code or name, such as `zh`, of all recordings; None takes that of the column `language`, and where
            there is none the teacher tells.
        engine: `auto`, `transformers` or `faster-whisper`; `ray`, or `ray+` one of them, spreads the work over a Ray
            cluster.
        beam_size: beams of the search.
        condition_on_previous_text: whether the teacher sees what it wrote before, as in openai/whisper.
        temperature_fallback: whether windows that look wrong are decoded again by sampling, as in openai/whisper.
        batch_size: recordings in one pass, where the engine batches. The fast engine on a CPU takes as many at once as
            fill the cores.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto`, or a number format that the engine knows.
        max_duration: longest chunk in seconds, at most 30.
        time_limit: seconds that the teacher may take for 30 s of audio; a recording that takes longer is skipped. None
            waits for ever.
        shard_size: recordings in a shard, which is what a crash can cost each worker; None takes as few as one pass
            does.
        address: of a Ray cluster; None starts one on this machine.
        workers: of a Ray cluster, each with a model; None takes as many as it has room for.
        worker_cpus: cores of such a worker.
        worker_gpus: GPUs of such a worker.
        shards_dir: folder that keeps what each shard gave, so that an interrupted run resumes; one for each teacher.
        report: counts of what was read, skipped and left out, filled in.
        on_progress: called with the number of recordings done, and by Ray with a word on how it goes; None shows a bar
            as `datasets.map` does, and hides it likewise.

    Returns:
        Data set of chunks with `recording`, `start`, `duration`, `segments`, `text`, `previous_text`, `next_start`,
            `language`.

    Raises:
        K2DError: if the teacher cannot be loaded or fails on one recording after the other, every recording was
            skipped, or `shards_dir` is of other settings.
    """
    if not 0 < max_duration <= CHUNK_SECONDS:
        raise K2DError(f"max_duration {max_duration:g}: Whisper hears at most {CHUNK_SECONDS:g} s at once")
    columns = recordings.column_names or []
    if "recording" not in columns:
        raise K2DError(f"no column recording among {', '.join(columns)}: load_recordings makes one")
    report = report if report is not None else LabellingReport()
    options = DecodingOptions(
        language=language,
        beam_size=beam_size,
        condition_on_previous_text=condition_on_previous_text,
        temperatures=temperatures(fallback=temperature_fallback),
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    model = OnDemand(teacher, options, engine=engine)
    size = batch_size if model.batches_recordings else 1
    work = Work(
        _read, _transcribe, order=None, items_per_call=size, read_ahead=READ_AHEAD if size == 1 else 1,
        time_limit=time_limit,
    )  # fmt: skip
    spreading = WorkersOptions(engine, address, workers, worker_cpus, worker_gpus)

    def shards() -> Iterator[Shard]:
        return shards_of(_planned(recordings, given=model.options.language), shard_size or size)

    with (
        progress_bar(on_progress, "Label", length_of(recordings), "recordings") as progress,
        finished_shards(
            shards, work, model, spreading, schema=_schema(), folder=shards_dir, calls=_calls(recordings, size),
            on_progress=progress,
        ) as finished,
    ):  # fmt: skip
        chunks = dataset_of(_chunk_batches(finished, max_duration, report), chunk_features())
    if not report.recordings:
        raise K2DError("there are no recordings to label")
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in report.skip_counts().most_common())
        logger.warning("skipped %d of %d recordings: %s", len(report.skipped), report.recordings, counts)
    if len(chunks) == 0:
        first = report.skipped[0]["detail"]
        raise K2DError(f"none of {report.recordings} recordings could be labelled; the first: {first}")
    return chunks


@dataclass(frozen=True)
class _Recording:
    """A recording to transcribe: its path, its key, its language where one is named, and whether it came before.

    It is the span of its file that begins at `start` and lasts `duration` seconds, by default all of it.
    """

    name: str
    key: str
    language: str | None
    repeated: bool
    start: float = 0.0
    duration: float | None = None


def _calls(recordings: Any, size: int) -> int:
    """How many calls of the teacher there will be at most."""
    length = length_of(recordings)
    return 1 << 30 if length is None else -(-length // size)


def _planned(recordings: Iterable[Any], *, given: str | None) -> Iterator[tuple[_Recording, None]]:
    """What there is to do, in order; of names that came before, 16 bytes are remembered."""
    seen: set[bytes] = set()
    for row in recordings:
        name, language = row["recording"], None if given else language_of_row(row)
        start, duration = span_of(row)
        span = f" {start!r}+{duration!r}" if span_fields(start, duration) else ""
        digest = hashlib.blake2b(f"{name}{span}".encode(errors="surrogatepass"), digest_size=16).digest()
        key = f"{content_key(name)}{span} {language or ''}".rstrip()
        yield _Recording(name, key, language, digest in seen, start, duration), None
        seen.add(digest)


def _schema() -> pyarrow.Schema:
    """What a shard keeps of a recording: what the teacher wrote, before it is packed."""
    import pyarrow

    segment = pyarrow.struct({"start": pyarrow.float64(), "end": pyarrow.float64(), "text": pyarrow.string()})
    return pyarrow.schema({"language": pyarrow.string(), "segments": pyarrow.list_(segment)})


def _read(recording: _Recording) -> np.ndarray | Failure:
    try:
        checked_language(recording.language)
    except K2DError as error:
        return Failure(UNKNOWN_LANGUAGE, f"{recording.name}: {error}")
    audio = read_audio(recording.name, recording.start, recording.duration, within=True)
    if audio.any():
        return audio
    return Failure(NO_SPEECH, f"{recording.name}: silence from start to end", len(audio) / SAMPLE_RATE)


def _transcribe(
    model: Transcriber, recordings: Sequence[_Recording], audio: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    transcripts = model.transcribe(audio, [recording.language for recording in recordings])
    return [
        {"language": transcript.language, "segments": [asdict(segment) for segment in transcript.segments]}
        for transcript in transcripts
    ]


def _chunk_batches(
    finished: Iterable[tuple[Shard, Values]], max_duration: float, report: LabellingReport
) -> Iterator[list[dict[str, Any]]]:
    """The chunks of each shard; what reaches none is counted and named in the report."""
    for shard, values in finished:
        rows: list[dict[str, Any]] = []
        for recording in shard.items:
            if recording.repeated:
                _skip(report, recording, LISTED_TWICE, "listed twice, labelled once")
            else:
                rows += _chunks(recording, values[recording.key], max_duration, report)
        yield rows


def _chunks(
    recording: _Recording, heard: dict[str, Any], max_duration: float, report: LabellingReport
) -> list[dict[str, Any]]:
    seconds = heard["seconds"]
    report.seconds += seconds
    if heard["reason"] is not None:
        _skip(report, recording, heard["reason"], heard["detail"], seconds)
        return []
    segments = [Segment(**segment) for segment in heard["segments"]]
    sound, left_out = sound_segments(segments, recording_duration=seconds, max_duration=max_duration)
    report.segment_seconds_in += sum(filter(math.isfinite, (segment.duration for segment in segments)))
    report.segment_seconds_out += sum(segment.duration for segment in sound)
    report.left_out.extend({"recording": recording.name, **asdict(_moved(span, recording.start))} for span in left_out)
    if not sound:
        _skip(report, recording, NO_SPEECH, f"the teacher heard nothing that could be kept in {seconds:.1f} s", seconds)
        return []
    report.recordings += 1
    chunks = pack_segments(sound, max_duration)
    _account(report, recording, coverage(chunks, left_out, recording_duration=seconds))
    rows = chunk_rows(recording.name, chunks, language=heard["language"])
    return [{**row, "start": _later(row["start"], recording.start)} for row in rows]


def _later(time: float, start: float) -> float:
    """A time of a span as one of its file, without float noise: the teacher knows nothing of what is before it."""
    return round(time + start, 7) if start else time


def _moved(span: LeftOut, start: float) -> LeftOut:
    return replace(span, start=_later(span.start, start), end=_later(span.end, start))


def _account(report: LabellingReport, recording: _Recording, covered: Coverage) -> None:
    report.seconds_in_chunks += covered.in_chunks
    report.seconds_listed += covered.listed
    report.seconds_unlisted += covered.unlisted
    report.passed_over.extend(
        {"recording": recording.name, **asdict(_moved(span, recording.start))} for span in covered.passed_over
    )


def _skip(report: LabellingReport, recording: _Recording, reason: str, detail: str, seconds: float = 0.0) -> None:
    """Name a recording that gives no chunk; `seconds` of it were read."""
    name, span = recording.name, span_fields(recording.start, recording.duration)
    detail = detail if name in detail else f"{name}: {detail}"
    report.recordings += 1
    report.seconds_listed += seconds
    entry = {"recording": name, **span, "reason": reason, "detail": detail}
    report.skipped.append({**entry, "seconds": seconds} if seconds else entry)
    logger.info("skipped %s", detail)
