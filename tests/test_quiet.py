"""What `--quiet` leaves, and what a terminal shows while there is nothing to count."""

import io
import logging
import sys

import pytest

from k2d_hf.cli import _parser
from k2d_hf.terminal.console import Console


def test_every_command_can_be_quiet():
    (commands,) = (action for action in _parser()._actions if action.dest == "command")
    assert all("--quiet" in parser._option_string_actions for parser in commands.choices.values())


def test_quiet_leaves_warnings_and_the_log(tmp_path, capsys):
    console = Console(tmp_path / "log.txt", quiet=True)
    with console.warnings():
        console.progress("label").finish("16.4 min -> 36 chunks")
        logging.getLogger("k2d_hf.anything").warning("skipped 3")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "k2d: skipped 3\n")
    assert "16.4 min -> 36 chunks" in console.log.read_text(encoding="utf-8")


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("quiet", "shown"), [(False, True), (True, False)])
def test_a_terminal_shows_what_is_at_work_before_it_can_be_counted(monkeypatch, quiet, shown):
    monkeypatch.setattr(sys, "stderr", _Terminal())
    stage = Console(stream=io.StringIO(), quiet=quiet).progress("student")
    assert ("student   ..." in sys.stderr.getvalue()) is shown
    stage.start(12, "chunks")
    stage.advance(3)
    assert ("/12 chunks" in sys.stderr.getvalue()) is shown
    stage.finish("done")
