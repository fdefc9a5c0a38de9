"""Between stages 2 and 3, beyond the paper: chunks whose text is known join those with pseudo-labels."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import check_chunks, load_chunks
from k2d_hf.data.chunk_schema import SOURCE
from k2d_hf.data.settings import GIVEN, LabelledDataSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key
from k2d_hf.files.settings import given_options
from k2d_hf.formatting import counted, quote
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import command
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import Job, RunState
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import kept_chunks, mixing_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import minutes

if TYPE_CHECKING:
    from datasets import Dataset

    from k2d_hf.data.labelled import LabelledReport

    Labelled = Mapping[str, tuple[Dataset, LabelledReport]]  # by the name of the source


class Mix(Stage, command.Command):
    """Chunks with pseudo-labels and sources with texts to the chunks of a training."""

    name = "mix"
    summary = "Put chunks whose text is known (subtitles, a corpus) beside those with pseudo-labels."
    output = "mixed"
    of_stage_alone = ("mixed", "mixing.json", "mixing_left_out.jsonl")

    def reason_absent(self, recipe: Recipe) -> str | None:
        """A source."""
        return None if recipe.sources else "mix"

    def depends(self, run: RunState) -> list[Any]:
        """The chunks of all sources by content, and validation."""
        sources = [[name, list(chunks), files_key(chunks["recording"])] for name, (chunks, _) in run.labelled.items()]
        return [sources, run.ran("validate")]

    def run(self, run: RunState, job: Job) -> str:
        """Write the chunks, and what was left out."""
        files = {"left_out": run.folder / "mixing_left_out.jsonl", "figures": run.folder / "mixing.json"}
        shares = {name: data.share for name, data in run.recipe.sources.items()}
        return mix(load_chunks(run.folder / "validated"), run.labelled, job, shares=shares, **files)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """The chunks that were kept, and what each source added."""
        return kept_chunks(chunks), mixing_facts(folder)

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, the source, and how it is read."""
        parser.add_argument("chunks", metavar="CHUNKS", help="output of k2d validate or k2d mix, or a run")
        data = "what has texts: a folder with subtitles beside the recordings, a manifest, a data set or Hub id"
        parser.add_argument("data", metavar="DATA", help=data)
        name = f"name of the source, for its share in training, --set shares.NAME=0.2 (default: {GIVEN})"
        parser.add_argument("--name", default=GIVEN, metavar="NAME", help=name)
        command.add_folder(parser, "folder of all chunks", remote=True)
        command.add_data(parser, LabelledDataSettings, skip=["share", "streaming"])

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d mix`."""
        from k2d_hf.data.labelled import LabelledReport, load_labelled

        given = given_options(arguments, LabelledDataSettings)
        checked_language(given.get("language"))
        command.check_output(arguments.output, resumes=True)
        folder = command.part_of_run(arguments.chunks, "mixed", "validated")
        chunks = load_chunks(folder)
        check_chunks(chunks, folder)
        name, report = arguments.name, LabelledReport()
        if not name.strip():
            raise K2DError("mix: --name is empty; give the name of the source")
        if SOURCE in chunks.column_names and name in chunks.unique(SOURCE):
            raise K2DError(f"{folder}: there are chunks of {quote(name)} already; give --name another")
        left_out = command.beside(arguments.output, "left_out.jsonl")

        def work(job: Job) -> str:
            return mix(
                chunks,
                {name: (load_labelled(arguments.data, name=name, report=report, **given), report)},
                job,
                left_out=left_out,
            )

        command.perform(arguments, work)


def mix(
    chunks: Dataset,
    sources: Labelled,
    job: Job,
    *,
    left_out: str | Path,
    figures: Path | None = None,
    shares: Mapping[str, float | None] | None = None,
) -> str:
    """The chunks, and after them those of each source; what could not be used goes to the file `left_out`.

    Counts go to the JSON file `figures`, for reports and cards; `shares` are for the line of result.
    """
    from datasets import concatenate_datasets

    write_rows(concatenate_datasets([chunks, *(added for added, _ in sources.values())]), job.output)
    reports = {name: report for name, (_, report) in sources.items()}
    write_lines(
        left_out,
        [{SOURCE: name, **entry} for name, one in reports.items() for entry in [*one.skipped, *one.left_out]],
    )
    if figures is not None:
        write_json(
            figures, {name: {**one.figures(), "share": (shares or {}).get(name)} for name, one in reports.items()}
        )
    added = math.fsum(report.seconds for report in reports.values())
    parts = [_described(name, report, (shares or {}).get(name)) for name, report in reports.items()]
    lost = sum(len(report.skipped) + len(report.left_out) for report in reports.values())
    details = f" ({lost} left out, see {left_out})" if lost else ""
    return f"{minutes(added)} with texts beside {counted(len(chunks), 'chunk')}: {'; '.join(parts)}{details}"


def _described(name: str, report: LabelledReport, share: float | None) -> str:
    weight = "" if share is None else f", {share:.0%} of an epoch"
    return f"{counted(report.chunks, 'chunk')} of {name}{weight}"
