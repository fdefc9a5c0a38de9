"""kill -9 at random moments, again and again: in the end each stage has what an undisturbed run has."""

import os
import random

import pytest

from faults.command_line import CommandLine
from faults.stages import OF_A_SHARD, finished_shards, left_over, result_in

pytestmark = pytest.mark.slow

# kill -9 comes twice or thrice in a trial; `make test-faults` has more of them
TRIALS = int(os.environ.get("K2D_FAULT_TRIALS", "1"))
FEW = ["label transformers", "label faster-whisper", "validate transformers", "targets", "distil"]
STAGES = FEW if TRIALS == 1 else [*FEW, "validate faster-whisper"]
READ_AHEAD = 2 * OF_A_SHARD  # recordings that are opened before their turn has come


class Trial:
    """One stage in a folder of its own, killed now and then, with what must hold after each kill."""

    def __init__(self, stages, name, place, **environment):
        self.k2d: CommandLine = stages.k2d
        self.command, self.place, self.environment = stages.command(name), place, environment
        self.whole, self.expected = stages.undisturbed(name)
        self.kills, self.shards = 0, {}

    def kill_in_time(self, share):
        """Kill after that share of the time that the stage takes."""
        self._note(self._killed(self._start(), after=share * self.whole.seconds))

    def kill_afresh(self, share):
        """The same with a process that is not forked."""
        running = self.k2d.start_afresh(self.place, *self.command)
        self._note(self._killed(running, after=self.k2d.import_seconds + share * self.whole.seconds))

    def kill_at_step(self, share):
        """Kill before one of the steps that the stage takes with files, among them those of its last milliseconds."""
        step = 1 + int(share * self.whole.last_step)
        self._note(self._start(kill_at=step).ended())

    def _start(self, **options):
        return self.k2d.start(self.place, *self.command, environment=self.environment, **options)

    def _killed(self, running, *, after):
        running.kill(after=after)
        return running.ended()

    def _note(self, ended):
        """What a kill may leave: an output that is whole or none, finished shards untouched, one shard undone."""
        assert ended.status in (-9, 0) or self.done(), ended.said
        self.kills += ended.status == -9
        result, shards = result_in(self.place), finished_shards(self.place)
        assert result in (None, self.expected)
        if result is None:
            assert {path: shards.get(path) for path in self.shards} == self.shards
            assert not set(ended.finished()) & {path.name for path in self.shards}
            begun = len(ended.recordings_read()) - READ_AHEAD
            assert (len(shards) - len(self.shards) + 1) * OF_A_SHARD >= begun
        self.shards = shards

    def done(self):
        return result_in(self.place) == self.expected

    def finish(self):
        """Run to the end, or be told that it was reached, and compare."""
        was_done = self.done()
        ended = self._start().ended()
        if was_done and ended.status == 1:  # killed after its last word
            assert len(ended.lines) == 1
            assert "already there and not empty" in ended.said
        else:
            assert ended.status == 0, ended.said
            todo = set(self.whole.finished()) - {path.name for path in self.shards}
            assert sorted(ended.finished()) == sorted(todo)
            assert left_over(self.place) == []
        assert self.done()


@pytest.mark.parametrize("trial", range(TRIALS))
@pytest.mark.parametrize("name", STAGES)
def test_a_killed_stage_goes_on_to_the_same_data(stages, tmp_path, figure, name, trial):
    chance = random.Random(f"{name} {trial}")
    # every second time all models are converted anew, so that kills meet that too
    cold = {"K2D_CACHE": str(tmp_path / "cache")} if trial % 2 else {}
    (tmp_path / "here").mkdir()
    attempt = Trial(stages, name, tmp_path / "here", **cold)
    kills = [attempt.kill_in_time, attempt.kill_at_step] * 2
    if trial == 2:
        kills[0] = attempt.kill_afresh
    kills = kills[trial % 2 :][: chance.choice([2, 2, 3])]
    for number, kill in enumerate(kills):  # the first ones of all trials are spread over the whole life of the stage
        if not attempt.done():
            kill(chance.random() if number else (trial + chance.random()) / TRIALS)
    if not attempt.kills:  # each came too late
        (tmp_path / "again").mkdir()
        attempt = Trial(stages, name, tmp_path / "again", **cold)
        attempt.kill_at_step(chance.random())
    attempt.finish()
    assert attempt.kills
    figure(f"{name.split()[0]}: kills", attempt.kills)
    figure(f"{name.split()[0]}: rows compared", len(attempt.expected.rows))
