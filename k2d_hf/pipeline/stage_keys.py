"""What each stage of a run depends on, and so whether it is up to date.

A key is made of whole settings, less those that are declared to have no effect (`files.settings.deciding`), of the
content of files and weights, and of which run of the stages before was read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.distillation.settings import deciding_targets, deciding_training
from k2d_hf.evaluation.ways import FASTER_WHISPER, PIPELINE
from k2d_hf.files.resuming import StageRecord, files_key, key_of
from k2d_hf.files.settings import deciding
from k2d_hf.files.storage import file_key
from k2d_hf.models import Checkpoint
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.pipeline import stages
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.stages.files import work_settings
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset


class KnownRun:
    """A recipe, where its results go, and what is known of its models and data.

    Args:
        recipe: what to do.
        directory: of the results.
        planned: the stages that the recipe has.
    """

    teacher: Checkpoint
    auxiliary: Checkpoint
    recordings: Dataset
    evaluation: Dataset | None

    def __init__(self, recipe: Recipe, directory: Path, planned: list[str]) -> None:
        self.recipe = recipe
        self.directory = directory
        self.planned = planned
        self.record = StageRecord(directory / "stages.json")
        self.resume = directory / "resume"

    def key(self, name: str) -> str:
        """The key of a stage, which changes with whatever its result depends on."""
        return key_of(__version__, name, self.depends(name))

    def line(self, name: str) -> str | None:
        """The result of a stage that is done and has not changed; None where there is something to do."""
        line = self.record.line_of(name, self.key(name))
        return line if self.output(name).exists() else None

    def output(self, name: str) -> Path:
        """What a stage writes; without it the stage is not done."""
        outputs = {
            "label": "chunks",
            "validate": "validated",
            "student": "student-before",
            "targets": "targets",
            "distil": "student/model.safetensors",
            "evaluate": "evaluation.json",
            "card": "student/README.md",
            "push": "push.json",
        }
        return self.directory / outputs[name]

    def depends(self, name: str) -> list[Any]:
        """What the result of a stage depends on: settings, inputs, and the last run of the stages that it reads."""
        recipe, ran = self.recipe, self.record.run_of
        if name == "label":
            heard = [list(self.recordings.remove_columns("reference")), files_key(self.recordings["recording"])]
            return [work_settings(recipe.label), recipe.language, _weights(self.teacher.path), heard]
        if name == "validate":
            return [work_settings(recipe.validate), recipe.language, _weights(self.auxiliary.path), ran("label")]
        if name == "student":
            return [deciding(recipe.student), recipe.language, _weights(self.teacher.path)]
        if name in ("targets", "distil"):
            helps = recipe.distil.get("auxiliary_weight")
            auxiliary = _weights(self.auxiliary.path) if helps else None
            if name == "distil":
                before = [_weights(self.output("student")), ran("student")]
                settings = [deciding_training(recipe.distil), recipe.language]
                return [*settings, auxiliary, before, ran("validate"), ran("targets")]
            encoder = [_weights(self.teacher.path), recipe.student.encoder_layers]
            wanted = [deciding(recipe.targets), deciding_targets(recipe.distil), self.wants_targets()]
            return [wanted, recipe.language, encoder, auxiliary, ran("validate")]  # any student of this teacher
        if name == "evaluate":
            assert self.evaluation is not None
            rows = [list(self.evaluation), files_key(self.evaluation["recording"])]
            models = [_weights(self.teacher.path), *map(_weights, (self.output("student"), self.directory / "student"))]
            return [deciding(recipe.evaluate), self.ways(), recipe.language, rows, models, ran("distil")]
        if name == "push":
            return [deciding(recipe.hub), ran("validate"), ran("distil"), ran("card")]
        if name == "report":
            said = None if recipe.references is None else file_key(recipe.references)
            return [deciding(recipe.report), said, [ran(stage) for stage in self.planned]]
        before = [ran(stage) for stage in self.planned if stage not in ("card", "push")]
        told = {**deciding(recipe), "distil": deciding_training(recipe.distil)}
        return [told, self.teacher.name, self.auxiliary.name, before]

    def ways(self) -> list[str]:
        """The ways of use that the student's card will show, each measured with the evaluation."""
        return [PIPELINE, FASTER_WHISPER] if self.recipe.hub.adds_ctranslate2 else [PIPELINE]

    def wants_targets(self) -> bool:
        """Whether the recipe, or else the number of epochs, asks for soft targets."""
        if self.recipe.targets.enabled is not None:
            return self.recipe.targets.enabled
        return stages.worth_targets(self.directory / "validated", self.recipe.distil, resume=self.resume) is None


def _weights(folder: Path) -> str | None:
    """Identity of a checkpoint by its content; None where there is none yet, or none any more."""
    return checkpoint_fingerprint(folder) if any(folder.glob("*.safetensors")) else None
