"""kill -9 at random moments, again and again: in the end each stage has what an undisturbed run has."""

import os
import random

import pytest

from faults.command_line import CommandLine
from faults.stages import OF_A_SHARD, finished_shards, left_over, result_in

# kill -9 comes twice or thrice in a trial; `make test-faults` has more of them
TRIALS = int(os.environ.get("K2D_FAULT_TRIALS", "1"))
FEW = ["label transformers", "label faster-whisper", "validate transformers", "targets", "distil"]
STAGES = FEW if TRIALS == 1 else [*FEW, "validate faster-whisper"]
READ_AHEAD = 2 * OF_A_SHARD  # recordings that are opened before their turn has come
START = 5.0  # s that Python takes to import everything, where it does


class Trial:
    """One stage in a folder of its own, killed now and then, with what must hold after each kill."""

    def __init__(self, stages, name, place, chance):
        self.k2d: CommandLine = stages.k2d
        self.command, self.place, self.chance = stages.command(name), place, chance
        self.whole, self.expected = stages.undisturbed(name)
        self.kills, self.read, self.shards = 0, [], {}

    def kill_in_time(self, share):
        """Kill after that share of the time that the stage takes."""
        self._note(self._killed(self.k2d.start(self.place, *self.command), after=share * self.whole.seconds))

    def kill_afresh(self, share):
        """The same with a process that is not forked."""
        running = self.k2d.start_afresh(self.place, *self.command)
        self._note(self._killed(running, after=START + share * self.whole.seconds))

    def kill_at_step(self, share):
        """Kill before one of the steps that the stage takes with files, among them those of its last milliseconds."""
        step = 1 + int(share * self.whole.last_step)
        self._note(self.k2d.run(self.place, *self.command, kill_at=step))

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
        ended = self.k2d.run(self.place, *self.command)
        if was_done:
            assert (ended.status, len(ended.lines)) == (1, 1)
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
    trials = Trial(stages, name, tmp_path, chance)
    moments = [(trial + chance.random()) / TRIALS, chance.random(), chance.random()]
    ways = [trials.kill_in_time, trials.kill_at_step] * 2
    for share, kill in zip(moments[: 2 + (chance.random() < 0.3)], ways[trial % 2 :], strict=False):
        if not trials.done():
            kill(share)
    trials.finish()
    figure(f"{name.split()[0]}: kills", trials.kills)
    figure(f"{name.split()[0]}: rows compared", len(trials.expected.rows))
