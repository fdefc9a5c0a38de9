"""The manifest reader: any bytes under a manifest's name give recordings, or one line that names the file."""

import csv
import functools
import io
import json
import os
from unittest import mock

from hypothesis import strategies as st

from k2d_hf.data.recordings import load_recordings

from .mutations import TEXTS, VALUES, mutated_bytes, mutated_tree, one_of_these
from .targets import bounded, fuzz, outcome, workspace

COLUMNS = ("audio", "path", "file_name", "text", "reference", "sentence", "segments", "language", "duration")
ROWS = (
    {"audio": "a.wav", "text": "你好 world", "language": "zh", "duration": 12.5},
    {"audio": "b/c.flac", "segments": [{"start": 0, "end": 1.5, "text": " 今天"}, {"start": 2, "end": 3, "text": "ok"}]},
    {"path": "/x/d.mp3", "reference": None},
    {"audio": "s3://bucket/e.ogg", "sentence": "say \"hi\", you"},
    {"audio": None},
)  # fmt: skip
PIECES = (
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\0",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b'"',
        b",",
        b"\t",
        b"{}",
        b"[" * 3000,
        b'{"a":' * 3000,
    ),
    *(
        b'{"audio": "\\ud800"}\n',
        b'{"audio": 1e999}\n',
        b"NaN",
        b"null",
        b"audio,text\n",
        b'"' + b"x" * 140_000,
        b"9" * 5000,
    ),
    *(b'"audio":', b"audio", b"~\0", b"\\u0000", b"\xe4\xbd", b"//", b"~root/"),
)
SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".JSONL", ".Csv")
# What takes most of the time of a small manifest, and is never asked for.
FINGERPRINT = mock.patch("datasets.arrow_dataset.generate_fingerprint", return_value="none")


def as_json(rows: list) -> bytes:
    lines = []
    for row in rows:
        try:
            lines.append(json.dumps(row))
        except ValueError:  # a whole number of more digits than Python writes
            lines.append("9" * 5000)
    return "\n".join(lines).encode()


def as_table(rows: list) -> bytes:
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, extrasaction="ignore")
    table.writeheader()
    table.writerows(row for row in rows if isinstance(row, dict))
    return written.getvalue().encode()


@functools.cache
def prepared() -> None:
    """Pay for imports before anything is timed."""
    path = workspace() / "first.jsonl"
    path.write_bytes(as_json(list(ROWS[:1])))
    load_recordings(path)


VALID = st.one_of(
    mutated_tree(list(ROWS), values=VALUES).filter(lambda rows: isinstance(rows, list)).map(as_json),
    st.permutations(ROWS).map(as_json),
    st.lists(st.sampled_from(ROWS), max_size=6).map(as_table),
)


@fuzz(
    examples=500,
    content=st.one_of(mutated_bytes(VALID, pieces=PIECES), st.binary(max_size=200), st.lists(one_of_these(PIECES)).map(b"".join)),
    suffix=st.sampled_from(SUFFIXES),
    audio_column=st.one_of(st.none(), st.none(), st.sampled_from(COLUMNS), TEXTS),
)  # fmt: skip
def test_any_bytes_are_recordings_or_one_line(content, suffix, audio_column):
    prepared()
    path = workspace() / f"manifest{suffix}"
    path.write_bytes(content)
    with FINGERPRINT, bounded(megabytes=64):
        found = outcome(load_recordings, path, audio_column=audio_column, names=str(path))
    if found is None:
        return
    rows = found[:]
    assert found.column_names == ["recording", "reference", "language"]
    assert 0 < len(found) <= content.count(b"\n") + content.count(b"\r") + 1
    assert len(set(rows["recording"])) == len(found)
    for name in rows["recording"]:
        # One that no file can have stays as it is: labelling skips it with its reason.
        assert os.path.isabs(name) or "://" in name or "no path given" in name or "\0" in name
    for column in ("reference", "language"):
        assert all(value is None or isinstance(value, str) for value in rows[column])


PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PATHS = PLAIN.filter(lambda text: text.strip() and "://" not in text and not text.startswith("~")).map("x".__add__)
CELLS = st.none() | PLAIN.filter(bool)


@fuzz(
    examples=200,
    rows=st.lists(st.tuples(PATHS, CELLS, CELLS), min_size=1, max_size=8, unique_by=lambda row: os.path.normpath(row[0])),
    suffix=st.sampled_from(SUFFIXES),
)  # fmt: skip
def test_what_was_written_is_what_is_read(rows, suffix):
    path = workspace() / f"written{suffix}"
    if suffix.lower() in (".csv", ".tsv"):
        with open(path, "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="," if suffix.lower() == ".csv" else "\t")
            table.writerow(["audio", "text", "language"])
            table.writerows(rows)
    else:
        lines = [json.dumps(dict(zip(("audio", "text", "language"), row, strict=True))) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")
    with FINGERPRINT:
        found = load_recordings(path)[:]
    expected = [(os.path.abspath(os.path.join(workspace(), name)), text, language) for name, text, language in rows]
    assert list(zip(*found.values(), strict=True)) == expected
