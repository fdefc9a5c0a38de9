"""Stage 2: the auxiliary transcribes each chunk too, and those on which both agree are kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.chunk_files import check_chunks, kept_of, load_chunks
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.models.languages import checked_language
from k2d_hf.pipeline import command
from k2d_hf.pipeline.planning.plan import Plan
from k2d_hf.pipeline.planning.throughput import Throughput, decoding_seconds
from k2d_hf.pipeline.preflight import check_auxiliaries
from k2d_hf.pipeline.run_state import Job, RunState, shards_of_stage, weights_of, work_settings
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.reporting.chunks import ChunkTable
from k2d_hf.reporting.stage_facts import validation_facts
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import minutes
from k2d_hf.terminal.progress import length_of
from k2d_hf.validation.distance import ValidationReport
from k2d_hf.validation.settings import ValidateSettings

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset


class Validate(Stage, command.Command):
    """Chunks to the same chunks with distance and verdict (K2D, stage 2)."""

    name = "validate"
    summary = "Transcribe chunks with the auxiliary and mark those on which both agree."
    output = "validated"
    grows_with_speech = True
    runs_model = True

    def depends(self, run: RunState) -> list[Any]:
        """Settings, auxiliaries, and the chunks."""
        settings = [work_settings(run.recipe.validate), run.recipe.language]
        return [*settings, *(weights_of(one.path) for one in run.auxiliaries), run.ran("label")]

    def run(self, run: RunState, job: Job) -> str:
        """Write the chunks with distance and verdict."""
        chunks = load_chunks(run.folder / "chunks")
        return validate(chunks, run.auxiliaries, run.recipe.validate, job)

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all chunks by each auxiliary."""
        shapes = [model.shape for model in (plan.auxiliary, *plan.more_auxiliaries)]
        if None in shapes or plan.student is None:
            return None
        beams = plan.recipe.validate.beam_size
        return sum(decoding_seconds(machine, shape, plan.speech, beam_size=beams) for shape in shapes if shape)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Chunks before and after, with the reasons of dropping."""
        return validation_facts(chunks)

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, auxiliary and settings."""
        chunks = "output of k2d label, a run, or a folder or address of Parquet"
        parser.add_argument("chunks", metavar="CHUNKS", help=chunks)
        streaming: dict[str, Any] = {"nargs": "?", "const": "true", "choices": ["true", "false"], "default": "false"}
        text = "CHUNKS read as a stream, none of them held (default: false)"
        parser.add_argument("--streaming", **streaming, metavar="true|false", help=text)
        command.add_model(parser, "--auxiliary")
        more = "another auxiliary, which judges each label too (see --auxiliaries-by); repeatable, each is one more"
        parser.add_argument("--more-auxiliaries", action="append", default=[], metavar="MODEL", help=more)
        command.add_folder(parser, "folder of the same chunks with distance and keep", remote=True)
        command.add_language(parser, "language of chunks that carry none, such as zh")
        command.add_settings(parser, ValidateSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d validate`."""
        settings = command.settings_of(arguments, ValidateSettings, runs_model=True)
        language = checked_language(arguments.language)
        command.check_output(arguments.output, resumes=True)
        folder = command.part_of_run(arguments.chunks, "chunks")
        chunks = load_chunks(folder, streaming=arguments.streaming == "true")
        check_chunks(chunks, folder)
        named = [arguments.auxiliary, *([one] for one in arguments.more_auxiliaries)]
        auxiliaries = [command.model_of(sources) for sources in named]
        check_auxiliaries(auxiliaries)
        command.perform(arguments, lambda job: validate(chunks, auxiliaries, settings, job), language=language)


def validate(
    chunks: Dataset | IterableDataset, auxiliaries: Sequence[Checkpoint], settings: ValidateSettings, job: Job
) -> str:
    """Chunks to the same chunks with distance and verdict.

    The auxiliaries' transcripts are kept, shard by shard, for a run that is interrupted or has another verdict.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.validation.auxiliary import validate_labels

    report = ValidationReport()
    length = length_of(chunks)
    job.progress.start(None if length is None else length * len(auxiliaries), "chunks")
    sources = [[str(one.path), one.name] for one in auxiliaries]
    validated = validate_labels(
        chunks,
        sources[0],
        more_auxiliaries=sources[1:],
        language=job.language,
        shards_dir=[shards_of_stage(job.resume, "validate", one, settings, job.language) for one in auxiliaries],
        report=report,
        on_progress=job.progress.advance,
        **vars(settings),
    )
    write_rows(validated, job.output)
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.most_common())
    kept, seconds = kept_of(validated)
    if not kept:
        column, first = "drop_reason", ""
        if any(reason.startswith("distance") for reason in report.dropped):
            column, first = "distance", f"raise validate.threshold (now {settings.threshold:g}), or "
        advice = f"{first}look at the column {column} in {job.output}"
        raise K2DError(f"every one of {len(validated)} chunks was dropped ({dropped}); {advice}")
    for warning in report.warnings():
        job.progress.console.warn(warning)
    result = f"kept {kept} ({100 * kept / len(validated):.0f}%, {minutes(seconds)})"
    if report.whole_seconds is not None:
        share = f"{100 * seconds / report.seconds:.0f}% of the speech, {minutes(seconds)}"
        result = f"kept {kept} of {len(validated)} ({share}; whole chunks: {minutes(report.whole_seconds)})"
    masked = ", ".join(f"{count} {reason}" for reason, count in report.masked.most_common())
    result += f"  masked: {minutes(report.masked_seconds)} of segments, {masked}" if masked else ""
    return result + (f"  dropped: {dropped}" if dropped else "")
