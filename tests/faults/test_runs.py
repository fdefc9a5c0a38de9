"""Two runs in one folder at once, and a run that is over while its model still computes."""

import re

import pytest

from faults.sounds import write_recordings
from faults.stages import result_in

pytestmark = pytest.mark.slow


def test_the_second_run_stops_at_the_lock_and_the_first_is_undisturbed(stages, tmp_path):
    name = "label transformers"
    command, (_, expected) = stages.command(name), stages.undisturbed(name)
    first = stages.k2d.start(tmp_path, *command)
    while not (tmp_path / ".out.lock.json").exists():
        assert first.alive()
    second = stages.k2d.run(tmp_path, *command)
    done = first.ended()
    (line,) = second.lines
    assert second.status == 1
    assert re.fullmatch(
        rf"k2d: out is in use by process {first.process} \(started \d\d:\d\d on host \S+\); "
        "wait for it or choose another --output",
        line,
    )
    assert done.status == 0, done.said
    assert result_in(tmp_path) == expected


def test_a_run_in_which_nothing_comes_in_time_ends_with_a_line_and_does_not_wait(stages, tmp_path):
    recordings = write_recordings(tmp_path / "recordings", [29])
    slowly = ["--engine", "transformers", "--beam-size", 400, "--time-limit", 1, "--language", "zh", "--output", "out"]
    ended = stages.k2d.run(tmp_path, "label", recordings, "--teacher", stages.folder / "teacher", *slowly)
    assert ended.status == 1
    assert "no result within 1 s" in ended.lines[-1]
    assert result_in(tmp_path) is None
