"""The auxiliary's pass: each chunk again, from scratch, then distance and verdict (K2D, stage 2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.checkpoints import resolve_checkpoint
from k2d_hf.journal import Journal
from k2d_hf.labelling.audio import AudioError, read_audio
from k2d_hf.labelling.transcribers import DecodingOptions, Transcriber, open_transcriber
from k2d_hf.validation.distance import check_metric, compare_labels, drop_reason, keeps

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
    auxiliary: str | Sequence[str] | Transcriber,
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
        auxiliary: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber`.
        metric: `full`, `trivial`, `mer`, `per` or `composite`.
        threshold: keep iff distance <= threshold (Eq. 2), 0 to 1.
        normalise_by: whose length the error rates are divided by, `auxiliary` or `teacher`.
        language: for chunks that carry none.
        engine: `auto`, `transformers` or `faster-whisper`.
        beam_size: beams of the search; 1 is greedy.
        batch_size: chunks in one pass.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: `auto`, or a number format that the engine knows.
        journal: file that holds what each chunk gave, so that an interrupted run resumes.
        on_progress: called with the number of chunks done.

    Returns:
        The same rows with `auxiliary_text`, `teacher_loops`, `auxiliary_loops`, `mer`, `per`, `distance`, `keep` and
        `drop_reason` (null where kept).

    Raises:
        K2DError: for an unknown metric, a threshold outside [0, 1], or an auxiliary that cannot be loaded.
    """
    check_metric(metric, threshold)
    options = DecodingOptions(
        language=language, beam_size=beam_size, batch_size=batch_size, device=device, dtype=dtype,
        condition_on_previous_text=False,
    )  # fmt: skip
    hears = _Auxiliary(auxiliary, options, engine, Journal(journal), on_progress)

    def validate(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = [
            _verdict(teacher_text, heard, metric=metric, threshold=threshold, normalise_by=normalise_by)
            for teacher_text, heard in zip(batch["text"], hears(batch), strict=True)
        ]
        return {column: [row[column] for row in rows] for column in validation_features()}

    from datasets.fingerprint import generate_random_fingerprint

    return chunks.map(
        validate,
        batched=True,
        batch_size=batch_size * SORTED_BATCHES,
        features=type(chunks.features)({**chunks.features, **validation_features()}),
        load_from_cache_file=False,
        new_fingerprint=generate_random_fingerprint(),
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


class _Auxiliary:
    """What the auxiliary hears in a batch of chunks, from the journal where it is known."""

    def __init__(
        self,
        auxiliary: str | Sequence[str] | Transcriber,
        options: DecodingOptions,
        engine: str,
        journal: Journal,
        on_progress: Callable[[int], None] | None,
    ) -> None:
        self.auxiliary = auxiliary
        self.transcriber: Any = auxiliary if hasattr(auxiliary, "transcribe_chunks") else None
        self.options = options
        self.engine = engine
        self.journal = journal
        self.on_progress = on_progress

    def __call__(self, batch: dict[str, list[Any]]) -> list[dict[str, Any]]:
        keys = [
            f"{recording}@{start:.4f}+{duration:.4f}"
            for recording, start, duration in zip(batch["recording"], batch["start"], batch["duration"], strict=True)
        ]
        todo = [index for index, key in enumerate(keys) if key not in self.journal]
        todo.sort(key=lambda index: len(batch["text"][index]))
        if self.on_progress:
            self.on_progress(len(keys) - len(todo))
        for at in range(0, len(todo), self.options.batch_size):
            indices = todo[at : at + self.options.batch_size]
            self._transcribe(batch, indices, [keys[index] for index in indices])
            if self.on_progress:
                self.on_progress(len(indices))
        return [self.journal[key] for key in keys]

    def _transcribe(self, batch: dict[str, list[Any]], indices: list[int], keys: list[str]) -> None:
        audio: dict[str, np.ndarray] = {}
        languages: list[str | None] = []
        for index, key in zip(indices, keys, strict=True):
            try:
                audio[key] = read_audio(batch["recording"][index], batch["start"][index], batch["duration"][index])
            except AudioError as error:
                logger.warning("%s", error)
                self.journal.write(key, {"unreadable": error.reason})
                continue
            languages.append(batch["language"][index] if "language" in batch else None)
        if not audio:
            return
        for key, text in zip(audio, self._open().transcribe_chunks(list(audio.values()), languages), strict=True):
            self.journal.write(key, {"text": text})

    def _open(self) -> Transcriber:
        if self.transcriber is None:
            checkpoint = resolve_checkpoint(self.auxiliary)  # type: ignore[arg-type]
            self.transcriber = open_transcriber(checkpoint.path, self.options, engine=self.engine)
        return self.transcriber
