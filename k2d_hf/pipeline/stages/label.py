"""Stage 1: the teacher transcribes recordings, and its segments are packed into chunks of at most 30 s."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.settings import DataSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key
from k2d_hf.files.settings import given_options
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.pipeline.command import (
    Command,
    add_data,
    add_folder,
    add_language,
    add_model,
    add_settings,
    beside,
    check_output,
    language_of,
    model_of,
    perform,
    settings_of,
)
from k2d_hf.pipeline.machine import lacks_of
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoding_seconds
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.pipeline.run_state import RunState, weights_of
from k2d_hf.pipeline.stages.files import shards_of_stage, work_settings
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import ProgressLine, minutes

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from k2d_hf.reporting.chunks import ChunkTable


class Label(Stage, Command):
    """Recordings to chunks with pseudo-labels (K2D, stage 1)."""

    name = "label"
    summary = "Transcribe recordings with the teacher and pack them into chunks of 30 s."
    output = "chunks"
    grows_with_speech = True

    def lacks(self, recipe: Recipe) -> list[str]:
        """As the engine has it."""
        return lacks_of(recipe.label, "label.")

    def depends(self, run: RunState) -> list[Any]:
        """Settings, teacher, and recordings by content."""
        recordings = [list(run.recordings.remove_columns("reference")), files_key(run.recordings["recording"])]
        return [work_settings(run.recipe.label), run.recipe.language, weights_of(run.teacher.path), recordings]

    def run(self, run: RunState, progress: ProgressLine) -> str:
        """Write chunks, what was skipped, and counts."""
        return label(
            run.recordings,
            run.teacher,
            run.recipe.label,
            progress,
            language=run.recipe.language,
            output=run.folder / self.output,
            resume=run.resume,
            skipped=run.folder / "skipped.jsonl",
            figures=run.folder / "labelling.json",
        )

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all recordings."""
        if plan.teacher.shape is None:
            return None
        return decoding_seconds(machine, plan.teacher.shape, plan.speech, beam_size=plan.recipe.label.beam_size)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Recordings read and skipped; chunks, and what reached none."""
        from k2d_hf.reporting.stage_facts import labelling_facts

        return labelling_facts(folder, chunks)

    def add_arguments(self, parser: CommandParser) -> None:
        """Data, teacher and settings."""
        parser.add_argument("data", metavar="DATA", help="folder of audio, manifest (JSONL, CSV), data set or Hub id")
        add_model(parser, "--teacher")
        add_folder(parser, "folder of the chunks, for datasets.load_from_disk(DIR)", remote=True)
        add_language(parser, "language, such as zh or Chinese (default: the teacher's guess)")
        add_data(parser, DataSettings)
        add_settings(parser, LabelSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d label`."""
        from k2d_hf.data.recordings import load_recordings

        settings, language = settings_of(arguments, LabelSettings, runs_model=True), language_of(arguments)
        output = arguments.output
        check_output(output)
        recordings = load_recordings(arguments.data, **given_options(arguments, DataSettings))
        teacher = model_of(arguments.teacher)
        perform(
            arguments,
            lambda progress: label(
                recordings,
                teacher,
                settings,
                progress,
                language=language,
                output=output,
                resume=beside(output, "resume"),
                skipped=beside(output, "skipped.jsonl"),
            ),
        )


def label(
    recordings: Dataset | IterableDataset,
    teacher: Checkpoint,
    settings: LabelSettings,
    progress: ProgressLine,
    *,
    language: str | None,
    output: str | Path,
    resume: str | Path,
    skipped: str | Path,
    figures: Path | None = None,
) -> str:
    """Recordings to chunks in `output`; what was skipped, left out or passed over goes to the file `skipped`.

    The teacher's transcripts are kept in the folder `resume`, shard by shard, for a run that is interrupted.
    Counts go to the JSON file `figures`, for reports and cards.

    Raises:
        K2DError: if every recording was skipped.
    """
    from k2d_hf.files.arrow import write_rows
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings
    from k2d_hf.terminal.progress import length_of

    report = LabellingReport()
    started = time.perf_counter()
    progress.start(length_of(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            [str(teacher.path), teacher.name],  # by its name where a machine of a cluster has it elsewhere
            language=language,
            shards_dir=shards_of_stage(resume, "label", teacher, settings, language),
            report=report,
            on_progress=progress.advance,
            **vars(settings),
        )
    except K2DError as error:
        raise K2DError(f"{error}; see {skipped}" if report.skipped else str(error)) from error
    finally:
        write_lines(skipped, [*report.skipped, *report.left_out, *report.passed_over])
    write_rows(chunks, output)
    if figures is not None:
        write_json(figures, {"chunks": len(chunks), **report.figures()})
    took = f"{time.perf_counter() - started:.0f} s"
    details = [took, f"{len(report.skipped)} skipped", f"{minutes(report.seconds_in_chunks)} covered"]
    if report.seconds_without_text:
        details.append(f"{minutes(report.seconds_without_text)} of it without text")
    if report.left_out:
        lost = sum(span["end"] - span["start"] for span in report.left_out)
        details.append(f"{len(report.left_out)} spans of {lost:.1f} s left out")
    if report.seconds_passed_over:
        details.append(f"{minutes(report.seconds_passed_over)} passed over")
    if report.skipped or report.left_out or report.passed_over:
        details.append(f"see {skipped}")
    return f"{minutes(report.seconds)} -> {len(chunks)} chunks ({', '.join(details)})"
