"""Text for terminals: tables that fit 80 columns, and terminals that cannot show what is in the data."""

import contextlib
import fcntl
import io
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import replace

import pytest
from conftest import RECIPE
from hypothesis import given
from hypothesis import strategies as st
from many_scripts import TEXTS

from k2d_hf.cli import _parser, main
from k2d_hf.evaluation.table import render_table
from k2d_hf.terminal.screen import Screen, aligned, columns_of, is_mark, listed, printable, shortened, wrapped

LONG = "/home/somebody/" + "a-long-way/" * 12
TEACHER = {
    "mer": 0.2251, "zh_cer": 0.2, "en_wer": 0.305, "substitutions": 108, "deletions": 563, "insertions": 12,
    "looping_outputs": 0, "rtf": 0.1204, "parameters": 72_593_920, "measurement": {"id": "one"},
}  # fmt: skip
NARROW = Screen(80)
ENCODINGS = "latin-1", "cp1252", "ascii"
QUICK = "--engine", "transformers", "--language", "zh", "--beam-size", "1", "--condition-on-previous-text", "false"


def fits(text, width=80):
    """Whether every line fits, for the eye of whoever reads a failure."""
    return [line for line in text.splitlines() if columns_of(line) > width] == []


def test_text_is_written_as_the_encoding_allows():
    assert printable("今天 é ±", "utf-8") == "今天 é ±"
    assert printable("今天 é ±", "latin-1") == "\\u4eca\\u5929 é +/-"
    assert printable("é → ± …", "ascii") == "\\xe9 -> +/- ..."
    assert printable("caf\udce9.wav") == "caf\\udce9.wav"  # a name that is no UTF-8
    for encoding in ENCODINGS:
        printable("".join(map(chr, range(0x3000))), encoding).encode(encoding)


def test_a_table_that_fits_is_one_and_a_wide_one_continues_below():
    rows = [["", "long head, of words", "MER %"], ["teacher", "1", "2"], ["講課", "3", "4"]]
    assert aligned(rows, Screen(40)).splitlines() == [
        "         long head, of words  MER %",
        "teacher  1                    2",
        "講課     3                    4",  # two columns a character
    ]
    assert aligned(rows, Screen(24)).splitlines() == [
        "         long",
        "         head,",
        "         of     MER",
        "         words  %",
        "teacher  1      2",
        "講課     3      4",
    ]
    wide = [["", *(f"column{index}" for index in range(20))], ["teacher", *map(str, range(20))]]
    blocks = aligned(wide, NARROW).split("\n\n")
    assert len(blocks) > 1
    assert [cell for block in blocks for cell in block.splitlines()[0].split()] == wide[0][1:]
    assert all(block.splitlines()[1].startswith("teacher  ") for block in blocks)
    assert fits("\n".join(blocks))


