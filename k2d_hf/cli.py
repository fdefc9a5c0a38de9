"""The command line: `k2d run` does everything in a recipe, the other commands do a stage each.

What a command takes and does is in its module (`pipeline.commands`, `pipeline.stages`). Help and mistakes of typing
need none of the large libraries.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence

from k2d_hf.errors import K2DError
from k2d_hf.formatting import first_line
from k2d_hf.terminal import interrupts
from k2d_hf.terminal.command_parser import MISTYPED, CommandParser
from k2d_hf.terminal.interrupts import INTERRUPTED
from k2d_hf.version import __version__

EXIT_STATUS = "Exit status: 0 done, 1 failed with a line that says why, 2 mistyped, 130 stopped by Ctrl-C."


def main(argv: Sequence[str] | None = None) -> int:
    """Run `k2d` with the given arguments (those of the process if None); returns the exit status."""
    status = _run(argv)
    timeout = sys.modules.get("k2d_hf.transcription.timeout")
    if timeout is not None and timeout.has_abandoned_calls():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # a thread that computes while Python ends in order would take the process down
    return status


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return MISTYPED
    debug = os.environ.get("K2D_DEBUG") == "1"
    if not debug:
        _be_quiet()
    try:
        with interrupts.Raised():
            arguments.execute(arguments)
    except KeyboardInterrupt:
        interrupts.print_stopped()
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        if interrupts.requested():  # an import or a library made something else of it
            interrupts.print_stopped()
            return INTERRUPTED
        from k2d_hf.terminal.screen import encoding_of, printable

        message = str(error) if isinstance(error, K2DError) else f"{first_line(error)}; K2D_DEBUG=1 shows where"
        print(printable(f"k2d: {message}", encoding_of(sys.stderr)), file=sys.stderr)
        return 1
    return 0


def _be_quiet() -> None:
    """Keep the libraries' bars and warnings from drowning our own lines; `K2D_DEBUG=1` shows them."""
    warnings.filterwarnings("ignore")
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors, which are raised too, print whole schemas
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if datasets := sys.modules.get("datasets"):  # imported before, when it read its variables
        datasets.disable_progress_bars()
    if transformers := sys.modules.get("transformers"):
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()


def _parser() -> argparse.ArgumentParser:
    from k2d_hf.pipeline.commands import commands

    parser = CommandParser(
        prog="k2d",
        description="Turn unlabelled, code-switched recordings into a small speech recogniser (arXiv 2407.10603).",
        epilog=f"{EXIT_STATUS} K2D_DEBUG=1 shows tracebacks and the libraries' own messages.",
    )
    parser.add_argument("--version", action="version", version=f"k2d {__version__}")
    parser.commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    quiet = "no bars, no lines of progress; only warnings, errors, and tables that were asked for"
    for command in commands():
        own = parser.commands.add_parser(command.name, help=command.summary, description=command.summary)
        own.add_argument("--quiet", action="store_true", help=quiet)
        command.add_arguments(own)
        own.set_defaults(execute=command.execute)
    return parser
