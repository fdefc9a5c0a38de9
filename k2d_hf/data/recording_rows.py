"""One row a recording, whatever the source calls its columns, and each recording once (K2D, before stage 1)."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from k2d_hf.audio.selection import MEAN, USUAL, Selection, selection_of
from k2d_hf.errors import K2DError
from k2d_hf.files.paths import joined
from k2d_hf.files.storage import is_address
from k2d_hf.formatting import quote, short_name

logger = logging.getLogger(__name__)

PATH_COLUMNS = ("audio", "path", "file", "audio_path", "audio_filepath", "recording", "file_name", "wav")
REFERENCE_COLUMNS = ("reference", "text", "sentence", "transcription")  # else the texts of `segments`, joined
# Likewise where they hold text; elsewhere they are taken for something else.
MORE_REFERENCE_COLUMNS = ("transcript", "normalized_text", "raw_text", "raw_transcription", "normalized_transcript")
LANGUAGE_COLUMN = "language"
MORE_LANGUAGE_COLUMNS = ("locale", "lang")  # of Common Voice, of NeMo
OFFSET_COLUMN, DURATION_COLUMN = "offset", "duration"  # s, of a manifest of NeMo; a duration alone is the file's
SPAN_COLUMNS = ("start", "duration")  # s, of recordings as they are loaded, and of chunks
SELECTION_COLUMNS = ("audio_track", "audio_channel")  # likewise; a column `channel` often has the name of one
SUBTITLES_COLUMN, SUBTITLE_ENDINGS = "subtitles", (".srt", ".vtt")  # of a path to a track
_LIKE_A_REFERENCE = ("text", "transcri", "sentence", "reference", "utterance", "caption", "spoken", "script", "文")


class ColumnNames(NamedTuple):
    """The columns that the user names, where a source does not call them as usual."""

    audio: str | None = None
    reference: str | None = None
    group: str | None = None  # what a recording belongs to
    texts: bool = False  # whether rows keep their segments and the path of their subtitles


@dataclass(frozen=True)
class Columns:
    """The columns of a source, and their roles."""

    present: tuple[str, ...]
    audio: str
    reference: str | None  # where the user names it
    group: str | None
    start: str | None  # s, where the rows may be spans of files
    texts: bool = False  # whether rows keep their segments and the path of their subtitles

    @property
    def used(self) -> set[str]:
        """All that a row can be made from."""
        usual = {*REFERENCE_COLUMNS, *MORE_REFERENCE_COLUMNS, LANGUAGE_COLUMN, *MORE_LANGUAGE_COLUMNS, "segments"}
        usual |= {SUBTITLES_COLUMN} if self.texts else set()
        chosen = {self.audio, self.reference, self.group, self.start, DURATION_COLUMN, *SELECTION_COLUMNS}
        return {name for name in usual | chosen if name in self.present}


class Row(NamedTuple):
    """A recording: its path or address, transcript and language, and for messages the line or row it came from."""

    recording: str
    reference: str | None
    language: str | None
    where: str
    group: str | None = None  # what it belongs to, with `group_by`
    start: float | None = None  # s, of the span of the file that it is; None where the source has no spans
    duration: float | None = None  # s, likewise; None is up to the end
    columns: tuple[str, ...] = ()  # of its source
    audio_track: int | None = None  # as in `Selection`; None is the usual one of both
    audio_channel: str | None = None
    segments: list[Any] | None = None  # its transcript with times, where texts are wanted
    subtitles: str | None = None  # path or address of its track, likewise


def columns_of(present: Iterable[str], name: str, wanted: ColumnNames) -> Columns:
    """The roles of the columns of the source `name`; K2DError if it has none with audio, or not one that is wanted."""
    present = tuple(present)
    audio = audio_column(present, name, wanted.audio)
    if wanted.reference is not None and wanted.reference not in present:
        found = ", ".join(map(short_name, present[:20]))
        raise K2DError(f"{name}: no column {short_name(wanted.reference)}; it has {found}; set reference_column to one")
    start = OFFSET_COLUMN if OFFSET_COLUMN in present and audio != OFFSET_COLUMN else None
    if start is None and audio == "recording" and set(SPAN_COLUMNS) <= set(present):
        start = SPAN_COLUMNS[0]
    return Columns(present, audio, wanted.reference, wanted.group, start, wanted.texts)


def row_of(recording: str, values: Mapping[str, Any], where: str, columns: Columns, base: str = "") -> Row:
    """The row of a recording, with transcript, language, span and group from the columns that the source has.

    Paths of subtitles are from the folder or address `base`.

    K2DError if one of them is no text, the span no number, or the row has nothing in the column `group`.
    """
    reference = _reference(values, where, columns.reference)
    language = values.get(LANGUAGE_COLUMN)
    if language is None:
        language = next((values[name] for name in MORE_LANGUAGE_COLUMNS if isinstance(values.get(name), str)), None)
    for name, value in (("transcript", reference), (LANGUAGE_COLUMN, language)):
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: the {name} is {quote(value)}; give a string or null")
        if value is not None and value != _storable(value):
            raise K2DError(f"{where}: the {name} is not UTF-8 ({quote(_storable(value))}); save it as UTF-8")
    row = file_row(recording, where, columns.group, values)
    start, duration = (None, None) if columns.start is None else span_in(values, where, columns.start)
    row = row._replace(reference=reference, language=language, start=start, duration=duration, columns=columns.present)
    try:
        selection = selection_in(values)
    except K2DError as error:
        raise K2DError(f"{where}: {error}") from None
    channel = None if values.get(SELECTION_COLUMNS[1]) is None else selection.channel
    row = row._replace(audio_track=selection.track, audio_channel=channel)
    return _with_texts(row, values, columns, base) if columns.texts else row


def selected(row: Row, selection: Selection) -> Row:
    """The row with the track and channel of a selection where it names none of its own."""
    track = selection.track if row.audio_track is None else row.audio_track
    named = None if selection.channel == MEAN else selection.channel
    return row._replace(audio_track=track, audio_channel=row.audio_channel or named)


def _with_texts(row: Row, values: Mapping[str, Any], columns: Columns, base: str) -> Row:
    """The row with its segments, or with the path of its subtitles, which may stand where transcripts do."""
    named = None if columns.reference is None else values.get(columns.reference)
    segments = named if isinstance(named, list) else None if columns.reference else values.get("segments")
    if segments:
        return row._replace(segments=segments)
    track = None if columns.reference else values.get(SUBTITLES_COLUMN)
    if track is None and (row.reference or "").lower().endswith(SUBTITLE_ENDINGS):
        track = row.reference
    if not track:
        return row
    if not isinstance(track, str):
        raise K2DError(f"{row.where}: column `{SUBTITLES_COLUMN}` is {quote(track)}; give the path of a .srt or .vtt")
    return row._replace(reference=None, subtitles=absolute(track, base))


def file_row(recording: str, where: str, group_by: str | None, values: Mapping[str, Any] | None = None) -> Row:
    """The row of a recording of which only its group is known; K2DError if the column `group_by` is empty."""
    group = None if group_by is None else (values or {}).get(group_by)
    if group_by is not None and group is None:
        raise K2DError(f"{where}: nothing in column {short_name(group_by)}; give what the recording belongs to")
    return Row(_storable(recording), None, None, where, None if group is None else _storable(str(group)))


def _reference(values: Mapping[str, Any], where: str, column: str | None) -> Any:
    """The transcript of a row, from the column that the user names or the usual ones; anything where it is no text."""
    segments = values.get("segments")
    if column is not None:
        if not isinstance(values.get(column), list):
            return values.get(column)
        segments = values[column]
    else:
        found = [values[name] for name in REFERENCE_COLUMNS if values.get(name) is not None]
        found += [values[name] for name in MORE_REFERENCE_COLUMNS if isinstance(values.get(name), str)]
        if found:
            return found[0]
    if not segments:
        return None
    try:
        return " ".join(segment["text"].strip() for segment in segments)
    except (TypeError, KeyError, AttributeError) as error:
        name = short_name(column or "segments")
        raise K2DError(f"{where}: `{name}` is not a list of objects with a `text`; correct or drop it") from error


def span_in(values: Mapping[str, Any], where: str, column: str) -> tuple[float, float | None]:
    """Start and duration of a row in seconds: (0, None) is the whole file; K2DError if one is no finite number."""
    filled = {name: value for name, value in values.items() if not isinstance(value, str) or value.strip()}
    start, duration = (_seconds(filled.get(name)) for name in (column, DURATION_COLUMN))
    if filled.get(column) is None or (start is None and column != OFFSET_COLUMN):  # `start` may be a time of day
        return 0.0, None
    for name, value in ((column, start), (DURATION_COLUMN, duration)):
        if filled.get(name) is not None and value is None:
            raise K2DError(f"{where}: {name} is {quote(filled[name])}; give seconds, or leave it out")
    assert start is not None
    return start, duration


def _seconds(value: Any) -> float | None:
    """A finite number, or text of one; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def span_of(row: Mapping[str, Any]) -> tuple[float, float | None]:
    """Start and duration in seconds of the recording that a row names: (0, None) where it is the whole file."""
    start = row.get(SPAN_COLUMNS[0])
    return (0.0, None) if start is None else (start, row.get(SPAN_COLUMNS[1]))


