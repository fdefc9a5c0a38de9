"""Labelled utterances, as the tutorials of fine-tuning have them: chunks whose text is known, without timestamps.

A row has a column with audio and one with the text. They get the names of a chunk's; nothing is copied or decoded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from k2d_hf.audio.reader import AudioError
from k2d_hf.data.audio_values import undecoded
from k2d_hf.data.chunk_audio import chunk_seconds
from k2d_hf.data.chunking import exceeds
from k2d_hf.data.recording_rows import (
    LANGUAGE_COLUMN,
    MORE_LANGUAGE_COLUMNS,
    MORE_REFERENCE_COLUMNS,
    PATH_COLUMNS,
    REFERENCE_COLUMNS,
)
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS

TEXT_COLUMNS = ("text", *REFERENCE_COLUMNS, *MORE_REFERENCE_COLUMNS)
LONGER, NO_TEXT = f"longer than {CHUNK_SECONDS:g} s", "without text"


def as_chunks(rows: Any) -> Any:
    """The same rows under a chunk's names: their audio in `audio` or `recording`, their text in `text`, undecoded.

    Chunks, and what is neither a `Dataset` nor an `IterableDataset`, stay as they are.
    """
    from datasets import Dataset, IterableDataset

    if not isinstance(rows, (Dataset, IterableDataset)):
        return rows
    names = chunk_names(names_of(rows), rows.features)
    rows = undecoded(rows)
    for found, name in names.items():
        rows = rows.rename_column(found, name)
    return rows


def chunk_names(names: Sequence[str], features: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The columns of rows that have another name in a chunk, with that name; by their types, where these are known."""
    from datasets import Audio

    renamed: dict[str, str] = {}
    audio = [name for name in names if isinstance((features or {}).get(name), Audio)]
    if not {"audio", "recording"} & set(names):
        given = (*(audio if len(audio) == 1 else ()), *PATH_COLUMNS)
        if found := next((name for name in given if name in names), None):
            renamed[found] = "audio"
    for name, others in (("text", TEXT_COLUMNS), (LANGUAGE_COLUMN, MORE_LANGUAGE_COLUMNS)):
        found = next((other for other in others if other in names), None)
        if name not in names and found:
            renamed[found] = name
    return renamed


def names_of(rows: Any) -> list[str]:
    """The columns of rows; those of a stream may only be known when its first row is read."""
    if rows.column_names is not None:
        return list(rows.column_names)
    first = next(iter(rows.with_format("arrow")), None)
    return [] if first is None else first.column_names


def are_utterances(names: Any) -> bool:
    """Whether rows with columns of these names have texts without times: human transcripts need no validation."""
    return "text" in names and bool({"audio", "recording"} & set(names)) and not {"segments", "start"} & set(names)


def unusable(chunk: Mapping[str, Any]) -> str | None:
    """Why a chunk cannot be trained on, as the end of a message; None where it can.

    Chunks that labelling wrote have text and a length of at most 30 s; of an utterance the header of its audio is read.
    """
    if chunk.get("text") is None:
        return NO_TEXT
    if chunk.get("duration") is None and chunk.get("segments") is not None:
        return None
    try:
        return LONGER if exceeds(chunk_seconds(chunk), CHUNK_SECONDS) else None
    except AudioError as error:
        return f"whose audio cannot be read ({error.reason})"
    except K2DError:
        return "whose audio cannot be read (not audio)"
