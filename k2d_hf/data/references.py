"""References of recordings by segment, and of the chunks cut from them, for calibration (Table 5)."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from k2d_hf.data.audio_folders import audio_rows
from k2d_hf.data.chunking import Segment, join_texts
from k2d_hf.data.manifests import json_lines
from k2d_hf.data.recording_rows import (
    MORE_REFERENCE_COLUMNS,
    REFERENCE_COLUMNS,
    SUBTITLES_COLUMN,
    ColumnNames,
    absolute,
    columns_of,
    span_in,
)
from k2d_hf.data.subtitle_files import read_subtitles, track_beside
from k2d_hf.errors import K2DError
from k2d_hf.files.paths import folder_of
from k2d_hf.files.storage import is_address, is_folder
from k2d_hf.formatting import quote, short_name
from k2d_hf.scoring.error_rates import error_rate
from k2d_hf.scoring.text import mixed_tokens


def read_references(path: str | os.PathLike[str]) -> dict[str, list[Segment]]:
    """The spoken segments of recordings, by path, from a JSONL manifest with `audio` and `segments`.

    A folder of recordings with subtitles (.srt, .vtt) beside them will do, and in a line of a manifest `subtitles`, the
    path of a track, in the place of segments. A segment is an object with `start` and `end` in seconds and `text`;
    relative paths are from the manifest's folder.
    A line with an `offset` in seconds is of a span of its file: there `segments` begin with the span, and without any
    the transcript of the line is one. Lines of spans of one file are put together, in order of time.

    Raises:
        K2DError: naming the line, where a recording has no segments, or one of them no times or no text, or where a
            recording came before with other segments.
    """
    path = os.fspath(path)
    path = path if is_address(path) else os.path.abspath(os.path.expanduser(path))
    if is_folder(path):
        return _beside_recordings(path)
    lines = list(json_lines(path))
    if not lines:
        raise K2DError(f"references {path}: it has no rows; give one a recording, with `audio` and `segments`")
    columns = columns_of(dict.fromkeys(name for _, line in lines for name in line), f"references {path}", ColumnNames())
    references: dict[str, list[Segment]] = {}
    complete: set[str] = set()
    for number, line in lines:
        where = f"{path}, line {number}"
        if not isinstance(line.get(columns.audio), str) or not line[columns.audio]:
            raise K2DError(f"{where}: no path in column `{columns.audio}`; give that of the recording")
        recording = absolute(line[columns.audio], folder_of(path))
        start, duration = (0.0, None) if columns.start is None else span_in(line, where, columns.start)
        segments = _segments(line, where, start, duration, folder_of(path))
        known = references.get(recording)
        if (start, duration) == (0.0, None):
            complete.add(recording)
        if known not in (None, segments) and recording in complete:
            name = short_name(recording, 400)
            raise K2DError(f"{where}: {name} came before with other segments; give each file once")
        merged = dict.fromkeys([*(known or ()), *segments])
        references[recording] = sorted(merged, key=lambda segment: (segment.start, segment.end)) if known else segments
    return references


def _beside_recordings(folder: str) -> dict[str, list[Segment]]:
    """The cues of the tracks beside the recordings of a folder; K2DError if there is none, or one cannot be read."""
    tracks = {row.recording: track_beside(row.recording, None) for row in audio_rows(folder)}
    found = {recording: read_subtitles(track) for recording, track in tracks.items() if track is not None}
    if not found:
        raise K2DError(f"references {folder}: no subtitles (.srt, .vtt) beside its {len(tracks)} recordings")
    return found


def _segments(line: Mapping[str, Any], where: str, start: float, duration: float | None, folder: str) -> list[Segment]:
    """The segments of a line, in seconds from the start of the file that its span is of."""
    if isinstance(track := line.get(SUBTITLES_COLUMN), str):
        end = math.inf if duration is None else start + duration
        return [cue for cue in read_subtitles(absolute(track, folder)) if start <= cue.start < end]
    segments = line.get("segments")
    if segments is not None:
        if not isinstance(segments, list):
            raise K2DError(f"{where}: `segments` is {quote(segments)}; give a list of objects with start, end and text")
        return [Segment(start + s.start, start + s.end, s.text) for s in (segment_in(one, where) for one in segments)]
    column = next((name for name in (*REFERENCE_COLUMNS, *MORE_REFERENCE_COLUMNS) if line.get(name)), None)
    if (start, duration) == (0.0, None):
        has = f"`{column}` is the transcript of the whole recording" if column else "no `segments`"
        raise K2DError(f"{where}: {has}; to know what a chunk holds, give `segments` with start, end and text each")
    if column is None or not isinstance(line[column], str) or duration is None:
        raise K2DError(f"{where}: a span from {start:g} s on; give its `duration` and `text`, or its `segments`")
    return [segment_in({"start": start, "end": start + duration, "text": line[column]}, where)]


def segment_in(value: Any, where: str) -> Segment:
    """A segment as a manifest has it; K2DError if it has no times in order, or no text."""
    fields = value if isinstance(value, Mapping) else {}
    times = [fields.get(name) for name in ("start", "end")]
    valid = all(isinstance(t, (int, float)) and not isinstance(t, bool) and math.isfinite(t) for t in times)
    if not valid or times[1] < times[0] or not isinstance(fields.get("text"), str):  # type: ignore[operator]
        raise K2DError(f"{where}: segment {quote(value)}; give start and end in seconds, in order, and a text")
    return Segment(float(times[0]), float(times[1]), fields["text"])  # type: ignore[arg-type]


def match_recordings(recordings: Iterable[str], references: Mapping[str, Any]) -> dict[str, str]:
    """For each recording that has a reference, the name that it has there.

    That is the same path; or, as data moves, a file of the same name, where neither side has two of that name.
    """
    recordings = dict.fromkeys(recordings)
    here = Counter(map(os.path.basename, recordings))
    there = Counter(map(os.path.basename, references))
    by_name = {os.path.basename(path): path for path in references}
    matched: dict[str, str] = {}
    for recording in recordings:
        name = os.path.basename(recording)
        if recording in references:
            matched[recording] = recording
        elif here[name] == there[name] == 1:
            matched[recording] = by_name[name]
    return matched


def references_of(path: str | os.PathLike[str], recordings: Iterable[str]) -> dict[str, list[Segment]]:
    """The spoken segments of those of the recordings, each a path, that are in the manifest `path`.

    Raises:
        K2DError: as `read_references` does, and if the manifest has none of them.
    """
    references = read_references(path)
    recordings = list(dict.fromkeys(recordings))
    matched = match_recordings(recordings, references)
    if not matched:
        raise K2DError(
            f"references {path}: none of its {len(references)} recordings, such as {next(iter(references))}, is among "
            f"the {len(recordings)} here, such as {next(iter(recordings), 'none')}"
        )
    return {here: references[there] for here, there in matched.items()}


def chunk_reference(segments: Sequence[Segment], start: float, duration: float) -> str:
    """The reference of a chunk: the text of the segments of which more than half lies in its span."""
    end = start + duration
    return join_texts(
        segment.text for segment in segments if min(segment.end, end) - max(segment.start, start) > segment.duration / 2
    )


def label_error_rate(reference: str, label: str) -> float:
    """True MER of a label; 1 for a label with text against an empty reference."""
    return error_rate(mixed_tokens(reference), mixed_tokens(label))
