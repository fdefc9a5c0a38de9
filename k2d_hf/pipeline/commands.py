"""What the verbs of the command line do: read settings, find models and data, then run one stage, or a recipe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.utterances import are_utterances
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.long_form import load_long_form
from k2d_hf.evaluation.measurable import check_measurable
from k2d_hf.evaluation.table import render_table
from k2d_hf.files.folders import check_free, check_writable
from k2d_hf.files.lock import locked
from k2d_hf.files.processes import is_main_process, process_count
from k2d_hf.files.settings import assign, given_options, read_settings
from k2d_hf.files.storage import files_below, remove_folder
from k2d_hf.models import Checkpoint, resolve_checkpoint
from k2d_hf.models.inspect import look_at
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import stages
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.preflight import check_adapters, check_machine, training_lacks
from k2d_hf.pipeline.recipe import (
    DataSettings,
    EvaluateSettings,
    EvaluationDataSettings,
    LabelSettings,
    ReportSettings,
    StudentSettings,
    TargetsSettings,
    ValidateSettings,
    load_recipe,
    read_distil,
)
from k2d_hf.pipeline.run_folders import part_of_run, run_around
from k2d_hf.terminal.console import Console, Stage


def run(arguments: argparse.Namespace) -> None:
    """`k2d run`."""
    from k2d_hf.pipeline.run import run_recipe

    if process_count() > 1:
        raise K2DError("k2d run is one process; for several, run its stages as verbs, and k2d distil under torchrun")
    output = [f"output={arguments.output}"] if arguments.output else []
    recipe = load_recipe(arguments.recipe, arguments.sets + output, elsewhere=arguments.dry_run)
    _quiet_libraries()
    if arguments.dry_run:
        from k2d_hf.pipeline.planning.plan import plan_run
        from k2d_hf.pipeline.planning.plan_text import render_plan

        console = Console()
        console.line(render_plan(plan_run(recipe, from_stage=arguments.from_stage), console.screen))
        return
    run_recipe(recipe, from_stage=arguments.from_stage, console=Console(quiet=arguments.quiet))


def label(arguments: argparse.Namespace) -> None:
    """`k2d label`."""
    settings, language = _model_settings(arguments, LabelSettings), _language(arguments)
    _check_output(arguments.output)
    recordings = load_recordings(arguments.data, **given_options(arguments, DataSettings))
    teacher = _model(arguments.teacher)
    _stage(
        arguments,
        lambda stage: stages.label(
            recordings,
            teacher,
            settings,
            stage,
            language=language,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
            skipped=_beside(arguments.output, "skipped.jsonl"),
        ),
    )


def validate(arguments: argparse.Namespace) -> None:
    """`k2d validate`."""
    settings, language = _model_settings(arguments, ValidateSettings), _language(arguments)
    _check_output(arguments.output)
    place = part_of_run(arguments.chunks, "chunks")
    chunks = stages.load_chunks(place, streaming=arguments.streaming == "true")
    stages.check_chunks(chunks, place)
    auxiliary = _model(arguments.auxiliary)
    _stage(
        arguments,
        lambda stage: stages.validate(
            chunks,
            auxiliary,
            settings,
            stage,
            language=language,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
        ),
    )


def student(arguments: argparse.Namespace) -> None:
    """`k2d student`."""
    settings, language = _settings(arguments, StudentSettings), _language(arguments)
    check_free(arguments.output)
    check_writable(arguments.output)
    teacher = _model([arguments.teacher])
    _stage(arguments, lambda stage: stages.student(teacher, settings, language=language, output=arguments.output))


def targets(arguments: argparse.Namespace) -> None:
    """`k2d targets`."""
    from k2d_hf.distillation.settings import DistillationSettings

    settings = _model_settings(arguments, TargetsSettings)
    training = read_distil(given_options(arguments, DistillationSettings), where=arguments.verb)
    if "encoder_states_dir" not in training:
        training["keep_encoder_states"] = False  # what this verb has to resume is gone when it is done
    _check_output(arguments.output)
    validated = _training_chunks(arguments, "validated")
    teacher, untrained = _model(arguments.teacher), _model(arguments.student, "student-before")
    auxiliary = _model(arguments.auxiliary) if arguments.auxiliary else None
    _stage(
        arguments,
        lambda stage: stages.targets(
            validated,
            untrained.path,
            teacher,
            auxiliary,
            settings,
            training,
            stage,
            language=None,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
        ),
    )


def distil(arguments: argparse.Namespace) -> None:
    """`k2d distil`."""
    from k2d_hf.distillation.arguments import K2DTrainingArguments

    given = assign(given_options(arguments, K2DTrainingArguments), arguments.sets)
    settings = read_distil(given, where=arguments.verb)
    if process_count() == 1:  # of several, all find the same, and the first step is near
        check_machine(training_lacks(settings, f"{arguments.verb}: "))
    _check_output(arguments.output)
    validated = _training_chunks(arguments, *(["validated"] if arguments.teacher else ["targets", "validated"]))
    untrained = _model(arguments.student, "student-before")
    check_adapters(settings, look_at(str(untrained.path)).shape, f"{arguments.verb}: ")
    teacher = _model(arguments.teacher) if arguments.teacher else None
    auxiliary = _model(arguments.auxiliary) if arguments.auxiliary else None
    _stage(
        arguments,
        lambda stage: stages.distil(
            validated,
            untrained.path,
            teacher,
            auxiliary,
            settings,
            stage,
            language=None,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
        ),
    )


def evaluate(arguments: argparse.Namespace) -> None:
    """`k2d evaluate`."""
    settings, language = _model_settings(arguments, EvaluateSettings), _language(arguments)
    check_writable(arguments.output, file=True)
    given = {"source": arguments.data, **given_options(arguments, EvaluationDataSettings)}
    data = read_settings(EvaluationDataSettings, given, where=arguments.verb)
    recordings = load_long_form(**{name: value for name, value in vars(data).items() if name != "streaming"})
    check_measurable(recordings)
    models: dict[str, Checkpoint] = {}
    for source in dict.fromkeys(arguments.models):
        checkpoint = _model([source])
        models[source if checkpoint.name in models else checkpoint.name] = checkpoint
    figures: dict[str, Any] = {}

    def work(stage: Stage) -> str:
        figures.update(stages.evaluate(models, recordings, settings, stage, language=language, output=arguments.output))
        over = stages.measured_over(len(models), len(recordings))
        return f"{over} -> {arguments.output}" if arguments.output else over

    _stage(arguments, work, lock=False)
    console = Console()
    console.line("\n" + render_table(figures, console.screen))


def calibrate(arguments: argparse.Namespace) -> None:
    """`k2d calibrate`."""
    from k2d_hf.validation.calibration_report import render_calibration

    check_writable(arguments.output)
    validated = part_of_run(arguments.validated, "validated")
    _quiet_libraries()
    console = Console()
    with console.warnings():
        calibration = stages.calibrate(
            validated, arguments.references, metric=arguments.metric, output=arguments.output
        )
    console.line(render_calibration(calibration, console.screen))


def compare(arguments: argparse.Namespace) -> None:
    """`k2d compare`."""
    from k2d_hf.evaluation.comparison_table import check_ending, write_comparison

    _quiet_libraries()
    if arguments.output is not None:
        check_ending(arguments.output)
    check_writable(arguments.output, file=True)
    runs = [run_around(folder) for folder in arguments.runs]
    comparison = stages.compare(runs, patterns=arguments.recordings, against=arguments.against)
    console = Console()
    console.line(write_comparison(comparison, arguments.output, console.screen))


def report(arguments: argparse.Namespace) -> None:
    """`k2d report`."""
    settings = read_settings(ReportSettings, given_options(arguments, ReportSettings), where=arguments.verb)
    folder = run_around(arguments.run)
    output = arguments.output or folder / "report.html"
    if folder.is_dir():
        check_writable(output, file=True)
    _quiet_libraries()
    _stage(
        arguments,
        lambda stage: stages.report(folder, settings, stage, references=arguments.references, output=output),
        lock=False,
    )


def push(arguments: argparse.Namespace) -> None:
    """`k2d push`."""
    from k2d_hf.publishing.hub import check_repo_id, check_revision, push_data, push_student

    if arguments.student is None and arguments.data is None:
        raise K2DError("push: nothing to push; give the folder of a student, or --data CHUNKS")
    if arguments.student is None and arguments.ctranslate2:
        raise K2DError("push: --ctranslate2 goes with a student; give its folder, or leave the option out")
    if arguments.data is None and arguments.data_repo_id is not None:
        raise K2DError("push: --data-repo-id goes with --data CHUNKS; give them, or leave the option out")
    data_repo_id = arguments.data_repo_id or arguments.repo_id
    folder = None if arguments.student is None else part_of_run(arguments.student, "student")
    chunks = None if arguments.data is None else part_of_run(arguments.data, "validated")
    shared: dict[str, Any] = {name: getattr(arguments, name) for name in ("private", "revision", "message")}
    check_revision(arguments.revision)
    if chunks is not None or arguments.ctranslate2:
        _quiet_libraries()
    if chunks is not None:
        check_repo_id(data_repo_id)
        stages.load_chunks(chunks)

    def work(stage: Stage) -> str:
        done = []
        if folder is not None:
            done.append(push_student(folder, arguments.repo_id, ctranslate2=arguments.ctranslate2, **shared))
        if chunks is not None:
            start = partial(stage.start, unit="chunks")
            done.append(push_data(chunks, data_repo_id, on_start=start, on_progress=stage.advance, **shared))
        return "; ".join(map(str, done))

    _stage(arguments, work, lock=False)


def export(arguments: argparse.Namespace) -> None:
    """`k2d export`."""
    from k2d_hf.models.conversion import export_ctranslate2

    check_free(arguments.output)
    check_writable(arguments.output)
    student = _model([arguments.student])

    def work(stage: Stage) -> str:
        path = export_ctranslate2(student.path, arguments.output, quantization=arguments.quantization)
        return f"{student.name} -> {path}"

    _stage(arguments, work, lock=False)


def import_ctranslate2(arguments: argparse.Namespace) -> None:
    """`k2d import-ctranslate2`."""
    from k2d_hf.models.conversion import import_ctranslate2

    check_free(arguments.output)
    check_writable(arguments.output)

    def work(stage: Stage) -> str:
        path = import_ctranslate2(arguments.source, arguments.output, dtype=arguments.dtype)
        return f"{arguments.source} -> {path}"

    _stage(arguments, work, lock=False)


def _settings(arguments: argparse.Namespace, cls: type) -> Any:
    return read_settings(cls, assign(given_options(arguments, cls), arguments.sets), where=arguments.verb)


def _language(arguments: argparse.Namespace) -> str | None:
    """Whisper's code of the language that was given.

    Raises:
        K2DError: if it is none of Whisper's, before anything else is looked at.
    """
    return checked_language(arguments.language)


def _model_settings(arguments: argparse.Namespace, cls: type) -> Any:
    """Settings of a stage that runs a model, which this machine can run as they ask."""
    settings = _settings(arguments, cls)
    try:
        check_machine(lacks_of(settings))
    except K2DError as error:
        raise K2DError(f"{arguments.verb}: {error}") from None
    return settings


def _training_chunks(arguments: argparse.Namespace, *parts: str) -> Path:
    """The folder of chunks to train on, which somebody validated, or of which the user says that nobody did."""
    folder = part_of_run(Path(arguments.validated), *parts)
    chunks = stages.load_chunks(folder)
    stages.check_chunks(chunks, folder)
    names = chunks.column_names
    if "keep" not in names and not arguments.unvalidated and not are_utterances(names):
        raise K2DError(
            f"{folder}: nobody validated these {len(chunks)} chunks (no column keep): give what `k2d validate` makes "
            "of them, or say --unvalidated to take all"
        )
    return folder


def _model(sources: list[str], part: str = "student") -> Checkpoint:
    """The model of the first source that answers; of the folder of a run it is this part."""
    checkpoint = resolve_checkpoint([part_of_run(source, part) for source in sources])
    _quiet_libraries()
    return checkpoint


def _quiet_libraries() -> None:
    """What cannot be said by environment; called once a verb imports them anyway."""
    import datasets
    import transformers

    if os.environ.get("K2D_DEBUG") != "1":
        datasets.disable_progress_bars()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


def _check_output(output: str | Path) -> None:
    """Raise K2DError if `output` is taken; not by a run that was killed between its last file and its last word."""
    if not files_below(_beside(output, "resume")):
        check_free(output)
    check_writable(output)


def _beside(output: str | Path, suffix: str) -> Any:
    """A file or folder that goes with `output` without being in it."""
    return output.with_name(f"{output.name}.{suffix}") if isinstance(output, Path) else f"{output}.{suffix}"


def _stage(arguments: argparse.Namespace, work: Callable[[Stage], str], *, lock: bool = True) -> None:
    """Do one stage with a bar and a line of result, alone in its output; once done, it has nothing to resume."""
    main = is_main_process()
    if process_count() > 1 and arguments.verb != "distil":
        raise K2DError(f"k2d {arguments.verb} is one process; only k2d distil runs under torchrun")
    console = Console(silent=not main, quiet=arguments.quiet)
    stage = console.stage(arguments.verb)
    here = lock and main and isinstance(arguments.output, Path)  # an object store has no locks
    with locked(arguments.output) if here else nullcontext(), console.warnings():
        try:
            result = work(stage)
        finally:
            stage.close()
        stage.finish(result)
        if lock and main:
            remove_folder(_beside(arguments.output, "resume"))
