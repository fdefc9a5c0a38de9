"""One row a recording, whatever the source calls its columns, and each recording once (K2D, before stage 1)."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from k2d_hf.errors import K2DError
from k2d_hf.paths import joined
from k2d_hf.storage import is_address
from k2d_hf.wording import named, quoted

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("audio", "path", "file", "audio_path", "audio_filepath", "recording", "file_name", "wav")
REFERENCE_COLUMNS = ("reference", "text", "sentence", "transcription")  # else the texts of `segments`, joined
LANGUAGE_COLUMN = "language"


class Row(NamedTuple):
    """A recording: its path or address, transcript and language, and for messages the line or row it came from."""

    recording: str
    reference: str | None
    language: str | None
    where: str
    group: str | None = None  # what it belongs to, where that was asked for


def row_of(recording: str, values: Mapping[str, Any], where: str, group_by: str | None = None) -> Row:
    """The row of a recording, with transcript, language and group from the columns that the source has.

    Raises:
        K2DError: if one of them is no text, or the row has nothing in the column `group_by`.
    """
    reference = next((values[name] for name in REFERENCE_COLUMNS if values.get(name) is not None), None)
    if reference is None and values.get("segments"):
        try:
            reference = " ".join(segment["text"].strip() for segment in values["segments"])
        except (TypeError, KeyError, AttributeError) as error:
            raise K2DError(f"{where}: `segments` is not a list of objects with a `text`; mend or drop it") from error
    language = values.get(LANGUAGE_COLUMN)
    for name, value in (("transcript", reference), (LANGUAGE_COLUMN, language)):
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: the {name} is {quoted(value)}; give a string or null")
        if value is not None and value != _storable(value):
            raise K2DError(f"{where}: the {name} is not UTF-8 ({quoted(_storable(value))}); save it as UTF-8")
    group = None if group_by is None else values.get(group_by)
    if group_by is not None and group is None:
        raise K2DError(f"{where}: nothing in column {named(group_by)}; give what the recording belongs to")
    return Row(_storable(recording), reference, language, where, None if group is None else _storable(str(group)))


def _storable(text: str) -> str:
    """Text as a data set can hold it: a file name that is no UTF-8 is told, though no file is found by it any more."""
    return text.encode(errors="backslashreplace").decode()


def absolute(path: str, base: str) -> str:
    """A path as it is seen from the folder or address `base`; an address stays."""
    if is_address(path):
        return path
    try:
        path = path if is_address(base) else os.path.expanduser(path)
        path = joined(base, path)
        return path if is_address(path) else os.path.abspath(path)
    except ValueError:  # a name that no file can have; read as such, it is skipped with its reason
        return path


def audio_column(columns: Iterable[str], name: str, wanted: str | None) -> str:
    """The column with the audio of the source `name`.

    Raises:
        K2DError: if it has none of the usual names, or not the wanted one.
    """
    columns = list(columns)
    accepted = PATH_COLUMNS if wanted is None else (wanted,)
    for column in accepted:
        if column in columns:
            return column
    found, names = ", ".join(map(named, columns[:20])), ", ".join(map(named, accepted))
    raise K2DError(f"{name}: no column with audio; it has {found}; rename one to, or set audio_column: {names}")


def unique(rows: Iterable[Row]) -> Iterator[Row]:
    """Each recording once, and a warning at the end of how many came again; holds 100 to 150 bytes of each.

    Raises:
        K2DError: if it comes again with another transcript.
    """
    transcripts: dict[bytes, int | None] = {}  # hashes, by those of the recordings
    repeated = 0
    for row in rows:
        recording = hashlib.blake2b(f"{row.recording}\0{row.group}".encode(), digest_size=16).digest()
        transcript = None if row.reference is None else hash(row.reference)
        if recording not in transcripts:
            transcripts[recording] = transcript
            yield row
            continue
        repeated += 1
        if transcripts[recording] != transcript:
            raise K2DError(
                f"{row.where}: {named(row.recording, 400)} came before with another transcript; a recording is read "
                "whole, so give each file once, with its whole transcript"
            )
    if repeated:
        logger.warning("%d rows name a recording that came before; each is kept once", repeated)
