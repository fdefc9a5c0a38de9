"""What a run knows while its stages go by: its recipe, models, data and folder, and which stages are up to date.

A key is made of whole settings, less those that are declared to have no effect (`files.settings.deciding`), of the
content of files and weights, and of which run of the stages before was read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from k2d_hf.files.resuming import StageRecord, key_of
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.terminal.console import Console
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset


class KnownStage(Protocol):
    """As much of a stage as says whether it is up to date."""

    name: ClassVar[str]
    output: ClassVar[str]

    def depends(self, run: RunState) -> list[Any]:
        """What its result depends on."""


class RunState:
    """A run: what is on disk, and what is known of it.

    Args:
        recipe: what to do.
        planned: names of the stages that the recipe has.
        console: where progress is shown.

    Attributes:
        teacher: as it was found; it and the following are set once the run has found them.
        auxiliary: likewise.
        origin: the model that the student is made of: the teacher, or that of `student.init`.
        recordings: to learn from.
        evaluation: to measure on; None where the recipe names none.
    """

    teacher: Checkpoint
    auxiliary: Checkpoint
    origin: Checkpoint
    recordings: Dataset
    evaluation: Dataset | None

    def __init__(self, recipe: Recipe, planned: list[str], console: Console) -> None:
        self.recipe = recipe
        self.planned = planned
        self.console = console
        self.folder = recipe.directory
        self.record = StageRecord(self.folder / "stages.json")
        self.resume = self.folder / "resume"

    def key(self, stage: KnownStage) -> str:
        """The key of a stage, which changes with whatever its result depends on."""
        return key_of(__version__, stage.name, stage.depends(self))

    def line(self, stage: KnownStage) -> str | None:
        """The result of a stage that is done and has not changed; None where there is something to do."""
        line = self.record.line_of(stage.name, self.key(stage))
        return line if (self.folder / stage.output).exists() else None

    def ran(self, *stages: str) -> list[str | None]:
        """Which runs of these stages a result was read from."""
        return [self.record.run_of(stage) for stage in stages]


def weights_of(folder: Path) -> str | None:
    """Identity of a checkpoint by its content; None where there is none yet, or none any more."""
    return checkpoint_fingerprint(folder) if any(folder.glob("*.safetensors")) else None
