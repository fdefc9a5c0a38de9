"""`k2d compare`: the folders of finished runs to one table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from k2d_hf.data.chunk_files import kept_of, load_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.folders import check_writable
from k2d_hf.files.plain_yaml import load_yaml
from k2d_hf.pipeline.command import Command, run_around
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import Console

if TYPE_CHECKING:
    from k2d_hf.evaluation.comparison import Comparison
    from k2d_hf.evaluation.measured_run import MeasuredRun


class Compare(Command):
    """Finished runs to one table."""

    name = "compare"
    summary = "Put finished runs into one table, teacher first, with intervals; seeds of one recipe share a row."

    def add_arguments(self, parser: CommandParser) -> None:
        """Runs, and what is compared."""
        parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
        recordings = (
            "file names of the recordings that count, such as 'dev-broad*'; repeatable, any may match (RTF and "
            "speed-up are those of all)"
        )
        parser.add_argument("--recordings", action="append", default=[], metavar="PATTERN", help=recordings)
        against = "row, such as lab-full, for one more column: the change of MER against it, with its interval"
        parser.add_argument("--against", metavar="ROW", help=against)
        output = "file of the same table, FILE.json, with the MER of each run, or FILE.md"
        parser.add_argument("--output", type=Path, metavar="FILE", help=output)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d compare`."""
        from k2d_hf.evaluation.comparison_table import check_ending, write_comparison

        if arguments.output is not None:
            check_ending(arguments.output)
        check_writable(arguments.output, file=True)
        folders = [run_around(folder) for folder in arguments.runs]
        comparison = compare(folders, patterns=arguments.recordings, against=arguments.against)
        console = Console()
        console.line(write_comparison(comparison, arguments.output, console.screen))


def compare(
    folders: Sequence[Path], *, patterns: Sequence[str] = (), against: str | None = None
) -> dict[str, Comparison]:
    """Compare finished runs, by test set, on recordings whose file names match a pattern, and with the row `against`.

    Raises:
        K2DError: for a folder that is no finished run, for runs that cannot be compared, for a pattern that nothing
            matches and for a row that is not there.
    """
    from k2d_hf.evaluation.compared_sets import compare_sets

    runs = [read_run(folder) for folder in dict.fromkeys(folders)]
    return compare_sets(runs, patterns=patterns, against=against)


def read_run(folder: Path) -> dict[str, MeasuredRun]:
    """What the folder of a run holds on its evaluation, by test set; K2DError if it is none, or has none."""
    from k2d_hf.evaluation.measured_run import MeasuredRun
    from k2d_hf.evaluation.sets import UNNAMED, figures_of_sets

    if not folder.is_dir():
        raise K2DError(f"{folder}: no such folder; give those of runs, such as runs/quickstart")
    figures = _read(folder / "evaluation.json", json.loads)
    lines = _read(folder / "evaluation_transcripts.jsonl", lambda text: [json.loads(one) for one in text.splitlines()])
    if not isinstance(figures, dict) or not (sets := figures_of_sets(figures)):
        raise K2DError(f"{folder / 'evaluation.json'}: no figures by model; run it again with `k2d run`")
    transcripts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for line in lines:
        transcripts.setdefault(line.get("set", UNNAMED), {}).setdefault(line["model"], []).append(line)
    recipe = _read(folder / "recipe.yaml", load_yaml) if (folder / "recipe.yaml").exists() else {}
    kept, validated = None, folder / "validated"
    if validated.is_dir():  # which may be gone by now
        chunks = load_chunks(validated)
        kept = kept_of(chunks)[0] / len(chunks)
    return {
        name: MeasuredRun(str(folder), recipe or {}, kept, of_set, transcripts.get(name, {}))
        for name, of_set in sets.items()
    }


def _read(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise K2DError(f"{path.parent}: no {path.name} in it; `k2d run` writes one where evaluation is set") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise K2DError(f"{path}: cannot be read ({type(error).__name__}); run it again with `k2d run`") from None
