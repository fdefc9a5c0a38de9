"""The teacher's pass: a `datasets` map step from recordings to chunks, resumable by recording (K2D, stage 1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal, file_key, map_rows
from k2d_hf.labelling.audio import SAMPLE_RATE, AudioError, read_audio
from k2d_hf.labelling.chunking import Segment, chunk_rows, pack_segments, sound_segments
from k2d_hf.labelling.transcribers import DecodingOptions, OnDemand, Transcriber
from k2d_hf.whisper_tokens import CHUNK_SECONDS

if TYPE_CHECKING:
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

NO_SPEECH = "no speech found"


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
        batch_size: recordings in one pass, where the engine batches.
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
    labeller = _Labeller(
        model, max_duration, Journal(journal, settings=model.settings() if journal else None), report, on_progress
    )
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


class _Labeller:
    """The map step: a batch of recordings in, rows of chunks out."""

    def __init__(
        self,
        model: OnDemand,
        max_duration: float,
        journal: Journal,
        report: LabellingReport,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.model = model
        self.max_duration = max_duration
        self.journal = journal
        self.report = report
        self.on_progress = on_progress or (lambda count: None)
        self.seen: set[str] = set()

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names: list[str] = batch["recording"]
        languages = batch["language"] if "language" in batch else [None] * len(names)
        results: dict[str, dict[str, Any]] = {}
        todo: list[_Recording] = []
        for name, language in zip(names, languages, strict=True):
            language = None if self.model.options.language else language
            recording = _Recording(name, f"{file_key(name)} {language or ''}".rstrip(), language)
            if name in self.seen:
                self._skip(name, "listed twice", f"{name}: listed twice, labelled once")
                self.on_progress(1)
            elif recording.key in self.journal:
                results[name] = self.journal[recording.key]
                self.on_progress(1)
            else:
                todo.append(recording)
            self.seen.add(name)
        # An engine that does not batch takes one at a time, so that little is held in memory or lost when stopped.
        size = len(todo) if self.model.engine == "transformers" else 1
        for at in range(0, len(todo), max(size, 1)):
            results |= self._transcribe(todo[at : at + size])
            self.on_progress(len(todo[at : at + size]))
        rows = [row for name in names if name in results for row in self._rows(name, results.pop(name))]
        return {column: [row[column] for row in rows] for column in chunk_features()}

    def _transcribe(self, recordings: list[_Recording]) -> dict[str, dict[str, Any]]:
        """Read and transcribe recordings; what the teacher wrote goes to the journal at once.

        What cannot be used does not: it costs little to find out again, and the file may be mended by then.
        """
        results: dict[str, dict[str, Any]] = {}
        readable: dict[_Recording, np.ndarray] = {}
        for recording in recordings:
            try:
                audio = read_audio(recording.name)
            except AudioError as error:
                results[recording.name] = {"skipped": error.reason, "detail": str(error)}
                continue
            if audio.any():
                readable[recording] = audio
            else:
                detail = f"{recording.name}: silence from start to end"
                seconds = len(audio) / SAMPLE_RATE
                results[recording.name] = {"skipped": NO_SPEECH, "detail": detail, "seconds": seconds}
        if not readable:
            return results
        transcripts = self.model.load().transcribe(
            list(readable.values()), [recording.language for recording in readable]
        )
        for (recording, audio), transcript in zip(readable.items(), transcripts, strict=True):
            results[recording.name] = {
                "seconds": len(audio) / SAMPLE_RATE,
                "language": transcript.language,
                "segments": [asdict(segment) for segment in transcript.segments],
            }
            self.journal.write(recording.key, results[recording.name])
        return results

    def _skip(self, name: str, reason: str, detail: str) -> None:
        self.report.recordings += 1
        self.report.skipped.append({"recording": name, "reason": reason, "detail": detail})
        logger.info("skipped %s", detail)

    def _rows(self, name: str, result: dict[str, Any]) -> list[dict[str, Any]]:
        report = self.report
        seconds = result.get("seconds", 0.0)
        report.seconds += seconds
        if "skipped" in result:
            self._skip(name, result["skipped"], result["detail"])
            return []
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
