"""What a user sees of a stage, and what the log keeps of it."""

import io
import logging
import re

import pytest

from k2d_hf.terminal.console import Console, minutes


@pytest.fixture
def console(tmp_path):
    return Console(tmp_path / "log.txt", io.StringIO())


def logged(console):
    """Lines of the log without their times."""
    lines = console.log.read_text(encoding="utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    return [line[20:] for line in lines]


def test_a_stage_ends_in_one_line(console):
    stage = console.progress("label", position="[1/6]")
    stage.start(12, "recordings")
    stage.advance(5, "slow")
    stage.advance(7)
    stage.finish("16.4 min -> 36 chunks")
    line = "[1/6] label     ################ 12/12 recordings  16.4 min -> 36 chunks"
    assert console.stream.getvalue() == line + "\n"
    assert logged(console) == [line]


def test_a_stage_that_counts_nothing_has_no_bar(console):
    console.progress("student").finish("decoder layers 0,3 of 4")
    assert console.stream.getvalue() == "student   decoder layers 0,3 of 4\n"


def test_warnings_go_to_stderr_and_everything_to_the_log(console, capsys):
    package = logging.getLogger("k2d_hf.anything")
    with console.warnings():
        package.warning("skipped %d", 3)
        package.info("left out one")
    package.warning("after")
    assert capsys.readouterr().err.startswith("k2d: skipped 3\n")
    assert console.stream.getvalue() == ""
    assert logged(console) == ["k2d: skipped 3", "left out one"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 min"), (984, "16.4 min"), (7199, "120.0 min"), (7200, "2.0 h")]
)
def test_times_are_short(seconds, shown):
    assert minutes(seconds) == shown
