"""The teacher's pass: a `datasets` map step from recordings to chunks, resumable by recording (K2D, stage 1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal, file_key, map_rows
from k2d_hf.labelling.audio import SAMPLE_RATE, AudioError, read_audio
from k2d_hf.labelling.background import prefetch
from k2d_hf.labelling.chunking import Segment, chunk_rows, pack_segments, sound_segments
from k2d_hf.labelling.transcribers import DecodingOptions, OnDemand, Transcriber
from k2d_hf.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

NO_SPEECH = "no speech found"
READ_AHEAD = 2  # recordings that are decoded while others are transcribed, or a batch where that is more


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
            "language": Value("string"),
        }
    )


def label_recordings(
    recordings: Dataset,
    teacher: str | Path | Sequence[str] | Transcriber,
    *,
    language: str | None = None,
    engine: str = "auto",
    beam_size: int = 5,
    condition_on_previous_text: bool = True,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    max_duration: float = CHUNK_SECONDS,
    journal: str | Path | None = None,
    report: LabellingReport | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Transcribe recordings with timestamps and pack the segments into chunks (K2D, stage 1).

    Args:
        recordings: data set with a column `recording` (path), as `load_recordings` gives it.
        teacher: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.
        language: code such as `zh`, of all recordings; None takes that of the column `language`, and where there is
            none the teacher tells.
        engine: `auto`, `transformers` or `faster-whisper`.
        beam_size: beams of the search.
        condition_on_previous_text: whether the teacher sees what it wrote before, as in openai/whisper.
        batch_size: recordings in one pass, where the engine batches. The fast engine on a CPU takes as many at once as
            fill the cores.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto`, or a number format that the engine knows.
        max_duration: longest chunk in seconds, at most 30.
        journal: file that holds what each recording gave, so that an interrupted run resumes; one for each teacher.
        report: counts of what was read, skipped and left out, filled in.
        on_progress: called with the number of recordings done.

    Returns:
        Data set of chunks with `recording`, `start`, `duration`, `segments`, `text`, `previous_text`, `language`.

    Raises:
        K2DError: if the teacher cannot be loaded, every recording was skipped, or the journal is of other settings.
    """
    if not 0 < max_duration <= CHUNK_SECONDS:
        raise K2DError(f"max_duration {max_duration:g}: Whisper hears at most {CHUNK_SECONDS:g} s at once")
    if len(recordings) == 0:
        raise K2DError("there are no recordings to label")
    if "recording" not in recordings.column_names:
        raise K2DError(f"no column recording among {', '.join(recordings.column_names)}: load_recordings makes one")
    report = report if report is not None else LabellingReport()
    options = DecodingOptions(
        language=language,
        beam_size=beam_size,
        condition_on_previous_text=condition_on_previous_text,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    model = OnDemand(teacher, options, engine=engine)
    known = Journal(journal, settings=model.settings() if journal else None)
    with closing(_Labeller(recordings, model, batch_size, max_duration, known, report, on_progress)) as labeller:
        chunks = map_rows(
            recordings,
            labeller,
            features=chunk_features(),
            batch_size=batch_size,
            desc="label",
            remove_columns=recordings.column_names,
        )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in report.skip_counts().most_common())
        logger.warning("skipped %d of %d recordings: %s", len(report.skipped), report.recordings, counts)
    if len(chunks) == 0:
        first = report.skipped[0]["detail"]
        raise K2DError(f"none of {report.recordings} recordings could be labelled; the first: {first}")
    return chunks


@dataclass(frozen=True)
class _Recording:
    """A recording to transcribe: its path, its key in the journal, and its language where the data set names one."""

    name: str
    key: str
    language: str | None


@dataclass(frozen=True)
class _Unusable:
    """Why a recording cannot be labelled. It does not go to the journal: the file may be mended by the next run."""

    reason: str
    detail: str
    seconds: float = 0.0


_Call = list[tuple[_Recording, "np.ndarray"]]


