"""The teacher's pass: recordings to chunks, a shard after the other, so that what is done stays done (K2D, stage 1)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.arrow import dataset_of
from k2d_hf.errors import K2DError
from k2d_hf.labelling.audio import SAMPLE_RATE, read_audio
from k2d_hf.labelling.chunking import Segment, chunk_rows, pack_segments, sound_segments
from k2d_hf.labelling.spreading import WorkersOptions, finished_shards
from k2d_hf.labelling.transcribers import DecodingOptions, OnDemand, Transcriber, temperatures
from k2d_hf.labelling.worker import Work
from k2d_hf.shards import NO_SPEECH, Failure, Shard, Values, shards_of
from k2d_hf.storage import file_key
from k2d_hf.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow
    from datasets import Dataset, Features, IterableDataset

logger = logging.getLogger(__name__)

LISTED_TWICE = "listed twice"
READ_AHEAD = 2  # recordings that are decoded while others are transcribed; of batches, one
TIME_LIMIT = 600.0  # s for 30 s of audio: twenty times as long as it lasts


@dataclass
class LabellingReport:
    """What labelling took in and left out; filled while it runs.

    Seconds of segments in equal those of segments out plus those of the spans left out.
    """

    recordings: int = 0
    seconds: float = 0.0  # of audio read
    segment_seconds_in: float = 0.0  # as the teacher wrote them
    segment_seconds_out: float = 0.0  # in chunks
    skipped: list[dict[str, Any]] = field(default_factory=list)  # recording, reason, detail
    left_out: list[dict[str, Any]] = field(default_factory=list)  # recording, start, end (s), reason

    def skip_counts(self) -> Counter[str]:
        """Recordings skipped, by reason."""
        return Counter(entry["reason"] for entry in self.skipped)


def chunk_features() -> Features:
    """Columns and types of chunks, as the contract between the stages has them."""
    from datasets import Features, Value

    return Features(
        {
            "recording": Value("string"),
            "start": Value("float64"),
            "duration": Value("float64"),
            "segments": [{"start": Value("float64"), "end": Value("float64"), "text": Value("string")}],
            "text": Value("string"),
            "previous_text": Value("string"),
            "next_start": Value("float64"),
            "language": Value("string"),
        }
    )


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
        recordings: data set with a column `recording` (path or address), as `load_recordings` gives it; a stream is
            read once, and never held.
        teacher: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.
        language: code such as `zh`, of all recordings; None takes that of the column `language`, and where there is
            none the teacher tells.
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
        on_progress: called with the number of recordings done, and by Ray with a word on how it goes.

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

    with finished_shards(
        shards, work, model, spreading, schema=_schema(), folder=shards_dir, calls=_calls(recordings, size),
        on_progress=on_progress,
    ) as finished:  # fmt: skip
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
    """A recording to transcribe: its path, its key, its language where one is named, and whether it came before."""

    name: str
    key: str
    language: str | None
    repeated: bool


def _calls(recordings: Any, size: int) -> int:
    """How many calls of the teacher there will be at most."""
    return -(-len(recordings) // size) if hasattr(recordings, "__len__") else 1 << 30


def _planned(recordings: Iterable[Any], *, given: str | None) -> Iterator[tuple[_Recording, None]]:
    """What there is to do, in order; of names that came before, 16 bytes are remembered."""
    seen: set[bytes] = set()
    for row in recordings:
        name, language = row["recording"], None if given else row.get("language")
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=16).digest()
        yield _Recording(name, f"{file_key(name)} {language or ''}".rstrip(), language, digest in seen), None
        seen.add(digest)


def _schema() -> pyarrow.Schema:
    """What a shard keeps of a recording: what the teacher wrote, before it is packed."""
    import pyarrow

    segment = pyarrow.struct({"start": pyarrow.float64(), "end": pyarrow.float64(), "text": pyarrow.string()})
    return pyarrow.schema({"language": pyarrow.string(), "segments": pyarrow.list_(segment)})


def _read(recording: _Recording) -> np.ndarray | Failure:
    audio = read_audio(recording.name)
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
                _skip(report, recording.name, LISTED_TWICE, "listed twice, labelled once")
            else:
                rows += _chunks(recording.name, values[recording.key], max_duration, report)
        yield rows


def _chunks(name: str, heard: dict[str, Any], max_duration: float, report: LabellingReport) -> list[dict[str, Any]]:
    seconds = heard["seconds"]
    report.seconds += seconds
    if heard["reason"] is not None:
        _skip(report, name, heard["reason"], heard["detail"])
        return []
    segments = [Segment(**segment) for segment in heard["segments"]]
    sound, left_out = sound_segments(segments, recording_duration=seconds, max_duration=max_duration)
    report.segment_seconds_in += sum(filter(math.isfinite, (segment.duration for segment in segments)))
    report.segment_seconds_out += sum(segment.duration for segment in sound)
    report.left_out.extend({"recording": name, **asdict(span)} for span in left_out)
    if not sound:
        _skip(report, name, NO_SPEECH, f"the teacher heard nothing that could be kept in {seconds:.1f} s")
        return []
    report.recordings += 1
    return chunk_rows(name, pack_segments(sound, max_duration), language=heard["language"])


def _skip(report: LabellingReport, name: str, reason: str, detail: str) -> None:
    detail = detail if name in detail else f"{name}: {detail}"
    report.recordings += 1
    report.skipped.append({"recording": name, "reason": reason, "detail": detail})
    logger.info("skipped %s", detail)
