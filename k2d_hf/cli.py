"""The command line: `k2d run` does everything a recipe says, the other verbs do a stage each."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.version import __version__

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `k2d` with the given arguments (those of the process if None); returns the exit status."""
    arguments = _parser().parse_args(argv)
    if arguments.verb is None:
        _parser().print_help()
        return 2
    debug = os.environ.get("K2D_DEBUG") == "1"
    if not debug:
        _be_quiet()
    try:
        arguments.work(arguments)
    except KeyboardInterrupt:
        print("\nk2d: stopped; what is done stays, and the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except K2DError as error:
        if debug:
            raise
        print(f"k2d: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1
    return 0


def _be_quiet() -> None:
    """Keep the libraries' bars and warnings from drowning our own lines; `K2D_DEBUG=1` shows them."""
    warnings.filterwarnings("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _quiet_libraries() -> None:
    """What cannot be said by environment; called once a verb imports them anyway."""
    import datasets
    import transformers

    if os.environ.get("K2D_DEBUG") != "1":
        datasets.disable_progress_bars()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="k2d",
        description="Turn unlabelled, code-switched recordings into a small speech recogniser (arXiv 2407.10603).",
        epilog="K2D_DEBUG=1 shows tracebacks and the libraries' own messages.",
    )
    parser.add_argument("--version", action="version", version=f"k2d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for add in (_add_run, _add_label, _add_validate, _add_student, _add_distil, _add_evaluate, _add_import):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, work: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(work=work)
    return parser


def _add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    from k2d_hf.settings import add_options

    add_options(parser.add_argument_group("settings"), cls)  # type: ignore[arg-type]
    _add_set(parser)


def _add_set(parser: argparse.ArgumentParser, example: str = "key=value") -> None:
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar=example, help="set one setting; repeatable"
    )


def _settings(arguments: argparse.Namespace, cls: type) -> Any:
    from k2d_hf.settings import given_options, parse_assignment, read_settings

    values = given_options(arguments, cls) | dict(parse_assignment(text) for text in arguments.sets)
    return read_settings(cls, values, where=f"k2d {arguments.verb}")


def _add_run(verbs: Any) -> None:
    parser = _verb(verbs, "run", _run, "Run every stage of a recipe: label, validate, student, distil, evaluate, card.")
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    _add_set(parser, "section.key=value")
    parser.add_argument("--from", dest="from_stage", metavar="STAGE", help="run this stage and those after it again")
    parser.add_argument("--output", metavar="DIR", help="folder of the results (default: runs/NAME)")


def _run(arguments: argparse.Namespace) -> None:
    from k2d_hf.recipe import load_recipe
    from k2d_hf.runner import run_recipe

    sets = arguments.sets + ([f"output={arguments.output}"] if arguments.output else [])
    recipe = load_recipe(arguments.recipe, sets)
    _quiet_libraries()
    run_recipe(recipe, from_stage=arguments.from_stage)


def _add_label(verbs: Any) -> None:
    from k2d_hf.recipe import LabelSettings

    parser = _verb(verbs, "label", _label, "Transcribe recordings with the teacher and pack them into chunks of 30 s.")
    parser.add_argument("data", metavar="DATA", help="folder of audio, manifest (JSONL, CSV), data set or Hub id")
    parser.add_argument(
        "--teacher", required=True, action="append", metavar="MODEL", help="repeat to try several in order"
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="datasets.load_from_disk(DIR) gives the chunks"
    )
    parser.add_argument("--language", metavar="CODE", help="such as zh; without it the teacher tells")
    _add_settings(parser, LabelSettings)


def _label(arguments: argparse.Namespace) -> None:
    from k2d_hf import stages
    from k2d_hf.labelling.recordings import load_recordings
    from k2d_hf.recipe import LabelSettings

    settings = _settings(arguments, LabelSettings)
    teacher = _model(arguments.teacher)
    recordings = load_recordings(arguments.data)

    def work(stage: Any) -> str:
        return stages.label(
            recordings,
            teacher,
            settings,
            stage,
            language=arguments.language,
            output=arguments.output,
            journal=_beside(arguments.output, "journal.jsonl"),
            skipped=_beside(arguments.output, "skipped.jsonl"),
        )

    _stage(arguments, work)
    _beside(arguments.output, "journal.jsonl").unlink(missing_ok=True)


def _add_validate(verbs: Any) -> None:
    from k2d_hf.recipe import ValidateSettings

    parser = _verb(
        verbs, "validate", _validate, "Transcribe chunks with the auxiliary and mark those on which both agree."
    )
    parser.add_argument("chunks", metavar="CHUNKS", help="what k2d label wrote")
    parser.add_argument(
        "--auxiliary", required=True, action="append", metavar="MODEL", help="repeat to try several in order"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--language", metavar="CODE", help="of chunks that carry none")
    _add_settings(parser, ValidateSettings)


def _validate(arguments: argparse.Namespace) -> None:
    from k2d_hf import stages
    from k2d_hf.recipe import ValidateSettings
    from k2d_hf.validation.distance import check_metric

    settings = _settings(arguments, ValidateSettings)
    check_metric(settings.metric, settings.threshold)
    chunks = stages.load_chunks(arguments.chunks)
    auxiliary = _model(arguments.auxiliary)

    def work(stage: Any) -> str:
        return stages.validate(
            chunks,
            auxiliary,
            settings,
            stage,
            language=arguments.language,
            output=arguments.output,
            journal=_beside(arguments.output, "journal.jsonl"),
        )

    _stage(arguments, work)
    _beside(arguments.output, "journal.jsonl").unlink(missing_ok=True)


def _add_student(verbs: Any) -> None:
    from k2d_hf.recipe import StudentSettings

    parser = _verb(verbs, "student", _student, "Make an untrained student out of the teacher's layers.")
    parser.add_argument("teacher", metavar="TEACHER")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--language", metavar="CODE", help="that the student transcribes by default")
    _add_settings(parser, StudentSettings)


def _student(arguments: argparse.Namespace) -> None:
    from k2d_hf import stages
    from k2d_hf.recipe import StudentSettings

    settings = _settings(arguments, StudentSettings)
    teacher = _model([arguments.teacher])
    _stage(
        arguments, lambda stage: stages.student(teacher, settings, language=arguments.language, output=arguments.output)
    )


def _add_distil(verbs: Any) -> None:
    parser = _verb(verbs, "distil", _distil, "Train a student on the chunks that validation kept.")
    parser.add_argument("validated", metavar="VALIDATED", help="what k2d validate wrote")
    parser.add_argument("--student", required=True, type=Path, metavar="DIR", help="what k2d student wrote")
    parser.add_argument(
        "--teacher", required=True, action="append", metavar="MODEL", help="repeat to try several in order"
    )
    parser.add_argument("--auxiliary", action="append", metavar="MODEL", help="where auxiliary_weight is not 0")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--language", metavar="CODE", help="of chunks that carry none")
    _add_set(parser)
    parser.epilog = (
        "Settings are the fields of K2DTrainingArguments, such as --set max_steps=1000 --set learning_rate=1e-4."
    )


def _distil(arguments: argparse.Namespace) -> None:
    from k2d_hf import stages
    from k2d_hf.recipe import check_distil
    from k2d_hf.settings import parse_assignment

    settings = dict(parse_assignment(text) for text in arguments.sets)
    check_distil(settings, where="k2d distil")
    chunks = stages.load_chunks(arguments.validated)
    student, teacher = _model([str(arguments.student)]), _model(arguments.teacher)
    auxiliary = _model(arguments.auxiliary) if arguments.auxiliary else None

    def work(stage: Any) -> str:
        return stages.distil(
            chunks,
            student.path,
            teacher,
            auxiliary,
            settings,
            stage,
            language=arguments.language,
            output=arguments.output,
            checkpoints=_beside(arguments.output, "checkpoints"),
        )

    _stage(arguments, work)


def _add_evaluate(verbs: Any) -> None:
    from k2d_hf.recipe import EvaluateSettings

    parser = _verb(verbs, "evaluate", _evaluate, "Measure models side by side on long recordings with references.")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", required=True, metavar="DATA", help="recordings with references")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    parser.add_argument("--language", metavar="CODE", help="such as zh; without it each model tells")
    _add_settings(parser, EvaluateSettings)


def _evaluate(arguments: argparse.Namespace) -> None:
    from k2d_hf import stages
    from k2d_hf.evaluation.table import render_table
    from k2d_hf.labelling.recordings import load_recordings
    from k2d_hf.recipe import EvaluateSettings

    settings = _settings(arguments, EvaluateSettings)
    models = {name: _model([name]) for name in arguments.models}
    recordings = load_recordings(arguments.data)
    figures: dict[str, Any] = {}

    def work(stage: Any) -> str:
        figures.update(
            stages.evaluate(models, recordings, settings, stage, language=arguments.language, output=arguments.output)
        )
        return str(arguments.output or "")

    _stage(arguments, work, lock=False)
    print("\n" + render_table(figures))


def _add_import(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "import-ctranslate2",
        _import,
        "Turn a CTranslate2 (faster-whisper) Whisper into a transformers checkpoint.",
    )
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with model.bin, tokenizer.json, config.json")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))


def _import(arguments: argparse.Namespace) -> None:
    from k2d_hf.checkpoints.conversion import import_ctranslate2

    path = import_ctranslate2(arguments.source, arguments.output, dtype=arguments.dtype)
    print(f"{arguments.source} -> {path}")


def _model(sources: list[str]) -> Any:
    from k2d_hf.checkpoints import resolve_checkpoint

    checkpoint = resolve_checkpoint(sources)
    _quiet_libraries()
    return checkpoint


def _beside(output: Path, suffix: str) -> Path:
    """A file or folder that goes with `output` without being in it."""
    return output.with_name(f"{output.name}.{suffix}")


def _stage(arguments: argparse.Namespace, work: Callable[[Any], str], *, lock: bool = True) -> None:
    """Do one stage with a bar and a line of result, alone in its output."""
    from contextlib import nullcontext

    from k2d_hf.console import Console
    from k2d_hf.folders import check_free
    from k2d_hf.lock import locked

    if lock:
        check_free(arguments.output)
    console = Console()
    stage = console.stage(arguments.verb)
    with locked(arguments.output) if lock else nullcontext(), console.warnings():
        try:
            result = work(stage)
        finally:
            stage.close()
        stage.finish(result)


if __name__ == "__main__":
    sys.exit(main())
