"""The teacher's pass: a `datasets` map step from recordings to chunks, resumable by recording (K2D, stage 1)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.checkpoints import resolve_checkpoint
from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal
from k2d_hf.labelling.audio import SAMPLE_RATE, AudioError, read_audio
from k2d_hf.labelling.chunking import Segment, chunk_rows, pack_segments, sound_segments
from k2d_hf.labelling.transcribers import DecodingOptions, Transcriber, open_transcriber
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
    teacher: str | Sequence[str] | Transcriber,
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
        teacher: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber`.
        language: code such as `zh`; None lets the teacher tell, recording by recording.
        engine: `auto`, `transformers` or `faster-whisper`.
        beam_size: beams of the search.
        condition_on_previous_text: whether the teacher sees what it wrote before, as in openai/whisper.
        batch_size: recordings in one pass, where the engine batches.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        dtype: `auto`, or a number format that the engine knows.
        max_duration: longest chunk in seconds, at most 30.
        journal: file that holds what each recording gave, so that an interrupted run resumes.
        report: counts of what was read, skipped and left out, filled in.
        on_progress: called with the number of recordings done.

    Returns:
        Data set of chunks with `recording`, `start`, `duration`, `segments`, `text`, `previous_text`, `language`.

    Raises:
        K2DError: if the teacher cannot be loaded, or every recording was skipped.
    """
    if not 0 < max_duration <= CHUNK_SECONDS:
        raise K2DError(f"max_duration {max_duration:g}: Whisper hears at most {CHUNK_SECONDS:g} s at once")
    report = report if report is not None else LabellingReport()
    options = DecodingOptions(
        language=language,
        beam_size=beam_size,
        condition_on_previous_text=condition_on_previous_text,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
    )
    labeller = _Labeller(teacher, options, engine, max_duration, Journal(journal), report, on_progress)
    chunks = recordings.map(
        labeller,
        batched=True,
        batch_size=batch_size,
        remove_columns=recordings.column_names,
        features=chunk_features(),
        load_from_cache_file=False,
        new_fingerprint=_fingerprint(),
        desc="label",
    )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in report.skip_counts().most_common())
        logger.warning("skipped %d of %d recordings: %s", len(report.skipped), report.recordings, counts)
    if len(chunks) == 0:
        raise K2DError(_nothing_left(report))
    return chunks


def _fingerprint() -> str:
    """A new one each time: hashing the step would hash the model's weights, and the journal is what resumes."""
    from datasets.fingerprint import generate_random_fingerprint

    return generate_random_fingerprint()


def _nothing_left(report: LabellingReport) -> str:
    if not report.skipped:
        return "there are no recordings to label"
    return f"none of {report.recordings} recordings could be labelled; the first: {report.skipped[0]['detail']}"


class _Labeller:
    """The map step: a batch of recordings in, rows of chunks out. The model loads when it is first needed."""

    def __init__(
        self,
        teacher: str | Sequence[str] | Transcriber,
        options: DecodingOptions,
        engine: str,
        max_duration: float,
        journal: Journal,
        report: LabellingReport,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.teacher = teacher
        self.transcriber: Any = teacher if hasattr(teacher, "transcribe") else None
        self.options = options
        self.engine = engine
        self.max_duration = max_duration
        self.journal = journal
        self.report = report
        self.on_progress = on_progress

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names: list[str] = batch["recording"]
        self._transcribe([name for name in dict.fromkeys(names) if name not in self.journal])
        rows = [row for name in names for row in self._rows(name)]
        if self.on_progress:
            self.on_progress(len(names))
        return {column: [row[column] for row in rows] for column in chunk_features()}

    def _transcribe(self, names: list[str]) -> None:
        """Read and transcribe recordings; each goes to the journal as soon as it is known."""
        readable: dict[str, np.ndarray] = {}
        for name in names:
            try:
                audio = read_audio(name)
            except AudioError as error:
                self.journal.write(name, {"skipped": error.reason, "detail": str(error)})
                continue
            if not audio.any():
                detail = f"{name}: silence from start to end"
                self.journal.write(name, {"skipped": NO_SPEECH, "detail": detail, "seconds": len(audio) / SAMPLE_RATE})
                continue
            readable[name] = audio
        for group in self._groups(list(readable)):
            for name, transcript in zip(group, self._open().transcribe([readable[n] for n in group]), strict=True):
                self.journal.write(
                    name,
                    {
                        "seconds": len(readable[name]) / SAMPLE_RATE,
                        "language": transcript.language,
                        "segments": [asdict(segment) for segment in transcript.segments],
                    },
                )

    def _groups(self, names: list[str]) -> list[list[str]]:
        """What goes to the engine at once: a batch where it batches, else one, so that little is lost when stopped."""
        if names and self._open().engine == "transformers":
            return [names]
        return [[name] for name in names]

    def _open(self) -> Transcriber:
        if self.transcriber is None:
            checkpoint = resolve_checkpoint(self.teacher)  # type: ignore[arg-type]
            self.transcriber = open_transcriber(checkpoint.path, self.options, engine=self.engine)
        return self.transcriber

    def _rows(self, name: str) -> list[dict[str, Any]]:
        entry = self.journal[name]
        report = self.report
        report.recordings += 1
        report.seconds += entry.get("seconds", 0.0)
        if "skipped" in entry:
            report.skipped.append({"recording": name, "reason": entry["skipped"], "detail": entry["detail"]})
            return []
        segments = [Segment(**segment) for segment in entry["segments"]]
        sound, left_out = sound_segments(segments, recording_duration=entry["seconds"], max_duration=self.max_duration)
        report.segment_seconds_in += sum(segment.duration for segment in segments)
        report.segment_seconds_out += sum(segment.duration for segment in sound)
        report.left_out.extend({"recording": name, **asdict(span)} for span in left_out)
        if not sound:
            detail = f"{name}: the teacher heard nothing that could be kept in {entry['seconds']:.1f} s"
            report.skipped.append({"recording": name, "reason": NO_SPEECH, "detail": detail})
            return []
        return chunk_rows(name, pack_segments(sound, self.max_duration), language=entry["language"])
