"""What the verbs of the command line do: read settings, find models and data, then run one stage, or a recipe."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from k2d_hf import stages
from k2d_hf.checkpoints import Checkpoint, resolve_checkpoint
from k2d_hf.console import Console, Stage
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.long_form import load_long_form
from k2d_hf.evaluation.table import render_table
from k2d_hf.folders import check_free
from k2d_hf.labelling.recordings import load_recordings
from k2d_hf.lock import locked
from k2d_hf.processes import is_main_process, process_count
from k2d_hf.recipe import (
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
from k2d_hf.settings import assign, given_options, read_settings
from k2d_hf.storage import files_below, remove_folder


def run(arguments: argparse.Namespace) -> None:
    """`k2d run`."""
    from k2d_hf.runner import run_recipe

    if process_count() > 1:
        raise K2DError("k2d run is one process; for several, run its stages as verbs, and k2d distil under torchrun")
    output = [f"output={arguments.output}"] if arguments.output else []
    recipe = load_recipe(arguments.recipe, arguments.sets + output, elsewhere=arguments.dry_run)
    _quiet_libraries()
    if arguments.dry_run:
        from k2d_hf.planning.plan import plan_run
        from k2d_hf.planning.plan_text import render_plan

        print(render_plan(plan_run(recipe, from_stage=arguments.from_stage)))
        return
    run_recipe(recipe, from_stage=arguments.from_stage, console=Console(quiet=arguments.quiet))


def label(arguments: argparse.Namespace) -> None:
    """`k2d label`."""
    settings = _settings(arguments, LabelSettings)
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
            language=arguments.language,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
            skipped=_beside(arguments.output, "skipped.jsonl"),
        ),
    )


def validate(arguments: argparse.Namespace) -> None:
    """`k2d validate`."""
    settings = _settings(arguments, ValidateSettings)
    _check_output(arguments.output)
    chunks = stages.load_chunks(arguments.chunks, streaming=arguments.streaming == "true")
    auxiliary = _model(arguments.auxiliary)
    _stage(
        arguments,
        lambda stage: stages.validate(
            chunks,
            auxiliary,
            settings,
            stage,
            language=arguments.language,
            output=arguments.output,
            resume=_beside(arguments.output, "resume"),
        ),
    )


def student(arguments: argparse.Namespace) -> None:
    """`k2d student`."""
    settings = _settings(arguments, StudentSettings)
    check_free(arguments.output)
    teacher = _model([arguments.teacher])
    _stage(
        arguments, lambda stage: stages.student(teacher, settings, language=arguments.language, output=arguments.output)
    )


def targets(arguments: argparse.Namespace) -> None:
    """`k2d targets`."""
    from k2d_hf.distillation.settings import DistillationSettings

    settings = _settings(arguments, TargetsSettings)
    training = read_distil(given_options(arguments, DistillationSettings), where=arguments.verb)
    if "encoder_states_dir" not in training:
        training["keep_encoder_states"] = False  # what this verb has to resume is gone when it is done
    _check_output(arguments.output)
    stages.load_chunks(arguments.validated)
    teacher, untrained = _model(arguments.teacher), _model(arguments.student)
    auxiliary = _model(arguments.auxiliary) if arguments.auxiliary else None
    _stage(
        arguments,
        lambda stage: stages.targets(
            Path(arguments.validated),
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
    from k2d_hf.distillation.settings import DistillationSettings

    settings = read_distil(assign(given_options(arguments, DistillationSettings), arguments.sets), where=arguments.verb)
    _check_output(arguments.output)
    stages.load_chunks(arguments.validated)
    untrained = _model(arguments.student)
    teacher = _model(arguments.teacher) if arguments.teacher else None
    auxiliary = _model(arguments.auxiliary) if arguments.auxiliary else None
    _stage(
        arguments,
        lambda stage: stages.distil(
            Path(arguments.validated),
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
    settings = _settings(arguments, EvaluateSettings)
    given = {"source": arguments.data, **given_options(arguments, EvaluationDataSettings)}
    data = read_settings(EvaluationDataSettings, given, where=arguments.verb)
    recordings = load_long_form(**{name: value for name, value in vars(data).items() if name != "streaming"})
    models = {name: _model([name]) for name in arguments.models}
    figures: dict[str, Any] = {}

    def work(stage: Stage) -> str:
        figures.update(
            stages.evaluate(models, recordings, settings, stage, language=arguments.language, output=arguments.output)
        )
        return str(arguments.output or "")

    _stage(arguments, work, lock=False)
    print("\n" + render_table(figures))


def calibrate(arguments: argparse.Namespace) -> None:
    """`k2d calibrate`."""
    from k2d_hf.validation.calibration_report import render_calibration

    _quiet_libraries()
    console = Console()
    with console.warnings():
        calibration = stages.calibrate(
            arguments.validated, arguments.references, metric=arguments.metric, output=arguments.output
        )
    console.line(render_calibration(calibration))


def compare(arguments: argparse.Namespace) -> None:
    """`k2d compare`."""
    from k2d_hf.evaluation.comparison_table import check_ending, write_comparison

    _quiet_libraries()
    if arguments.output is not None:
        check_ending(arguments.output)
    comparison = stages.compare(arguments.runs, patterns=arguments.recordings, against=arguments.against)
    print(write_comparison(comparison, arguments.output))


def report(arguments: argparse.Namespace) -> None:
    """`k2d report`."""
    settings = read_settings(ReportSettings, given_options(arguments, ReportSettings), where=arguments.verb)
    output = arguments.output or arguments.run / "report.html"
    _quiet_libraries()
    _stage(
        arguments,
        lambda stage: stages.report(arguments.run, settings, stage, references=arguments.references, output=output),
        lock=False,
    )


def push(arguments: argparse.Namespace) -> None:
    """`k2d push`."""
    from k2d_hf.publishing.hub import check_repo_id, push_data, push_student

    if arguments.student is None and arguments.data is None:
        raise K2DError("push: nothing to push; give the folder of a student, or --data CHUNKS")
    if arguments.student is None and arguments.ctranslate2:
        raise K2DError("push: --ctranslate2 goes with a student; give its folder, or leave the option out")
    if arguments.data is None and arguments.data_repo_id is not None:
        raise K2DError("push: --data-repo-id goes with --data CHUNKS; give them, or leave the option out")
    data_repo_id = arguments.data_repo_id or arguments.repo_id
    shared: dict[str, Any] = {name: getattr(arguments, name) for name in ("private", "revision", "message")}
    if arguments.data is not None or arguments.ctranslate2:
        _quiet_libraries()
    if arguments.data is not None:
        check_repo_id(data_repo_id)
        stages.load_chunks(arguments.data)

    def work(stage: Stage) -> str:
        done = []
        if arguments.student is not None:
            done.append(push_student(arguments.student, arguments.repo_id, ctranslate2=arguments.ctranslate2, **shared))
        if arguments.data is not None:
            start = partial(stage.start, unit="chunks")
            done.append(push_data(arguments.data, data_repo_id, on_start=start, on_progress=stage.advance, **shared))
        return "; ".join(map(str, done))

    _stage(arguments, work, lock=False)


def export(arguments: argparse.Namespace) -> None:
    """`k2d export`."""
    from k2d_hf.checkpoints.conversion import export_ctranslate2

    check_free(arguments.output)
    student = _model([arguments.student])

    def work(stage: Stage) -> str:
        path = export_ctranslate2(student.path, arguments.output, quantization=arguments.quantization)
        return f"{student.name} -> {path}"

    _stage(arguments, work, lock=False)


def import_ctranslate2(arguments: argparse.Namespace) -> None:
    """`k2d import-ctranslate2`."""
    from k2d_hf.checkpoints.conversion import import_ctranslate2

    def work(stage: Stage) -> str:
        path = import_ctranslate2(arguments.source, arguments.output, dtype=arguments.dtype)
        return f"{arguments.source} -> {path}"

    _stage(arguments, work, lock=False)


def _settings(arguments: argparse.Namespace, cls: type) -> Any:
    return read_settings(cls, assign(given_options(arguments, cls), arguments.sets), where=arguments.verb)


def _model(sources: list[str]) -> Checkpoint:
    checkpoint = resolve_checkpoint(sources)
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