def selection_in(row: Mapping[str, Any]) -> Selection:
    """The track and the channel that a row names; K2DError if it names none that there can be."""
    track, channel = (row.get(name) for name in SELECTION_COLUMNS)
    return USUAL if track is None and channel is None else selection_of(track, channel)


def part_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that name a part of its file: span, track and channel; none where it is all, as usual."""
    chosen = {name: row[name] for name in SELECTION_COLUMNS if row.get(name) is not None}
    return {**span_fields(*span_of(row)), **chosen}


def span_fields(start: float, duration: float | None) -> dict[str, float | None]:
    """The columns of a recording's span in a list of recordings: none where it is the whole file."""
    return {} if (start, duration) == (0.0, None) else dict(zip(SPAN_COLUMNS, (start, duration), strict=True))


def reference_like(row: Row) -> list[str]:
    """Columns of a source without a usual one for transcripts that may hold some all the same."""
    usual = {*REFERENCE_COLUMNS, *MORE_REFERENCE_COLUMNS, "segments"}
    if usual & set(row.columns):
        return []
    return [name for name in row.columns if any(part in name.lower() for part in _LIKE_A_REFERENCE)]


def _storable(text: str) -> str:
    """Text as a data set can hold it: a file name that is no UTF-8 with escapes, so that no file is found by it."""
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
    """The column with the audio of the source `name`; K2DError if it has none of the usual names, or not the wanted."""
    columns = list(columns)
    accepted = PATH_COLUMNS if wanted is None else (wanted,)
    for column in accepted:
        if column in columns:
            return column
    found, names = ", ".join(map(short_name, columns[:20])), ", ".join(map(short_name, accepted))
    raise K2DError(f"{name}: no column with audio; it has {found}; rename one to, or set audio_column: {names}")


def unique(rows: Iterable[Row]) -> Iterator[Row]:
    """Each recording once, and a warning at the end of how many came again; holds 100 to 150 bytes of each.

    K2DError if one comes again with another transcript.
    """
    transcripts: dict[bytes, int | None] = {}  # hashes, by those of the recordings
    repeated = 0
    for row in rows:
        span = span_fields(row.start or 0.0, row.duration)
        name = f"{row.recording}\0{row.group}" + (f"\0{row.start}\0{row.duration}" if span else "")
        name += selection_in(row._asdict()).key
        recording = hashlib.blake2b(name.encode(), digest_size=16).digest()
        transcript = None if row.reference is None else hash(row.reference)
        if recording not in transcripts:
            transcripts[recording] = transcript
            yield row
            continue
        repeated += 1
        if transcripts[recording] != transcript:
            raise K2DError(
                f"{row.where}: {short_name(row.recording, 400)} came before with another transcript; give each file "
                "once, with its complete transcript, or spans of it by `offset` and `duration`"
            )
    if repeated:
        logger.warning("%d rows name a recording that came before; each is kept once", repeated)