class _Labeller:
    """The map step: a batch of recordings in, rows of chunks out.

    What the teacher writes comes as a stream of its own, over all recordings, so that no batch waits for its slowest.
    """

    def __init__(
        self,
        recordings: Dataset,
        model: OnDemand,
        batch_size: int,
        max_duration: float,
        journal: Journal,
        report: LabellingReport,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.model = model
        self.recordings_per_call = batch_size if model.batches_recordings else 1
        self.max_duration = max_duration
        self.journal = journal
        self.report = report
        self.on_progress = on_progress or (lambda count: None)
        self.recordings: dict[str, _Recording] = {}
        self.unusable: dict[str, _Unusable] = {}
        self.labelled: set[str] = set()
        names = recordings["recording"]
        languages = recordings["language"] if "language" in recordings.column_names else [None] * len(recordings)
        for name, language in zip(names, languages, strict=True):
            language = None if self.model.options.language else language
            recording = _Recording(name, f"{file_key(name)} {language or ''}".rstrip(), language)
            self.recordings.setdefault(name, recording)
        todo = [recording for recording in self.recordings.values() if recording.key not in journal]
        if len(todo) < len(recordings):
            self.on_progress(len(recordings) - len(todo))
        self.heard = self._hear(todo)

    def close(self) -> None:
        """Stop the work that is under way."""
        self.heard.close()

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows: list[dict[str, Any]] = []
        for name in batch["recording"]:
            if name in self.labelled:
                self._skip(name, "listed twice", f"{name}: listed twice, labelled once")
                continue
            self.labelled.add(name)
            recording = self.recordings[name]
            while name not in self.unusable and recording.key not in self.journal:
                next(self.heard)
            rows += self._rows(recording)
        return {column: [row[column] for row in rows] for column in chunk_features()}

    def _hear(self, todo: list[_Recording]) -> Generator[None, None, None]:
        """Read and transcribe what the journal lacks, call by call; what the teacher wrote goes to it at once."""
        size = self.recordings_per_call
        with (
            closing(prefetch(_read, todo, ahead=max(size, READ_AHEAD))) as read,
            closing(self.model.call(_transcribe, self._usable(read, size), at_most=-(-len(todo) // size))) as answers,
        ):
            for answer in answers:
                for key, result in answer:
                    self.journal.write(key, result)
                self.on_progress(len(answer))
                yield
        yield  # what could not be read after the last answer is known by now, too

    def _usable(self, read: Iterator[tuple[_Recording, np.ndarray | _Unusable]], size: int) -> Iterator[_Call]:
        """Recordings with their audio, `size` at a time; those that cannot be used are set aside."""

        def usable() -> Iterator[tuple[_Recording, np.ndarray]]:
            for recording, audio in read:
                if isinstance(audio, _Unusable):
                    self.unusable[recording.name] = audio
                    self.on_progress(1)
                else:
                    yield recording, audio

        recordings = usable()
        while call := list(islice(recordings, size)):
            yield call
            del call

    def _skip(self, name: str, reason: str, detail: str) -> None:
        self.report.recordings += 1
        self.report.skipped.append({"recording": name, "reason": reason, "detail": detail})
        logger.info("skipped %s", detail)

    def _rows(self, recording: _Recording) -> list[dict[str, Any]]:
        report, name = self.report, recording.name
        if unusable := self.unusable.get(name):
            report.seconds += unusable.seconds
            self._skip(name, unusable.reason, unusable.detail)
            return []
        result = self.journal[recording.key]
        seconds = result["seconds"]
        report.seconds += seconds
        segments = [Segment(**segment) for segment in result["segments"]]
        sound, left_out = sound_segments(segments, recording_duration=seconds, max_duration=self.max_duration)
        report.segment_seconds_in += sum(segment.duration for segment in segments)
        report.segment_seconds_out += sum(segment.duration for segment in sound)
        report.left_out.extend({"recording": name, **asdict(span)} for span in left_out)
        if not sound:
            self._skip(name, NO_SPEECH, f"{name}: the teacher heard nothing that could be kept in {seconds:.1f} s")
            return []
        report.recordings += 1
        return chunk_rows(name, pack_segments(sound, self.max_duration), language=result["language"])


def _read(recording: _Recording) -> tuple[_Recording, np.ndarray | _Unusable]:
    try:
        audio = read_audio(recording.name)
    except AudioError as error:
        return recording, _Unusable(error.reason, str(error))
    if audio.any():
        return recording, audio
    detail = f"{recording.name}: silence from start to end"
    return recording, _Unusable(NO_SPEECH, detail, len(audio) / SAMPLE_RATE)


def _transcribe(model: Transcriber, call: _Call) -> list[tuple[str, dict[str, Any]]]:
    """What goes to the journal, by key, for the recordings of one call."""
    transcripts = model.transcribe([audio for _, audio in call], [recording.language for recording, _ in call])
    return [
        (
            recording.key,
            {
                "seconds": len(audio) / SAMPLE_RATE,
                "language": transcript.language,
                "segments": [asdict(segment) for segment in transcript.segments],
            },
        )
        for (recording, audio), transcript in zip(call, transcripts, strict=True)
    ]
