"""Stage 2: the auxiliary transcribes each chunk too, and those on which both agree are kept."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.pipeline.command import (
    Command,
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
from k2d_hf.pipeline.run_folders import part_of_run
from k2d_hf.pipeline.run_state import RunState, weights_of
from k2d_hf.pipeline.stages.files import shards_of_stage, work_settings
from k2d_hf.pipeline.stages.stage import Stage
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import ProgressLine, minutes
from k2d_hf.validation.settings import ValidateSettings

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from k2d_hf.reporting.chunks import ChunkTable


class Validate(Stage, Command):
    """Chunks to the same chunks with distance and verdict (K2D, stage 2)."""

    name = "validate"
    summary = "Transcribe chunks with the auxiliary and mark those on which both agree."
    output = "validated"
    grows_with_speech = True

    def lacks(self, recipe: Recipe) -> list[str]:
        """As the engine has it."""
        return lacks_of(recipe.validate, "validate.")

    def depends(self, run: RunState) -> list[Any]:
        """Settings, auxiliary, and the chunks."""
        settings = [work_settings(run.recipe.validate), run.recipe.language]
        return [*settings, weights_of(run.auxiliary.path), run.ran("label")]

    def run(self, run: RunState, progress: ProgressLine) -> str:
        """Write the chunks with distance and verdict."""
        from k2d_hf.data.chunk_files import load_chunks

        return validate(
            load_chunks(run.folder / "chunks"),
            run.auxiliary,
            run.recipe.validate,
            progress,
            language=run.recipe.language,
            output=run.folder / self.output,
            resume=run.resume,
        )

    def seconds(self, plan: Plan, machine: Throughput) -> float | None:
        """Of decoding all chunks."""
        if plan.auxiliary.shape is None or plan.student is None:
            return None
        return decoding_seconds(machine, plan.auxiliary.shape, plan.speech, beam_size=plan.recipe.validate.beam_size)

    def in_and_out(self, folder: Path, chunks: ChunkTable, evaluation: Mapping[str, Any]) -> tuple[str, str]:
        """Chunks before and after, with the reasons of dropping."""
        from k2d_hf.reporting.stage_facts import validation_facts

        return validation_facts(chunks)

    def add_arguments(self, parser: CommandParser) -> None:
        """Chunks, auxiliary and settings."""
        parser.add_argument(
            "chunks", metavar="CHUNKS", help="output of k2d label, a run, or a folder or address of Parquet"
        )
        streaming: dict[str, Any] = {"nargs": "?", "const": "true", "choices": ["true", "false"], "default": "false"}
        text = "CHUNKS read as a stream, none of them held (default: false)"
        parser.add_argument("--streaming", **streaming, metavar="true|false", help=text)
        add_model(parser, "--auxiliary")
        add_folder(parser, "folder of the same chunks with distance and keep", remote=True)
        add_language(parser, "language of chunks that carry none, such as zh")
        add_settings(parser, ValidateSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d validate`."""
        from k2d_hf.data.chunk_files import check_chunks, load_chunks

        settings, language = settings_of(arguments, ValidateSettings, runs_model=True), language_of(arguments)
        output = arguments.output
        check_output(output)
        folder = part_of_run(arguments.chunks, "chunks")
        chunks = load_chunks(folder, streaming=arguments.streaming == "true")
        check_chunks(chunks, folder)
        auxiliary = model_of(arguments.auxiliary)
        perform(
            arguments,
            lambda progress: validate(
                chunks,
                auxiliary,
                settings,
                progress,
                language=language,
                output=output,
                resume=beside(output, "resume"),
            ),
        )


def validate(
    chunks: Dataset | IterableDataset,
    auxiliary: Checkpoint,
    settings: ValidateSettings,
    progress: ProgressLine,
    *,
    language: str | None,
    output: str | Path,
    resume: str | Path,
) -> str:
    """Chunks to the same chunks with distance and verdict in `output`.

    The auxiliary's transcripts are kept in the folder `resume`, shard by shard, for a run that is interrupted or has
    another verdict.

    Raises:
        K2DError: if no chunk is kept; the distances are written all the same.
    """
    from k2d_hf.data.chunk_files import kept_of
    from k2d_hf.files.arrow import write_rows
    from k2d_hf.terminal.progress import length_of
    from k2d_hf.validation.auxiliary import validate_labels
    from k2d_hf.validation.distance import ValidationReport

    report = ValidationReport()
    progress.start(length_of(chunks), "chunks")
    validated = validate_labels(
        chunks,
        [str(auxiliary.path), auxiliary.name],
        language=language,
        shards_dir=shards_of_stage(resume, "validate", auxiliary, settings, language),
        report=report,
        on_progress=progress.advance,
        **vars(settings),
    )
    write_rows(validated, output)
    dropped = ", ".join(f"{count} {reason}" for reason, count in report.dropped.most_common())
    kept, seconds = kept_of(validated)
    if not kept:
        advice = f"look at the column drop_reason in {output}"
        if any(reason.startswith("distance") for reason in report.dropped):
            advice = (
                f"raise validate.threshold (now {settings.threshold:g}), or look at the column distance in {output}"
            )
        raise K2DError(f"every one of {len(validated)} chunks was dropped ({dropped}); {advice}")
    if warning := report.warning():
        progress.console.warn(warning)
    result = f"kept {kept} ({100 * kept / len(validated):.0f}%, {minutes(seconds)})"
    return result + (f"  dropped: {dropped}" if dropped else "")
