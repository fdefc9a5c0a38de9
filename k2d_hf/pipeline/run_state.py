"""What a run knows while its stages go by: its recipe, models, data and folder, and what keys are made of.

A key is made of whole settings, less those that are declared to have no effect (`files.settings.deciding`), of the
content of files and weights, and of which run of the stages before was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.files.resuming import StageRecord, key_of
from k2d_hf.files.settings import deciding
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.terminal.console import Console, ProgressLine
from k2d_hf.transcription.engines import check_engine, each_workers_engine
from k2d_hf.validation.settings import ValidateSettings
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.data.labelled import LabelledReport
    from k2d_hf.evaluation.sets import EvaluationSet


@dataclass(frozen=True)
class Job:
    """What a stage does its work with, in a run and as a command alike."""

    progress: ProgressLine
    output: Any  # the path of what it writes; of some commands an address
    resume: Any = None  # likewise of what is done so far, for a run that is interrupted; None where nothing is kept
    language: str | None = None  # of all recordings; None where each model detects it


class RunState:
    """A run: what is on disk, and what is known of it.

    Args:
        recipe: what to do.
        planned: names of the stages that the recipe has.
        console: where progress is shown.
    """

    teacher: Checkpoint  # it and the following are set once the run has found them
    auxiliary: Checkpoint
    original: Checkpoint  # what the teacher was adapted from; the teacher itself, if nothing else is named
    origin: Checkpoint  # what the student is made of: the teacher, or the model of `student.init`
    recordings: Dataset  # to learn from
    evaluation: dict[str, EvaluationSet]  # to measure on, by name

    def __init__(self, recipe: Recipe, planned: list[str], console: Console) -> None:
        self.recipe = recipe
        self.more_auxiliaries: list[Checkpoint] = []
        self.labelled: dict[str, tuple[Dataset, LabelledReport]] = {}  # chunks whose text is known, by source
        self.planned = planned
        self.console = console
        self.folder = recipe.directory
        self.record = StageRecord(self.folder / "stages.json")
        self.resume = self.folder / "resume"

    @property
    def auxiliaries(self) -> list[Checkpoint]:
        """All of them."""
        return [self.auxiliary, *self.more_auxiliaries]

    def ran(self, *stages: str) -> list[str | None]:
        """Which runs of these stages a result was read from."""
        return [self.record.run_of(stage) for stage in stages]


def weights_of(folder: Path) -> str | None:
    """Identity of a checkpoint by its content; None where there is none yet, or none any more."""
    return checkpoint_fingerprint(folder) if any(folder.glob("*.safetensors")) else None


def work_settings(settings: LabelSettings | ValidateSettings) -> dict[str, Any]:
    """The settings that the rows of a stage depend on; where the engine is spread is not among them."""
    return {**deciding(settings), "engine": each_workers_engine(settings.engine)}


def shards_of_stage(
    resume: str | Path, stage: str, model: Checkpoint, settings: LabelSettings | ValidateSettings, language: str | None
) -> str:
    """The folder of finished shards for this model and these settings; those of others stay beside it."""
    decides = {**deciding(settings, models=True), "engine": check_engine(settings.engine)}
    key = key_of(__version__, checkpoint_fingerprint(model.path), decides, language)
    return f"{resume}/{stage}-{key}"
