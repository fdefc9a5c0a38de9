"""Which chunks are trained on: those that validation kept and whose label fits the decoder; the rest is counted.

Rows are looked at in batches, so that memory does not grow with their number.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from k2d_hf.distillation.collator import K2DDataCollator
from k2d_hf.distillation.target_columns import stored_targets
from k2d_hf.errors import K2DError
from k2d_hf.languages import language_code
from k2d_hf.whisper_tokens import LabelEncoder, strip_special

logger = logging.getLogger(__name__)

NAMED = 3  # chunks named in the warning about labels that are too long
BATCH_ROWS = 256  # looked at together
CHECKED = 16  # chunks whose soft targets are looked up; other settings than the targets' show at the first, or nearly


def training_rows(rows: Any, collator: K2DDataCollator, *, what: str) -> Any:
    """Leave out chunks that were dropped by validation and those whose label is too long, with a warning that counts.

    Args:
        rows: a `datasets.Dataset` of chunks, or a dictionary of them; anything else is returned as it is.
        collator: whose labels are measured.
        what: name of the rows, for messages.

    Raises:
        K2DError: if nothing is left.
    """
    from datasets import Dataset

    if isinstance(rows, dict):
        return {name: training_rows(part, collator, what=f"{what} {name}") for name, part in rows.items()}
    if not isinstance(rows, Dataset) or "text" not in rows.column_names:
        return rows
    if collator.full_windows and "next_start" not in rows.column_names:
        raise K2DError(f"full_windows needs the column next_start ({what}): label again, or set it to false")
    kept = np.zeros(len(rows), dtype=bool)
    fits = np.zeros(len(rows), dtype=bool)
    for at, batch in _batches(rows, "text", "segments", "language", "keep", "next_start"):
        here = slice(at, at + len(batch))
        kept[here] = [bool(chunk.get("keep", True)) for chunk in batch]
        fits[here][kept[here]] = labels_fit(
            [chunk for chunk, keep in zip(batch, kept[here], strict=True) if keep], collator
        )
    dropped = len(rows) - int(kept.sum())
    too_long = np.flatnonzero(kept & ~fits)
    if len(too_long):
        named = (rows[int(index)] for index in too_long[:NAMED])
        names = ", ".join(f"{row['recording']} at {row['start']:.1f} s" for row in named)
        more = f" and {len(too_long) - NAMED} more" if len(too_long) > NAMED else ""
        logger.warning(
            "%s: left out %d chunks whose label exceeds %d tokens: %s%s",
            what,
            len(too_long),
            collator.max_tokens,
            names,
            more,
        )
    if dropped:
        logger.info("%s: left out %d chunks that validation dropped", what, dropped)
    if not fits.any():
        raise K2DError(
            f"nothing to train on: of {len(rows)} chunks ({what}) {dropped} were dropped by validation and "
            f"{len(too_long)} have too long a label; raise validate.threshold, or look at the distances"
        )
    return rows if fits.all() else rows.select(np.flatnonzero(fits))


def check_targets(rows: Any, collator: Any) -> None:
    """Raise K2DError if soft targets are not those of the labels that the collator makes: before training, not in it.

    Args:
        rows: a data set of chunks to be trained on, with the soft targets that take a model's place; of anything else
            nothing is known.
        collator: whose settings may be others than those that the targets were written for.
    """
    if not (isinstance(collator, K2DDataCollator) and hasattr(rows, "select") and "target_forms" in rows.column_names):
        return
    for chunk in rows.select(range(min(len(rows), CHECKED))):
        for (timestamps, _), example in collator.forms(chunk).items():
            stored_targets(chunk, example, full_window=collator.fills_window(chunk, timestamps=timestamps))


def language_of(rows: Any) -> str | None:
    """The language of the chunks, if they are all in one."""
    from datasets import Dataset

    if not isinstance(rows, Dataset) or "language" not in rows.column_names:
        return None
    languages: set[str | None] = set()
    for _, batch in _batches(rows, "language"):
        languages |= {language_code(chunk["language"]) for chunk in batch}
        if len(languages) > 1:
            return None
    return next(iter(languages), None)


def _batches(rows: Any, *columns: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Some columns of a data set, those that it has, a list of rows at a time, with the position of the first."""
    present = rows.select_columns([column for column in columns if column in rows.column_names])
    at = 0
    for batch in present.with_format(None).iter(batch_size=BATCH_ROWS):
        chunks = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        yield at, chunks
        at += len(chunks)


def labels_fit(chunks: Sequence[Mapping[str, Any]], collator: K2DDataCollator) -> np.ndarray:
    """Whether the decoder has room for each label in every form that a draw can give, without prompt, [chunks] bool."""
    probability, room = collator.timestamp_probability, collator.max_tokens
    fit = np.ones(len(chunks), dtype=bool)
    for timestamps in [form for form, possible in ((True, probability > 0), (False, probability < 1)) if possible]:
        fit &= _lengths(chunks, collator, timestamps=timestamps, at_most=room) <= room
    return fit


def _lengths(
    chunks: Sequence[Mapping[str, Any]], collator: K2DDataCollator, *, timestamps: bool, at_most: int = 0
) -> np.ndarray:
    """Positions that labels take, [chunks] int32; of one that cannot take more than `at_most`, the most it can.

    A token spells at least one byte, so the bytes of a text are the most tokens it can have.
    """
    outline = _Outline(collator.encoder)
    lengths = np.zeros(len(chunks), dtype=np.int32)
    texts: list[str] = []
    owners: list[int] = []
    for index, chunk in enumerate(chunks):
        language = language_code(chunk.get("language")) or collator.language
        outline.texts = []
        ids = outline.label_ids(
            chunk["text"],
            chunk["segments"],
            language=language,
            timestamps=timestamps,
            next_start=collator.cut_segment(chunk),
        )
        lengths[index] = len(ids) - 1  # inputs and labels are shifted by one
        longest = lengths[index] + sum(len(text.encode()) for text in outline.texts)
        if longest <= at_most:
            lengths[index] = longest
        else:
            texts += outline.texts
            owners += [index] * len(outline.texts)
    if texts:
        tokenizer = collator.encoder.tokenizer.backend_tokenizer  # whose results need not become lists to be counted
        tokenizer.no_truncation()
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        np.add.at(lengths, owners, [len(encoding) for encoding in encodings])
    return lengths


class _Outline(LabelEncoder):
    """Builds labels without their texts, which it notes instead, to be tokenised many at once."""

    def __init__(self, encoder: LabelEncoder) -> None:
        super().__init__(encoder.tokenizer, task=encoder.task, max_tokens=encoder.max_tokens)
        self.texts: list[str] = []

    def text_ids(self, text: str) -> list[int]:
        """Nothing, but the text is noted."""
        self.texts.append(strip_special(text))
        return []
