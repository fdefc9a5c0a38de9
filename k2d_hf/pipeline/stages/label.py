"""Stage 1: the teacher transcribes recordings, and its segments are packed into chunks of at most 30 s."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.recordings import load_recordings
from k2d_hf.data.settings import DataSettings
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.files.json_files import write_json, write_lines
from k2d_hf.files.resuming import files_key
from k2d_hf.files.settings import given_options
from k2d_hf.formatting import counted
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoding_seconds
from k2d_hf.pipeline.run_state import Job, RunState, shards_of_stage, weights_of, work_settings
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import labelling_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import minutes
from k2d_hf.terminal.progress import length_of

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class Label(Stage, command.Command):
    """Recordings to chunks with pseudo-labels (K2D, stage 1)."""

    name = "label"
    summary = "Transcribe recordings with the teacher and pack them into chunks of 30 s."
    output = "chunks"
    grows_with_speech = True
    runs_model = True

    def depends(self, run: RunState) -> list[Any]:
        """Settings, teacher, and recordings by content."""
        recordings = [list(run.recordings.remove_columns("reference")), files_key(run.recordings["recording"])]
        return [work_settings(run.recipe.label), run.recipe.language, weights_of(run.teacher.path), recordings]

    def run(self, run: RunState, job: Job) -> str:
        """Write chunks, what was skipped, and counts."""
        files = {"skipped": run.folder / "skipped.jsonl", "figures": run.folder / "labelling.json"}
        return label(run.recordings, run.teacher, run.recipe.label, job, **files)

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all recordings."""
        if plan.teacher.shape is None:
            return None
        return decoding_seconds(machine, plan.teacher.shape, plan.speech, beam_size=plan.recipe.label.beam_size)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Recordings read and skipped; chunks, and what reached none."""
        return labelling_facts(folder, chunks)

    def add_arguments(self, parser: CommandParser) -> None:
        """Data, teacher and settings."""
        parser.add_argument("data", metavar="DATA", help="folder of audio, manifest (JSONL, CSV), data set or Hub id")
        command.add_model(parser, "--teacher")
        command.add_folder(parser, "folder of the chunks, for datasets.load_from_disk(DIR)", remote=True)
        command.add_language(parser, "language, such as zh or Chinese (default: the teacher's guess)")
        command.add_data(parser, DataSettings)
        command.add_settings(parser, LabelSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d label`."""
        settings = command.settings_of(arguments, LabelSettings, runs_model=True)
        assistant = settings.assistant and command.part_of_run(settings.assistant, "student")
        settings = replace(settings, assistant=assistant)
        language = checked_language(arguments.language)
        command.check_output(arguments.output, resumes=True)
        recordings = load_recordings(arguments.data, **given_options(arguments, DataSettings))
        teacher = command.model_of(arguments.teacher)
        skipped = command.beside(arguments.output, "skipped.jsonl")
        command.perform(
            arguments, lambda job: label(recordings, teacher, settings, job, skipped=skipped), language=language
        )


def label(
    recordings: Dataset | IterableDataset,
    teacher: Checkpoint,
    settings: LabelSettings,
    job: Job,
    *,
    skipped: str | Path,
    figures: Path | None = None,
) -> str:
    """Recordings to chunks; what was skipped, left out or passed over goes to the file `skipped`.

    The teacher's transcripts are kept for a run that is interrupted, shard by shard.
    Counts go to the JSON file `figures`, for reports and cards.

    Raises:
        K2DError: if every recording was skipped.
    """
    from k2d_hf.labelling.teacher import LabellingReport, label_recordings

    report = LabellingReport()
    started = time.perf_counter()
    job.progress.start(length_of(recordings), "recordings")
    try:
        chunks = label_recordings(
            recordings,
            [str(teacher.path), teacher.name],  # by its name where a machine of a cluster has it elsewhere
            language=job.language,
            shards_dir=shards_of_stage(job.resume, "label", teacher, settings, job.language),
            report=report,
            on_progress=job.progress.advance,
            **vars(settings),
        )
    except K2DError as error:
        raise K2DError(f"{error}; see {skipped}" if report.skipped else str(error)) from error
    finally:
        write_lines(skipped, [*report.skipped, *report.left_out, *report.passed_over])
    write_rows(chunks, job.output)
    if figures is not None:
        write_json(figures, {"chunks": len(chunks), **report.figures()})
    took = f"{time.perf_counter() - started:.0f} s"
    details = [took, f"{len(report.skipped)} skipped", f"{minutes(report.seconds_in_chunks)} covered"]
    if report.seconds_without_text:
        details.append(f"{minutes(report.seconds_without_text)} of it without text")
    if report.left_out:
        lost = sum(span["end"] - span["start"] for span in report.left_out)
        details.append(f"{counted(len(report.left_out), 'span')} of {lost:.1f} s left out")
    if report.seconds_passed_over:
        details.append(f"{minutes(report.seconds_passed_over)} passed over")
    if report.skipped or report.left_out or report.passed_over:
        details.append(f"see {skipped}")
    return f"{minutes(report.seconds)} -> {len(chunks)} chunks ({', '.join(details)})"
