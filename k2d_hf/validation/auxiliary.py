"""The auxiliary's pass: each chunk again, from scratch, then distance and verdict (K2D, stage 2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal, file_key, map_rows
from k2d_hf.labelling.audio import AudioError, read_audio
from k2d_hf.labelling.transcribers import DecodingOptions, OnDemand, Transcriber
from k2d_hf.validation.distance import compare_labels, drop_reason, keeps, label_distance

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

SORTED_BATCHES = 8  # this many batches are read at once and sorted, so that a batch holds labels of like length


def validation_features() -> Features:
    """Columns and types that validation adds."""
    from datasets import Features, Value

    return Features(
        {
            "auxiliary_text": Value("string"),
            "teacher_loops": Value("bool"),
            "auxiliary_loops": Value("bool"),
            "mer": Value("float64"),
            "per": Value("float64"),
            "distance": Value("float64"),
            "keep": Value("bool"),
            "drop_reason": Value("string"),
        }
    )


def validate_labels(
    chunks: Dataset,
    auxiliary: str | Path | Sequence[str] | Transcriber,
    *,
    metric: str = "composite",
    threshold: float = 0.4,
    normalise_by: str = "auxiliary",
    language: str | None = None,
    engine: str = "auto",
    beam_size: int = 1,
    batch_size: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    journal: str | Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Dataset:
    """Transcribe every chunk with the auxiliary and mark those to keep (K2D, stage 2, Eq. 1 to 5).

    Args:
        chunks: what `label_recordings` gave.
        auxiliary: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own
            options.
        metric: `full`, `trivial`, `mer`, `per` or `composite`.
        threshold: keep iff distance <= threshold (Eq. 2), 0 to 1.
        normalise_by: whose length the error rates are divided by, `auxiliary` or `teacher`.
        language: for chunks that carry none.
        engine: `auto`, `transformers` or `faster-whisper`.
        beam_size: beams of the search; 1 is greedy.
        batch_size: chunks in one pass.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: `auto`, or a number format that the engine knows.
        journal: file that holds what was heard in each chunk, so that an interrupted run resumes; one for each
            auxiliary, whatever the metric and threshold.
        on_progress: called with the number of chunks done.

    Returns:
        The same rows with `auxiliary_text`, `teacher_loops`, `auxiliary_loops`, `mer`, `per`, `distance`, `keep` and
        `drop_reason` (null where kept).

    Raises:
        K2DError: for an unknown metric, a threshold outside [0, 1], an auxiliary that cannot be loaded, no chunks, or
            a journal of other settings.
    """
    keeps(label_distance("", "", metric, normalise_by=normalise_by), threshold)  # wrong settings fail before any work
    if len(chunks) == 0:
        raise K2DError("there are no chunks to validate")
    missing = [name for name in ("recording", "start", "duration", "text") if name not in chunks.column_names]
    if missing:
        raise K2DError(f"the chunks have no column {', '.join(missing)}: label_recordings makes them")
    options = DecodingOptions(
        language=language, beam_size=beam_size, batch_size=batch_size, device=device, dtype=dtype,
        condition_on_previous_text=False,
    )  # fmt: skip
    model = OnDemand(auxiliary, options, engine=engine)
    hears = _Auxiliary(model, batch_size, Journal(journal, settings=model.settings() if journal else None), on_progress)

    def validate(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [
            _verdict(teacher_text, heard, metric=metric, threshold=threshold, normalise_by=normalise_by)
            for teacher_text, heard in zip(batch["text"], hears(batch), strict=True)
        ]
        return {column: [row[column] for row in rows] for column in validation_features()}

    return map_rows(
        chunks,
        validate,
        features=type(chunks.features)({**chunks.features, **validation_features()}),
        batch_size=batch_size * SORTED_BATCHES,
        desc="validate",
    )


def drop_counts(chunks: Dataset) -> Counter[str]:
    """Chunks dropped, by reason."""
    return Counter(reason for reason in chunks["drop_reason"] if reason is not None)


def _verdict(
    teacher_text: str, heard: dict[str, Any], *, metric: str, threshold: float, normalise_by: str
) -> dict[str, Any]:
    """The columns of one row. A chunk whose audio could not be read again has no transcript and is dropped."""
    if "unreadable" in heard:
        comparison = compare_labels(teacher_text, "", metric, normalise_by=normalise_by)
        return {**asdict(comparison), "auxiliary_text": None, "keep": False, "drop_reason": heard["unreadable"]}
    comparison = compare_labels(teacher_text, heard["text"], metric, normalise_by=normalise_by)
    keep = keeps(comparison.distance, threshold)
    reason = None if keep else drop_reason(comparison, metric, threshold)
    return {**asdict(comparison), "auxiliary_text": heard["text"], "keep": keep, "drop_reason": reason}


@dataclass(frozen=True)
class _Span:
    """Where a chunk lies, and the language it is to be heard in."""

    recording: str
    start: float
    duration: float
    language: str | None

    @cached_property
    def key(self) -> str:
        """Key in the journal."""
        return f"{file_key(self.recording)} {self.start:.4f}+{self.duration:.4f} {self.language or ''}".rstrip()


class _Auxiliary:
    """What the auxiliary hears in a batch of chunks, from the journal where it is known."""

    def __init__(
        self, model: OnDemand, batch_size: int, journal: Journal, on_progress: Callable[[int], None] | None
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.journal = journal
        self.on_progress = on_progress or (lambda count: None)

    def __call__(self, batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
        count = len(batch["text"])
        languages = batch["language"] if "language" in batch else [None] * count
        spans = [
            _Span(recording, start, duration, language)
            for recording, start, duration, language in zip(
                batch["recording"], batch["start"], batch["duration"], languages, strict=True
            )
        ]
        heard = {span: self.journal[span.key] for span in spans if span.key in self.journal}
        self.on_progress(sum(span in heard for span in spans))
        todo = [index for index, span in enumerate(spans) if span not in heard]
        todo.sort(key=lambda index: len(batch["text"][index]))
        for at in range(0, len(todo), self.batch_size):
            indices = todo[at : at + self.batch_size]
            heard |= self._transcribe([spans[index] for index in indices])
            self.on_progress(len(indices))
        return [heard[span] for span in spans]

    def _transcribe(self, spans: list[_Span]) -> dict[_Span, dict[str, Any]]:
        """Read and transcribe spans. What was heard goes to the journal; what could not be read may be mended later."""
        heard: dict[_Span, dict[str, Any]] = {}
        audio: dict[_Span, np.ndarray] = {}
        for span in spans:
            try:
                audio[span] = read_audio(span.recording, span.start, span.duration)
            except AudioError as error:
                logger.warning("%s", error)
                heard[span] = {"unreadable": error.reason}
        if audio:
            texts = self.model.load().transcribe_chunks(list(audio.values()), [span.language for span in audio])
            for span, text in zip(audio, texts, strict=True):
                heard[span] = {"text": text}
                self.journal.write(span.key, heard[span])
        return heard