@pytest.mark.parametrize(
    "names",
    [["teacher", "student, before", "student"], [LONG + "one", LONG + "two"], ["https://host/" + "x/" * 99] * 2],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_the_table_of_an_evaluation_fits(names, encoding):
    names = [f"{name}{' 講課' * index}" for index, name in enumerate(names)]
    table = render_table(
        {name: TEACHER | {"rtf": 0.1204 / (1 + index)} for index, name in enumerate(names)},
        replace(NARROW, encoding=encoding),
    )
    assert fits(table)
    assert table.endswith(f"{len(names)}.0x faster")
    assert "108/563/12" in table
    table.encode(encoding)


def test_names_that_differ_go_on_differing():
    names = [LONG + "one", LONG + "two", "x" * 40 + LONG, "x" * 40 + LONG + LONG, "short"]
    short = shortened(names, 24)
    assert len(set(short)) == len(names)
    assert all(columns_of(name) <= 24 for name in short)
    assert short[0].endswith("one")
    assert short[-1] == "short"


def test_texts_are_broken_between_words():
    assert wrapped("a bc " + "x" * 25 + " d", 10) == ["a bc", "x" * 10, "x" * 10, "xxxxx d"]
    assert all(columns_of(line) <= 10 for line in wrapped("今天我們要介紹 business model 的基本概念", 10))
    assert listed([("data", "some words here"), ("disk", "1 GB")], Screen(16)).splitlines() == [
        "data  some words",
        "      here",
        "disk  1 GB",
    ]


@given(TEXTS, st.integers(7, 30))
def test_no_letter_of_any_script_is_parted_from_its_marks(text, width):
    (short,) = shortened([text], width)
    assert columns_of(short) <= width
    head, dots, tail = short.partition("...")
    if dots and "..." not in text:
        assert text.startswith(head)
        assert text.endswith(tail)
        assert not is_mark(text[len(head)])
        assert not (tail and is_mark(tail[0]))
    lines = wrapped(text, width)
    assert "".join(lines).replace(" ", "") == "".join(text.split())
    assert all(columns_of(line) <= width and not (line and is_mark(line[0])) for line in lines)


# The commands


@pytest.fixture(scope="module")
def chinese(workplace, tmp_path_factory):
    """The workplace again, in folders and under names that Latin-1 does not have."""
    folder = tmp_path_factory.mktemp("講課") / "錄音"
    shutil.copytree(workplace, folder)
    (folder / "recordings" / "one.flac").rename(folder / "recordings" / "第一講.flac")
    (folder / "recordings" / "broken.wav").rename(folder / "recordings" / "壞掉.wav")
    text = RECIPE.replace("name: tiny", "name: 講課").replace("report: {enabled: false}", "report: {student: false}")
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def printed_by(command, encoding):
    """Exit status of a command, and what it prints on streams that take nothing but their encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        status = main([str(part) for part in command])
    for stream in streams:
        stream.flush()
    return status, *(stream.buffer.getvalue().decode(encoding) for stream in streams)


def test_a_stage_on_a_latin_1_terminal_shows_its_bar_and_names_in_ascii(chinese, tmp_path):
    recordings = tmp_path / "錄音"
    recordings.mkdir()
    shutil.copy(chinese / "dev.flac", recordings / "第一講.flac")
    shutil.copy(chinese / "recordings" / "壞掉.wav", recordings)
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = ["label", recordings, "--teacher", chinese / "teacher", "--output", tmp_path / "片段"]
    process = subprocess.Popen(
        [sys.executable, "-m", "k2d_hf", *map(str, command), *QUICK],
        stdin=there, stdout=there, stderr=there, env=os.environ | {"PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    os.close(there)
    shown = b""
    with contextlib.suppress(OSError):  # once nobody writes there any more
        while part := os.read(here, 1 << 16):
            shown += part
    os.close(here)
    assert process.wait(60) == 0, shown.decode("latin-1")
    assert max(shown) < 0x80
    assert b"label     ..." in shown
    assert b"2/2 recordings" in shown
    assert b"\\u7247\\u6bb5.skipped.jsonl" in shown


@pytest.fixture(scope="module")
def run(chinese):
    """The folder of a whole run, and what it printed in Latin-1."""
    less = ["--set", "targets.enabled=false", "--set", "evaluate.before=false"]
    command = ["run", chinese / "recipe.yaml", "--output", chinese / "結果", *less]
    return chinese / "結果", *printed_by(command, "latin-1")


def test_a_run_prints_what_the_encoding_has(run):
    output, status, shown, errors = run
    assert status == 0, errors
    assert shown.startswith("K2D \\u8b1b\\u8ab2: 3 recordings")
    assert "2/2 transcripts  2 models, 1 recording  MER " in shown
    assert "\\u7d50\\u679c/report.html\n" in shown
    assert "\\u58de\\u6389.wav: not audio" in (shown + errors) or "1 not audio" in errors
    assert "講課" in (output / "log.txt").read_text(encoding="utf-8")
    assert fits(shown.split("\n\n")[1])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_command_stumbles_over_what_the_terminal_cannot_show(run, chinese, encoding, tmp_path, monkeypatch):
    """What makes no model work; label, validate and so on print through the same lines as the run above."""
    output, here = run[0], tmp_path / "輸出"
    other = shutil.copytree(output, tmp_path / "另一")
    references = chinese / "說的.jsonl"
    rows = [
        {"audio": f"recordings/{name}", "segments": [{"start": 0, "end": 25, "text": "今天"}]}
        for name in ("第一講.flac", "two.flac")
    ]
    references.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    commands = [
        ["calibrate", output / "validated", "--references", references, "--output", here / "calibration"],
        ["compare", output, other],
        ["report", output, "--references", references, "--output", here / "報告.html", "--megabytes", "0"],
        ["run", "--dry-run", chinese / "recipe.yaml", "--output", output],
        ["student", chinese / "teacher", "--output", here / "學生", "--decoder-layers", "2"],
        ["export", output / "student", "--to", "ctranslate2", "--output", here / "匯出"],
        ["import-ctranslate2", here / "匯出", "--output", here / "匯入"],
        ["evaluate", chinese / "teacher", here / "學生", "--data", chinese / "dev.jsonl", "--language", "zh"],
        ["evaluate", chinese / "沒有", "--data", chinese / "dev.jsonl"],
        ["label", chinese / "沒有", "--teacher", chinese / "teacher", "--output", here / "x"],
        ["push", here / "沒有", "--repo-id", "me/x"],
    ]
    models_at_work = ("student", "export", "import-ctranslate2", "evaluate")  # which know nothing of encodings: once
    if encoding != ENCODINGS[0]:
        commands = [command for command in commands if command[0] not in models_at_work or chinese / "沒有" in command]
    for command in commands:
        wrong = "沒有" in str(command)
        status, shown, errors = printed_by(command, encoding)
        assert status == wrong, (command[0], errors)
        assert "\\u" in (errors if wrong else shown) or command[0] in ("calibrate", "student"), (command, shown, errors)
        assert "?" not in shown
        tables = [part for part in shown.split("\n\n") if "  " in part and "\n" in part.strip()]
        assert all(map(fits, tables)), (command, shown)
        assert tables or command[0] not in ("calibrate", "compare", "run")


def test_help_is_ascii():
    """So that any terminal shows it."""
    (commands,) = (action for action in _parser()._actions if action.dest == "command")
    for parser in (_parser(), *commands.choices.values()):
        parser.format_help().encode("ascii")
