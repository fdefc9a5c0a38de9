"""How a stage goes where no terminal shows a bar: a line every half minute, by a clock of the test's own."""

import io
import sys

import pytest

from k2d_hf.terminal.console import Console
from k2d_hf.terminal.status_lines import EVERY, POLL_INTERVAL, StatusLines


class Clock:
    """The time that the test has set."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown():
    return []


@pytest.fixture
def lines(clock, shown):
    return StatusLines("[1/6] label    ", shown.append, clock=clock)


def test_a_line_has_count_speed_and_time_left(lines, clock, shown):
    lines.begin(120, "recordings")
    clock.now += 29.9
    lines.count(11)
    assert shown == []
    clock.now += 0.1
    lines.count(1, "4 workers")
    assert shown == ["[1/6] label: 12/120 recordings, 24.0 a minute, 04:30 left, 4 workers"]
    lines.count(50)  # in the same moment
    assert len(shown) == 1


@pytest.mark.parametrize(
    ("total", "steps", "line"),
    [
        (None, [60], "60 chunks, 2.0 a second, 00:30 so far"),  # a stream
        (100, [100], "100/100 chunks, 00:30 so far"),  # what is done now is not counted
        (100, [120], "120/100 chunks, 00:30 so far"),  # more than was told
        (100, [0], "0/100 chunks, 00:30 so far"),
        (100, [0] * 119 + [1], "1/100 chunks, 1.0 an hour, 98:10:30 left"),
        (1000, [10] * 20 + [1] * 20, "220/1000 chunks, 2.0 a minute, 6:30:00 left"),  # slower of late
        # what an earlier run had done comes in at once
        (1000, [500, 1], "501/1000 chunks, 2.0 a minute, 4:09:30 left"),
    ],
)
def test_speed_is_what_it_was_lately(lines, clock, shown, total, steps, line):
    lines.begin(total, "chunks")
    for count in steps:
        clock.now += EVERY
        lines.count(count)
    assert shown[-1].removeprefix("[1/6] label: ") == line
    assert len(shown) == len(steps)


def test_there_are_lines_while_nothing_is_counted(lines, clock, shown):
    """While a model loads, one long recording is transcribed, or a stage has nothing to count at all."""
    waits = []

    def wait(seconds):
        waits.append(seconds)
        clock.now += seconds
        return len(waits) > 60 / POLL_INTERVAL  # then the stage ends

    lines._watch(wait)
    assert shown == ["[1/6] label: at work for 00:30", "[1/6] label: at work for 01:00"]


def test_a_stage_that_ends_ends_its_watch(lines):
    lines.stop()
    lines._watch(lines._stopped.wait)  # returns at once


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "quiet", "on_screen"),
    [(io.StringIO, False, True), (Terminal, False, False), (io.StringIO, True, False)],
)
def test_lines_go_to_the_log_and_where_there_is_no_bar(tmp_path, monkeypatch, clock, stream, quiet, on_screen):
    monkeypatch.setattr(sys, "stderr", stream())
    console = Console(tmp_path / "log.txt", io.StringIO(), quiet=quiet, clock=clock)
    stage = console.progress("validate", position="[2/6]")
    stage.start(36, "chunks")
    clock.now += EVERY
    stage.advance(9)
    stage.finish("kept 31")
    line = "[2/6] validate: 9/36 chunks, 18.0 a minute, 01:30 left"
    assert [text[20:] for text in console.log.read_text(encoding="utf-8").splitlines()][0] == line
    assert (f"{line}\n" == sys.stderr.getvalue()) is on_screen
    assert line not in console.stream.getvalue()  # where results are


def test_a_word_that_the_encoding_lacks_stops_no_line(tmp_path, monkeypatch, clock):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written, encoding="latin-1"))
    console = Console(tmp_path / "log.txt", io.StringIO(), clock=clock)
    stage = console.progress("evaluate")
    stage.start(6, "recordings")
    clock.now += EVERY
    stage.advance(3, "學生")
    stage.close()
    line = "evaluate: 3/6 recordings, 6.0 a minute, 00:30 left, "
    assert line.encode() in written.getvalue()
    assert f"{line}學生" in console.log.read_text(encoding="utf-8")


def test_a_log_that_cannot_be_written_stops_no_work(tmp_path, clock):
    stage = Console(tmp_path / "gone" / "log.txt", io.StringIO(), clock=clock).progress("label")
    clock.now += EVERY
    stage.advance(1)
    stage.close()
