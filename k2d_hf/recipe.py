"""The recipe: a YAML file read safely into dataclasses, one section a stage, the paper's values as defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from k2d_hf.errors import K2DError
from k2d_hf.labelling.transcribers import ENGINES
from k2d_hf.settings import check_names, parse_assignment, read_settings, read_value, setting
from k2d_hf.validation.distance import METRICS, NORMALISERS

TEACHER = "teacher"  # as an auxiliary: the teacher's own checkpoint, decoding each chunk from scratch


@dataclasses.dataclass(frozen=True)
class LabelSettings:
    """How the teacher transcribes."""

    engine: str = setting("auto", "Engine; auto is faster-whisper where it is installed.", choices=ENGINES)
    beam_size: int = setting(5, "Beams of the search.")
    condition_on_previous_text: bool = setting(
        True, "Let the teacher see what it wrote before, as openai/whisper does."
    )
    batch_size: int = setting(8, "Recordings in one pass, where the engine batches.")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.")
    max_duration: float = setting(30.0, "Longest chunk in seconds, at most 30.")


@dataclasses.dataclass(frozen=True)
class ValidateSettings:
    """How chunks are checked, and which are kept."""

    metric: str = setting("composite", "Distance between the two transcripts.", choices=METRICS)
    threshold: float = setting(0.4, "Keep a chunk if its distance is at most this, 0 to 1.")
    normalise_by: str = setting("auxiliary", "Whose length error rates are divided by.", choices=NORMALISERS)
    engine: str = setting("auto", "Engine; auto is faster-whisper where it is installed.", choices=ENGINES)
    beam_size: int = setting(1, "Beams of the auxiliary's search; 1 is greedy.")
    batch_size: int = setting(8, "Chunks in one pass.")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is int8 or float32 on a CPU, float16 on a GPU.")


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """Which layers the student keeps."""

    decoder_layers: int | list[int] = setting(2, "How many decoder layers (first and last among them), or which.")
    encoder_layers: int | list[int] | None = setting(None, "Likewise of the encoder; null keeps it whole.")


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
    """How teacher and student are measured."""

    engine: str = setting("transformers", "Engine for both sides.", choices=ENGINES)
    beam_size: int = setting(1, "Beams of the search; 1 is greedy.")
    condition_on_previous_text: bool = setting(False, "Let the model see what it wrote before.")
    temperature_fallback: bool = setting(False, "Decode windows that look wrong again, by sampling.")
    batch_size: int = setting(1, "Recordings in one pass.")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, ...")
    dtype: str = setting("auto", "Number format; auto is float32 on a CPU, float16 on a GPU.")
    speed_runs: int = setting(1, "Runs over which the real-time factor is averaged; the paper has five.")
    before: bool = setting(True, "Measure the student before distillation too.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a run needs to know."""

    name: str = setting(help="a name for the run; results go to runs/NAME")
    recordings: str = setting(help="a folder of audio, a manifest (JSONL, CSV) with a path column, or a data set")
    teacher: str | list[str] = setting(help="a checkpoint, or several to try in order: paths, Hub ids, wheels")
    auxiliary: str | list[str] = setting(help="a small checkpoint likewise, or 'teacher' for the teacher's own")
    evaluation: str | None = setting(None, "Recordings with references, to measure teacher and student on.")
    language: str | None = setting(None, "Language code given to all models, such as zh for Mandarin-English.")
    output: str | None = setting(None, "Folder of the results; runs/NAME if null.")
    label: LabelSettings = setting()
    validate: ValidateSettings = setting()
    student: StudentSettings = setting()
    distil: dict[str, Any] = setting({}, "Fields of K2DTrainingArguments, and peft: {...} for adapters.")
    evaluate: EvaluateSettings = setting()

    @property
    def directory(self) -> Path:
        """Where the results go."""
        return Path(self.output or f"runs/{self.name}")

    def write(self, path: Path) -> None:
        """Write the recipe with all its settings."""
        text = yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe; paths of data in it are looked up from its own folder first.

    Args:
        path: the YAML file.
        overrides: assignments such as `distil.max_steps=50`.

    Raises:
        K2DError: one line that names file and key, before any model loads.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise K2DError(f"{path}: no such recipe") from None
    except (OSError, UnicodeDecodeError) as error:
        raise K2DError(f"{path}: cannot be read ({error})") from None
    except yaml.YAMLError as error:
        raise K2DError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise K2DError(f"{path}: a recipe is a mapping of settings")
    for assignment in overrides:
        _assign(values, *parse_assignment(assignment))
    recipe = read_settings(Recipe, values, where=str(path))
    check_distil(recipe.distil, where=str(path))
    return dataclasses.replace(
        recipe,
        recordings=_data(recipe.recordings, path, "recordings"),
        evaluation=None if recipe.evaluation is None else _data(recipe.evaluation, path, "evaluation"),
    )


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = inner = {} if inner is None else inner
        if not isinstance(inner, dict):
            raise K2DError(f"--set {key}: {section} is no section")
        values = inner
    values[name] = value


def _data(source: str, recipe: Path, key: str) -> str:
    """A path beside the recipe, a path from here, or a Hub id, told apart by what exists."""
    for candidate in (recipe.parent / source, Path(source)):
        if candidate.exists():
            return str(candidate.resolve())
    if Path(source).suffix or source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise K2DError(f"{recipe}: {key}: {source} does not exist, neither beside the recipe nor from here")
    return source


MANAGED = ("output_dir", "resume_from_checkpoint", "remove_unused_columns", "logging_dir", "push_to_hub", "do_train")


def check_distil(distil: dict[str, Any], *, where: str) -> None:
    """Check names and types of the section `distil` against `K2DTrainingArguments`.

    Raises:
        K2DError: naming key and file.
    """
    import typing

    from k2d_hf.distillation.arguments import K2DTrainingArguments

    fields = {field.name for field in dataclasses.fields(K2DTrainingArguments) if field.init}
    check_names(distil, sorted((fields - set(MANAGED)) | {"peft"}), where=where, section="distil")
    hints = typing.get_type_hints(K2DTrainingArguments)
    hints["peft"] = dict[str, Any] | None
    for name, value in distil.items():
        distil[name] = read_value(value, hints[name], where=where, key=f"distil.{name}")
    try:
        K2DTrainingArguments(output_dir="unused", **{k: v for k, v in distil.items() if k != "peft"})
    except (ValueError, ImportError) as error:
        raise K2DError(f"{where}: distil: {error}") from None
