"""Manifests of recordings, JSONL or CSV, read line by line, here or far away (K2D, before stage 1)."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.labelling.recording_rows import Row, absolute, audio_column, row_of
from k2d_hf.paths import folder_of
from k2d_hf.storage import open_to_read
from k2d_hf.wording import quoted

JSON_MANIFESTS, CSV_MANIFESTS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
LONGEST_LINE = 1 << 26  # bytes
LINES_FOR_COLUMNS = 1000  # of a stream, in which the column with the audio must turn up


def manifest_rows(
    path: str, wanted: str | None, *, streaming: bool = False, group_by: str | None = None
) -> Iterator[Row]:
    """The recordings of a manifest, whose relative paths are from its own folder.

    Args:
        path: absolute path, or address.
        wanted: the column with the audio, if it has none of the usual names.
        streaming: hold no more than the lines in which columns are looked for.
        group_by: the column that says what a recording belongs to.

    Raises:
        K2DError: if it cannot be read, has no rows or no such column, or for the first line that is broken.
    """
    lines = _csv_lines(path) if path.lower().endswith(CSV_MANIFESTS) else json_lines(path)
    head = list(islice(lines, LINES_FOR_COLUMNS)) if streaming else list(lines)
    if not head:
        raise K2DError(f"manifest {path}: it has no rows; give one row a recording, with its path in column `audio`")
    column = audio_column(dict.fromkeys(name for _, line in head for name in line), f"manifest {path}", wanted)
    folder = folder_of(path)
    for number, line in chain(head, lines):
        where = f"{path}, line {number}"
        value = line.get(column)
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: column `{column}` is {quoted(value)}; give the path of an audio file")
        yield row_of(absolute(value, folder) if value else f"{where} (no path given)", line, where, group_by)


def json_lines(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and object of each line of a JSONL file that is not blank; the first that is broken is a K2DError."""
    for number, text in _text_lines(path):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise K2DError(f"{path}, line {number}: not JSON ({error}); give one JSON object a line") from error
        if not isinstance(line, dict):
            raise K2DError(f"{path}, line {number}: not a JSON object; give one a line, with the path in `audio`")
        yield number, line


def _csv_lines(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = "\t" if path.lower().endswith(".tsv") else ","
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader((text for _, text in _text_lines(path)), delimiter=delimiter, strict=True)
    try:
        for line in reader:
            yield reader.line_num, {name: cell or None for name, cell in line.items() if name}
    except csv.Error as error:
        number = reader.reader.line_num  # the line it came to; `reader` itself knows that of the last row
        raise K2DError(f"{path}, line {number}: not CSV ({error}); quote it anew, or use JSONL") from error


def _text_lines(path: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line, with its end."""
    try:
        with open_to_read(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if len(line) == LONGEST_LINE:
                    raise K2DError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes; give a row a line")
                # a name that is not UTF-8 is no reason to stop: it is told as one of which there is no file
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")
    except OSError as error:
        reason = " ".join((error.strerror or str(error) or type(error).__name__).split())
        raise K2DError(f"manifest {path}: it cannot be read ({reason}); check the path and its permissions") from error
