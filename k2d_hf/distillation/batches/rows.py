"""Which chunks are trained on: those that validation kept and whose label fits the decoder; the rest is counted.

Rows are read in batches, so that memory does not grow with their number.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from k2d_hf.data.chunk_audio import chunk_name, ends_with_its_sound
from k2d_hf.data.chunk_schema import DRAW, LABEL, SOUND, VERDICT, columns_for, is_kept, rows_of
from k2d_hf.data.utterances import as_chunks, unusable
from k2d_hf.distillation.batches.collator import K2DDataCollator, possible_draws
from k2d_hf.distillation.batches.target_columns import stored_targets
from k2d_hf.errors import K2DError
from k2d_hf.models.languages import language_code
from k2d_hf.models.whisper_tokens import LabelEncoder, strip_special

logger = logging.getLogger(__name__)

NAMED = 3  # chunks named in a warning
DROPPED = "that validation dropped"
BATCH_ROWS = 256  # read together
CHECKED = 16  # chunks whose soft targets are looked up; other settings than the targets' show at the first, or nearly


def training_rows(rows: Any, collator: K2DDataCollator, *, what: str) -> Any:
    """Leave out chunks that cannot be trained on, with warnings that count and name them.

    They are those that validation dropped, those whose label is too long for the decoder, and of labelled utterances
    those without text, without sound that can be read, or of more than 30 s. Rows are a `datasets.Dataset`, or a
    dictionary of them; anything else stays as it is.

    Raises:
        K2DError: if nothing is left, or `full_windows` asks for audio that there is not.
    """
    from datasets import Dataset

    if isinstance(rows, dict):
        return {name: training_rows(part, collator, what=f"{what} {name}") for name, part in rows.items()}
    rows = as_chunks(rows)
    if not isinstance(rows, Dataset) or "text" not in rows.column_names:
        return rows
    check_windows(rows.column_names, collator, what=what)
    found: list[str | None] = []
    names: dict[str, list[str]] = {}
    for batch in _batches(rows, columns_to_inspect(rows.column_names, collator)):
        _add_sound(batch, rows, first=len(found))
        reasons = reasons_to_leave_out(batch, collator)
        for chunk, reason in zip(batch, reasons, strict=True):
            some = names.setdefault(reason or "", [])
            if len(some) < NAMED:
                some.append(chunk_name(chunk))
        found += reasons
    counts = Counter(filter(None, found))
    for reason, count in counts.items():
        level = logging.INFO if reason == DROPPED else logging.WARNING
        few = ", ".join(names[reason]) + (f" and {count - NAMED} more" if count > NAMED else "")
        logger.log(level, "%s: left out %d chunks %s: %s", what, count, reason, few)
    if counts.total() == len(found):
        dropped, too_long = counts.pop(DROPPED, 0), counts.pop(label_exceeds(collator), 0)
        left_out = f"{dropped} were dropped by validation and {too_long} have too long a label"
        left_out += "".join(f", {count} {reason}" for reason, count in counts.items())
        raise K2DError(
            f"nothing to train on: of {len(rows)} chunks ({what}) {left_out}; raise validate.threshold, or look at the "
            "distances"
        )
    return rows.select(np.flatnonzero([reason is None for reason in found])) if counts else rows


def check_prepared(rows: Any, *, what: str) -> None:
    """Raise K2DError for rows that the collator can make nothing of, such as those made ready for another one."""
    from datasets import Dataset

    if isinstance(rows, dict):
        for name, part in rows.items():
            check_prepared(part, what=f"{what} {name}")
    rows = as_chunks(rows)
    if not isinstance(rows, Dataset):
        return
    names = set(rows.column_names)
    if "text" in names and names & {"audio", "recording"}:
        return
    if names & {"input_features", "labels"}:
        raise K2DError(
            f"{what}: the rows are made ready for another collator ({', '.join(rows.column_names)}): give them as they "
            "were, with audio and text, or a data_collator of your own"
        )
    lacks = "text" if names & {"audio", "recording"} else "audio"
    raise K2DError(f"{what}: the rows have no column with {lacks} ({', '.join(rows.column_names)}): rename it so")


def check_usable(rows: Any, *, what: str) -> None:
    """Raise K2DError for an utterance that cannot be read to its end, where no row may be left out."""
    from datasets import Dataset

    if not isinstance(rows, Dataset) or {"start", "duration"} <= set(rows.column_names):
        return
    for batch in _batches(rows, columns_for(LABEL, SOUND, among=rows.column_names)):
        for chunk in batch:
            if reason := unusable(chunk):
                utterance = f"{what}: {chunk_name(chunk)} is an utterance {reason}"
                raise K2DError(f"{utterance}: leave it out, as predictions are those of all rows")


def reasons_to_leave_out(chunks: Sequence[Mapping[str, Any]], collator: K2DDataCollator) -> list[str | None]:
    """Why each chunk is not trained on, as it follows "left out 3 chunks" in a message; None where it is.

    Raises:
        K2DError: if `full_windows` asks for a window that ends beyond the sound which a chunk carries.
    """
    reasons: list[str | None] = []
    for chunk in chunks:
        if collator.full_windows and chunk.get("next_start") is not None and ends_with_its_sound(chunk):
            raise K2DError(
                f"full_windows: {chunk_name(chunk)} carries its own sound, which ends with it: give the chunks with "
                "the paths of their recordings, or set it to false"
            )
        reasons.append(unusable(chunk) if is_kept(chunk) else DROPPED)
    left = [index for index, reason in enumerate(reasons) if reason is None]
    fits = labels_fit([chunks[index] for index in left], collator)
    for index in (index for index, fit in zip(left, fits, strict=True) if not fit):
        reasons[index] = label_exceeds(collator)
    return reasons


def label_exceeds(collator: K2DDataCollator) -> str:
    """The reason of a chunk whose label has no room in the decoder."""
    return f"whose label exceeds {collator.max_tokens} tokens"


def columns_to_inspect(columns: Sequence[str], collator: K2DDataCollator) -> list[str]:
    """The columns by which chunks are left out; their sound only where no column has its length or end."""
    names = columns_for(LABEL, VERDICT, DRAW, SOUND, among=columns)
    needs_audio = collator.full_windows or not {"start", "duration"} <= set(columns)
    return [name for name in names if name != "audio" or needs_audio]


def needs_sound(chunk: Mapping[str, Any], columns: Sequence[str]) -> bool:
    """Whether a row has no length of its own, as an utterance among chunks, and its audio was left out."""
    return chunk.get("duration") is None and "audio" in columns and "audio" not in chunk


def _add_sound(batch: list[dict[str, Any]], rows: Any, *, first: int) -> None:
    """Give those of a batch their audio that need it; `first` is the index of its first row."""
    wanted = [at for at, chunk in enumerate(batch) if needs_sound(chunk, rows.column_names)]
    if wanted:
        sounds = rows.select_columns(["audio"]).with_format(None)[[first + at for at in wanted]]["audio"]
        for at, sound in zip(wanted, sounds, strict=True):
            batch[at]["audio"] = sound


def check_windows(columns: Sequence[str], collator: K2DDataCollator, *, what: str) -> None:
    """Raise K2DError if the windows that are asked for are not known."""
    if collator.full_windows and "next_start" not in columns:
        raise K2DError(f"full_windows needs the column next_start ({what}): label again, or set it to false")


def check_target_labels(rows: Any, collator: Any) -> None:
    """Raise K2DError if the soft targets of a data set are not of the labels that the collator makes."""
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
    languages = {language_code(chunk["language"]) for batch in _batches(rows, ["language"]) for chunk in batch}
    return languages.pop() if len(languages) == 1 else None


def _batches(rows: Any, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Some columns of a data set, a list of rows at a time."""
    batches = rows.select_columns(columns).with_format(None).iter(batch_size=BATCH_ROWS)
    return (list(rows_of(batch)) for batch in batches)


def labels_fit(chunks: Sequence[Mapping[str, Any]], collator: K2DDataCollator) -> np.ndarray:
    """Whether the decoder has room for each label in every form that a draw can give, without prompt, [chunks] bool."""
    room, fit = collator.max_tokens, np.ones(len(chunks), dtype=bool)
    for timestamps in possible_draws(collator.timestamp_probability):
        fit &= _lengths(chunks, collator, timestamps=timestamps, at_most=room) <= room
    return fit


def _lengths(
    chunks: Sequence[Mapping[str, Any]], collator: K2DDataCollator, *, timestamps: bool, at_most: int
) -> np.ndarray:
    """Positions that labels take, [chunks] int32; of one that cannot take more than `at_most`, the most it can.

    A token spells at least one byte, so the bytes of a text are the most tokens it can have.
    """
    outline = _Outline(collator.encoder)
    lengths = np.zeros(len(chunks), dtype=np.int32)
    texts: list[str] = []
    owners: list[int] = []
    for index, chunk in enumerate(chunks):
        outline.texts = []
        lengths[index] = len(collator.label_ids(chunk, timestamps, outline)) - 1  # inputs and labels are shifted by one
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
        self.texts.append(strip_special(text))
        return []
