"""`k2d transcribe`: recordings to text and subtitles with a student, or any other Whisper."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from k2d_hf.errors import K2DError
from k2d_hf.formatting import counted
from k2d_hf.pipeline.command import (
    Command,
    add_language,
    add_model,
    add_settings,
    part_of_run,
    perform,
    place,
    settings_of,
)
from k2d_hf.pipeline.run_state import Job
from k2d_hf.terminal.command_parser import CommandParser
from k2d_hf.terminal.console import minutes
from k2d_hf.transcription.settings import TranscribeSettings

if TYPE_CHECKING:
    from k2d_hf.transcription.transcribe import Transcriptions

FORMATS = "txt,srt"  # by default


class Transcribe(Command):
    """Recordings to text and subtitles."""

    name = "transcribe"
    summary = "Transcribe recordings of any length with a student, or any other Whisper, into text and subtitles."

    def add_arguments(self, parser: CommandParser) -> None:
        """Recordings, model, where the files go, and settings."""
        files = "audio files, and folders of them"
        parser.add_argument("recordings", nargs="+", type=place, metavar="FILE", help=files)
        add_model(parser, "--model", help="run (its student), ")
        output = "folder of the transcripts (default: beside the recordings)"
        parser.add_argument("--output", type=place, metavar="DIR", help=output)
        add_language(parser, "language, such as zh or Chinese (default: the model's own; auto: its guess for each)")
        overwrite = "transcribe again where a transcript is there already"
        parser.add_argument("--overwrite", action="store_true", help=overwrite)
        add_settings(parser, TranscribeSettings)

    def execute(self, arguments: argparse.Namespace) -> None:
        """`k2d transcribe`."""
        settings = settings_of(arguments, TranscribeSettings, runs_model=True)
        assistant = settings.assistant and part_of_run(settings.assistant, "student")
        settings = replace(settings, format=settings.format or FORMATS, assistant=assistant)
        from k2d_hf.transcription.transcribe import failure_line, prepare

        prepared = prepare(
            arguments.recordings,
            [part_of_run(source, "student") for source in arguments.model],
            settings,
            output=arguments.output,
            language=arguments.language,
            overwrite=arguments.overwrite,
        )

        def work(job: Job) -> str:
            if prepared.todo:
                job.progress.start(prepared.seconds, "s")
            return result_line(prepared.run(job.progress.advance))

        perform(arguments, work, lock=False)
        if prepared.report.failed:
            raise K2DError(failure_line(prepared.report))


def result_line(report: Transcriptions) -> str:
    """What came of it: `2 recordings, 16.4 min of audio in 1.3 min: 12.4 times faster than real time, ...`."""
    parts = []
    if report.transcripts:
        speed = f"{report.speed:.1f} times as fast as real time"
        files = counted(sum(len(one.files) for one in report.transcripts), "file")
        parts.append(f"{minutes(report.seconds)} of audio in {minutes(report.work_seconds)}, {speed} -> {files}")
    if report.failed:
        parts.append(f"{len(report.failed)} failed")
    if report.passed_over:
        parts.append(f"{len(report.passed_over)} passed over, as transcribed already (--overwrite does them again)")
    return f"{counted(len(report.transcripts), 'recording')}  {', '.join(parts)}".rstrip()
