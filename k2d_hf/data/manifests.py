"""Manifests of recordings, JSONL or CSV, read line by line, here or far away (K2D, before stage 1)."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

from k2d_hf.data.recording_rows import OFFSET_COLUMN, ColumnNames, Row, absolute, columns_of, row_of
from k2d_hf.data.tab_separated import tab_separated
from k2d_hf.errors import K2DError
from k2d_hf.files.paths import folder_of, joined
from k2d_hf.files.storage import exists, is_address, is_folder, open_to_read
from k2d_hf.formatting import os_error_reason, quote, short_name

JSON_MANIFESTS, CSV_MANIFESTS = (".jsonl", ".ndjson", ".json"), (".csv", ".tsv")
LONGEST_LINE = 1 << 26  # bytes
LINES_FOR_COLUMNS = 1000  # of a stream, one of which must have the column with the audio
CLIPS = "clips"  # the folder beside a table of Common Voice that its paths are from

Line = tuple[int, Mapping[str, Any]]


def manifest_rows(path: str, wanted: ColumnNames, *, streaming: bool = False) -> Iterator[Row]:
    """The recordings of a manifest; streaming holds no more than the lines from which the columns are read.

    Raises:
        K2DError: if it cannot be read, has no rows or no such column, or for the first line that is broken.
    """
    lines = _table_lines(path) if path.lower().endswith(CSV_MANIFESTS) else json_lines(path)
    head = list(islice(lines, LINES_FOR_COLUMNS)) if streaming else list(lines)
    if not head:
        raise K2DError(f"manifest {path}: it has no rows; give one row a recording, with its path in column `audio`")
    columns = columns_of(dict.fromkeys(name for _, line in head for name in line), f"manifest {path}", wanted)
    folder = _folder_of_audio(path, head, columns.audio)
    for number, line in chain(head, lines):
        where = f"{path}, line {number}"
        value = line.get(columns.audio)
        if value is not None and not isinstance(value, str):
            raise K2DError(f"{where}: column `{columns.audio}` is {quote(value)}; give the path of an audio file")
        if columns.start is None and line.get(OFFSET_COLUMN) is not None:
            raise K2DError(
                f"{where}: the first with `{OFFSET_COLUMN}`; put one among the first {LINES_FOR_COLUMNS} lines, or do "
                "without streaming"
            )
        yield row_of(absolute(value, folder) if value else f"{where} (no path given)", line, where, columns, folder)


def _folder_of_audio(path: str, head: list[Line], column: str) -> str:
    """The folder that relative paths are from: the manifest's own, or the clips of Common Voice beside it."""
    folder = folder_of(path)
    if column != "path" or not {"client_id", "sentence"} & set(head[0][1]):
        return folder
    given = (line.get(column) for _, line in head)
    relative = (name for name in given if name and not is_address(str(name)) and not os.path.isabs(str(name)))
    first, clips = next(relative, None), joined(folder, CLIPS)
    if first is None or exists(absolute(str(first), folder)) or not is_folder(clips):
        return folder
    return clips


def json_lines(path: str) -> Iterator[Line]:
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


def _table_lines(path: str) -> Iterator[Line]:
    """Number and cells by column of each row that is not blank; names of columns have no blanks around them."""
    rows = tab_separated(_text_lines(path)) if path.lower().endswith(".tsv") else _comma_separated(path)
    header = [name.strip("\ufeff \t") for name in next(rows, (0, []))[1]]
    for number, cells in rows:
        if any(cell.strip() for cell in cells[len(header) :]):
            raise K2DError(
                f"{path}, line {number}: {len(cells)} cells for {len(header)} columns, the one too many "
                f"{short_name(cells[len(header)])}; quote what holds the separator, or use JSONL"
            )
        cells += [""] * (len(header) - len(cells))
        yield number, {name: cell or None for name, cell in zip(header, cells, strict=False) if name}


def _comma_separated(path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader((text for _, text in _text_lines(path)), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise K2DError(f"{path}, line {reader.line_num}: not CSV ({error}); quote it anew, or use JSONL") from error


def _text_lines(path: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line, with its end."""
    try:
        with open_to_read(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
                if len(line) == LONGEST_LINE:
                    raise K2DError(f"{path}, line {number}: longer than {LONGEST_LINE:,} bytes; give a row a line")
                # a name that is not UTF-8 is no reason to stop: the recording is skipped as a missing file
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8", errors="surrogateescape")
    except OSError as error:
        raise K2DError(
            f"manifest {path}: it cannot be read ({os_error_reason(error)}); check the path and its permissions"
        ) from error
