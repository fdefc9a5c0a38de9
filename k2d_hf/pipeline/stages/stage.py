"""What a stage of the method is: one object that says what it reads, what it writes, how it runs and how long it takes.

`k2d run`, its command, `--from`, `--dry-run` and the report are all derived from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from k2d_hf.files.resuming import key_of
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.version import __version__


class Stage(ABC):
    """A stage; most are a command, too."""

    name: ClassVar[str]  # of its command, too
    output: ClassVar[str]  # what it writes, in the folder of a run; without it the stage is not done
    grows_with_speech: ClassVar[bool] = False  # its time; a plan without recordings supposes an amount of speech
    runs_model: ClassVar[bool] = False  # its settings say where, with `device` and `dtype`
    of_stage_alone: ClassVar[tuple[str, ...]] = ()  # files and folders that go once the recipe has the stage no more

    def reason_absent(self, recipe: Recipe) -> str | None:
        """What a recipe would need for this stage to be run; None where it has it."""
        return None

    def lacks(self, recipe: Recipe) -> list[str]:
        """What this machine lacks for the settings of the stage, a line each; K2DError for what no machine can do."""
        return lacks_of(getattr(recipe, self.name), f"{self.name}.") if self.runs_model else []

    def check(self, run: RunState) -> None:  # noqa: B027, most stages need no check
        """Raise K2DError for what would stop the stage hours later; asked before the first stage of a run begins."""

    @abstractmethod
    def depends(self, run: RunState) -> list[Any]:
        """What the result depends on: settings, inputs, and the last run of the stages whose output it reads."""

    def key(self, run: RunState) -> str:
        """Changes with whatever the result depends on."""
        return key_of(__version__, self.name, self.depends(run))

    def line(self, run: RunState) -> str | None:
        """The line of result if the stage is done and nothing has changed; None where there is something to do."""
        line = run.record.line_of(self.name, self.key(run))
        return line if (run.folder / self.output).exists() else None

    @abstractmethod
    def run(self, run: RunState, job: Job) -> str:
        """Do the stage; returns its line of result."""

    def settle(self, run: RunState) -> None:  # noqa: B027, most stages leave nothing
        """What is left to do once the stage is noted as done, or was found up to date."""

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """How long the stage takes; None where that is no time to speak of, or cannot be estimated."""
        return None

    def noted_seconds(self, folder: Path) -> float | None:
        """How long the stage took by its own files, for records of runs that do not have it."""
        return None

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """What went into the stage and what came out of it, for the report."""
        return "", ""
