"""The auxiliary's pass: each chunk again, from scratch, then distance and verdict (K2D, stage 2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.journal import Journal, file_key, map_rows
from k2d_hf.labelling.audio import AudioError, read_audio
from k2d_hf.labelling.background import prefetch
from k2d_hf.labelling.transcribers import DecodingOptions, OnDemand, Transcriber
from k2d_hf.validation.distance import compare_labels, drop_reason, keeps, label_distance

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, Features

logger = logging.getLogger(__name__)

SORTED_BATCHES = 8  # so many batches of labels are sorted by length, so that a batch holds labels of like length
READ_AHEAD = 2  # batches whose audio is decoded while others are transcribed


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
    known = Journal(journal, settings=model.settings() if journal else None)
    with closing(_Auxiliary(chunks, model, batch_size, known, on_progress)) as hears:

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
    """Where a chunk lies, the language it is to be heard in, and its key in the journal."""

    recording: str
    start: float
    duration: float
    language: str | None
    key: str


@dataclass(frozen=True)
class _Read:
    """A batch of spans with their audio, and those that could not be read."""

    audio: list[tuple[_Span, np.ndarray]]
    unreadable: list[tuple[_Span, AudioError]]


class _Auxiliary:
    """What the auxiliary hears in a batch of chunks, from the journal where it is known.

    What it hears comes as a stream of its own, over all chunks, so that no batch of rows waits for its slowest part.
    """

    def __init__(
        self,
        chunks: Dataset,
        model: OnDemand,
        batch_size: int,
        journal: Journal,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.model = model
        self.batch_size = batch_size
        self.journal = journal
        self.on_progress = on_progress or (lambda count: None)
        self.unreadable: dict[str, str] = {}  # not in the journal: the file may be mended by the next run
        self.file_key = cache(file_key)  # one look at a file: were it changed meanwhile, its chunks would have two keys
        self.new: set[str] = set()  # heard in this run, and not yet asked for
        self.heard = self._hear(chunks)

    def close(self) -> None:
        """Stop the work that is under way."""
        self.heard.close()

    def __call__(self, batch: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
        spans = self._spans(batch)
        known = sum(span.key in self.journal and span.key not in self.new for span in spans)
        if known:
            self.on_progress(known)
        for span in spans:
            while span.key not in self.journal and span.key not in self.unreadable:
                next(self.heard)
            reason = self.unreadable.get(span.key)
            yield {"unreadable": reason} if reason else self.journal[span.key]
        self.new.difference_update(span.key for span in spans)

    def _spans(self, batch: Mapping[str, list[Any]]) -> list[_Span]:
        places = zip(batch["recording"], batch["start"], batch["duration"], strict=True)
        languages = batch.get("language", [None] * len(batch["recording"]))
        return [
            _Span(
                recording, start, duration, language,
                f"{self.file_key(recording)} {start:.4f}+{duration:.4f} {language or ''}".rstrip(),
            )
            for (recording, start, duration), language in zip(places, languages, strict=True)
        ]  # fmt: skip

    def _hear(self, chunks: Dataset) -> Generator[None, None, None]:
        """Read and transcribe what the journal lacks, batch by batch; what was heard goes to it at once."""
        with (
            closing(prefetch(_read, self._batches(chunks), ahead=READ_AHEAD)) as read,
            closing(
                self.model.call(_transcribe, self._readable(read), at_most=-(-len(chunks) // self.batch_size))
            ) as answers,
        ):
            for answer in answers:
                for span, text in answer:
                    self.journal.write(span.key, {"text": text})
                    self.new.add(span.key)
                self.on_progress(len(answer))
                yield
        yield  # what could not be read after the last answer is known by now, too

    def _batches(self, chunks: Dataset) -> Iterator[list[_Span]]:
        """Spans that are not in the journal, by length of label: the longest first, so that the last work is short."""
        columns = [name for name in ("recording", "start", "duration", "language", "text") if name in chunks.features]
        for rows in chunks.select_columns(columns).iter(batch_size=self.batch_size * SORTED_BATCHES):
            todo = [
                (len(text.encode()), span)  # Whisper's tokens are bytes: a Chinese character is worth several letters
                for text, span in zip(rows["text"], self._spans(rows), strict=True)
                if span.key not in self.journal
            ]
            todo.sort(key=lambda entry: entry[0], reverse=True)
            for at in range(0, len(todo), self.batch_size):
                yield [span for _, span in todo[at : at + self.batch_size]]

    def _readable(self, read: Iterator[_Read]) -> Iterator[_Read]:
        """Batches of which something could be read."""
        for batch in read:
            for span, error in batch.unreadable:
                logger.warning("%s", error)
                self.unreadable[span.key] = error.reason
                self.on_progress(1)
            if batch.audio:
                yield batch


def _read(spans: list[_Span]) -> _Read:
    batch = _Read([], [])
    for span in spans:
        try:
            batch.audio.append((span, read_audio(span.recording, span.start, span.duration)))
        except AudioError as error:
            batch.unreadable.append((span, error))
    return batch


def _transcribe(model: Transcriber, batch: _Read) -> list[tuple[_Span, str]]:
    texts = model.transcribe_chunks([audio for _, audio in batch.audio], [span.language for span, _ in batch.audio])
    return [(span, text) for (span, _), text in zip(batch.audio, texts, strict=True)]
