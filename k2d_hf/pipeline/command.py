"""What a command of `k2d` is, and what all of them share: finding models and folders, and doing one piece of work."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from k2d_hf.errors import K2DError, prefixed
from k2d_hf.files.folders import check_free, check_writable, locked
from k2d_hf.files.processes import is_main_process, process_count
from k2d_hf.files.settings import add_options, assign, given_options, read_settings
from k2d_hf.files.storage import files_below, is_address, remove_folder
from k2d_hf.models import resolve_checkpoint
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.recipe import read_values
from k2d_hf.pipeline.run_state import Job
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console
from k2d_hf.validation.settings import ValidateSettings

Place = TypeVar("Place", str, Path)
Settings = TypeVar("Settings")


class Command(ABC):
    """A word after `k2d`. Its module imports none of the large libraries before the command is executed."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def add_arguments(self, parser: CommandParser) -> None:
        """Declare what the command takes."""

    @abstractmethod
    def execute(self, arguments: argparse.Namespace) -> None:
        """Do what a command line asks; K2DError for anything that the user can mend."""


def add_model(parser: argparse.ArgumentParser, option: str, *, required: bool = True, help: str = "") -> None:
    """An option that names a model, and may be repeated."""
    text = f"{help}folder, Hub id or wheels:...; repeatable, the first that answers"
    parser.add_argument(option, required=required, action="append", metavar="MODEL", help=text)


def add_folder(parser: argparse.ArgumentParser, text: str, *, remote: bool = False) -> None:
    """The option --output; where `remote`, an address such as s3://bucket/chunks will do."""
    text += "; or an address such as s3://BUCKET/CHUNKS, for Parquet files" if remote else ""
    parser.add_argument("--output", required=True, type=place if remote else Path, metavar="DIR", help=text)


def add_language(parser: argparse.ArgumentParser, text: str) -> None:
    """The option --language."""
    parser.add_argument("--language", metavar="CODE", help=text)


def place(text: str) -> str | Path:
    """A folder or file of the command line, or its address."""
    return text.rstrip("/") if "://" in text else Path(text)


def add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    """Each setting of the dataclass `cls` as an option, and --set."""
    group = parser.add_argument_group("settings")
    add_options(group, cls)
    add_set(group)


def add_set(parser: Any, example: str = "key=value") -> None:
    """The option --set."""
    text = "one of the settings, by its name; repeatable"
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar=example, help=text)


def add_data(parser: argparse.ArgumentParser, cls: type, *, skip: Sequence[str] = ()) -> None:
    """How recordings are read, as options."""
    add_options(parser.add_argument_group("where DATA is a data set"), cls, skip=["source", *skip])


def settings_of(arguments: argparse.Namespace, cls: type[Settings], *, runs_model: bool = False) -> Settings:
    """The settings that were given, where the stage `runs_model` such as this machine can run; else K2DError."""
    settings = read_settings(cls, assign(given_options(arguments, cls), arguments.sets), where=arguments.command)
    if runs_model:
        with prefixed(f"{arguments.command}: "):
            check_machine(lacks_of(settings))  # type: ignore[arg-type]
    return settings


def check_machine(lacks: Sequence[str]) -> None:
    """Raise K2DError for the first thing that this machine lacks."""
    if lacks:
        raise K2DError(lacks[0])


def model_of(sources: Sequence[str], part: str = "student") -> Any:
    """The checkpoint of the first source that answers; of the folder of a run it is this part."""
    return resolve_checkpoint([part_of_run(source, part) for source in sources])


def check_output(output: str | Path, *, resumes: bool = False) -> None:
    """Raise K2DError if `output` is taken or cannot be written."""
    if not (resumes and files_below(beside(output, "resume"))):  # left by a kill after the last file was written
        check_free(output)
    check_writable(output)


def beside(output: str | Path, suffix: str) -> Any:
    """A file or folder that goes with `output` without being in it."""
    return output.with_name(f"{output.name}.{suffix}") if isinstance(output, Path) else f"{output}.{suffix}"


def perform(
    arguments: argparse.Namespace, work: Callable[[Job], str], *, language: str | None = None, lock: bool = True
) -> None:
    """Do some work with a bar and a line of result, alone in its output; once done, it has nothing to resume."""
    main = is_main_process()
    if process_count() > 1 and arguments.command != "distil":
        raise K2DError(f"k2d {arguments.command} is one process; only k2d distil runs under torchrun")
    console = Console(silent=not main, quiet=arguments.quiet)
    output: Any = getattr(arguments, "output", None)
    job = Job(console.progress(arguments.command), output, beside(output, "resume") if lock else None, language)
    here = lock and main and isinstance(output, Path)  # an object store has no locks
    with locked(output) if here else nullcontext(), console.warnings():
        try:
            result = work(job)
        finally:
            job.progress.close()
        job.progress.finish(result)
        if lock and main:
            remove_folder(job.resume)


def is_run(path: str | Path) -> bool:
    """Whether this is the folder of a run, as `k2d run` makes it."""
    return not is_address(str(path)) and (Path(path) / "stages.json").is_file()


def part_of_run(path: Place, *parts: str) -> Place:
    """`path`, or of the folder of a run the first of its `parts` that is there; K2DError where there is none."""
    if not is_run(path):
        return path
    for part in parts:
        inside = Path(path) / part
        if inside.is_dir() and any(inside.iterdir()):
            return type(path)(inside)
    raise K2DError(f"{path}: a run without {' or '.join(parts)}; `k2d run` makes it, or give another folder")


def validation_of_run(path: str | Path, *names: str) -> dict[str, Any]:
    """Settings by which the chunks of a run were validated, those named that its recipe has; none of a path in no run.

    Raises:
        K2DError: for a recipe of the run that cannot be read, or a value that validation does not take.
    """
    if is_address(str(path)):
        return {}
    file = run_around(Path(path)) / "recipe.yaml"
    if not (is_run(file.parent) and file.is_file()):
        return {}
    section = read_values(file).get("validate")
    given = {name: section[name] for name in names if name in section} if isinstance(section, Mapping) else {}
    read = vars(read_settings(ValidateSettings, given, where=str(file), section="validate"))
    return {name: read[name] for name in given}


def run_around(path: Path) -> Path:
    """The run that `path` is a stage's folder or file of; `path` itself where it is a run, or in none."""
    return path.parent if not is_run(path) and is_run(path.parent) else path
