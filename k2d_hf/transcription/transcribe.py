"""Recordings to files of text and subtitles with any Whisper: what a student is made for, after the method.

It is the worker of labelling with other results: engines, reading ahead, time limits and failures are its own.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import AudioError, Reading, audio_duration, read_recording
from k2d_hf.audio.selection import Selection, warnings_of
from k2d_hf.data.audio_folders import audio_rows
from k2d_hf.data.chunking import Segment
from k2d_hf.errors import K2DError
from k2d_hf.files.folders import check_writable
from k2d_hf.files.json_files import read_json
from k2d_hf.files.keywords import takes
from k2d_hf.files.paths import folder_of, joined, name_of
from k2d_hf.files.shards import NO_SPEECH, Failure, NoFolder, Shard
from k2d_hf.files.storage import exists, is_address, is_folder, write_atomic
from k2d_hf.formatting import counted, os_error_reason, quote
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.languages import language_of_generation
from k2d_hf.models.shapes import shape_of_config
from k2d_hf.terminal.progress import progress_bar
from k2d_hf.transcription.engines import OnDemand, engine_named
from k2d_hf.transcription.settings import TranscribeSettings
from k2d_hf.transcription.transcribers import OneByOne, Transcriber
from k2d_hf.transcription.transcript_files import FORMATS, Transcription, check_formats
from k2d_hf.transcription.worker import Work, Worker

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

READ_AHEAD = 2  # recordings that are decoded while others are transcribed

Source = str | os.PathLike[str]


@dataclass
class Transcriptions:
    """What became of some recordings: transcripts in their order, those that failed, and how fast it went."""

    transcripts: list[Transcription] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)  # recording, reason and detail of each
    passed_over: list[str] = field(default_factory=list)  # recordings whose files were there already
    several_tracks: list[str] = field(default_factory=list)  # recordings of which none of their tracks was named
    out_of_phase: list[str] = field(default_factory=list)  # recordings of whose channels the mean is next to nothing
    seconds: float = 0.0  # of audio that was transcribed
    work_seconds: float = 0.0  # from the loaded model to the last file

    @property
    def speed(self) -> float:
        """Seconds of audio a second of work: how many times faster than real time; 0 where nothing was done."""
        return self.seconds / self.work_seconds if self.work_seconds else 0.0


@dataclass(frozen=True)
class Planned:
    """A recording to transcribe, and the files that its transcript goes to, by format."""

    name: str  # path or address
    files: dict[str, str]
    seconds: float = 0.0  # by its header; 0 where that has none
    repeated: bool = False  # as a shard asks

    @property
    def key(self) -> str:
        """Its name: each comes once."""
        return self.name


@takes(TranscribeSettings)
def transcribe(
    recordings: Source | Sequence[Source],
    model: str | Path | Sequence[str] | Transcriber,
    *,
    output: Source | None = None,
    language: str | None = None,
    overwrite: bool = False,
    on_progress: Callable[..., None] | None = None,
    settings: TranscribeSettings,
) -> Transcriptions:
    """Transcribe recordings of any length with any Whisper, and write the transcripts in the formats that are given.

    Files are called as the recording, `lecture.srt` of `lecture.flac`, and written whole or not at all, as soon as the
    recording is done. One that is there already is not made again, so that the same call goes on where another stopped.
    A recording that cannot be read or transcribed is named in a warning and stops no other.

    Args:
        recordings: audio files, and folders of them; paths or addresses.
        model: checkpoint (path, Hub id, or several to try in order), or a loaded `Transcriber` with its own options.
        output: folder of the files; None puts them beside the recordings. Below a folder of recordings, its folders
            are kept.
        language: code or name, such as `zh`, of all recordings; None takes the one in the model's generation config,
            as `pipeline` does, and without that, or with `auto`, the model detects it.
        overwrite: whether files that are there are made again.
        on_progress: called with the seconds of audio done; None shows a bar as `datasets.map` does, and hides it
            likewise.

    Returns:
        Transcripts, failures and speed.

    Raises:
        K2DError: for a file that is not there, a format that is unknown, two recordings whose files would have one
            name, a model that is nowhere to be found or no Whisper, and where so many recordings fail in a row that
            it is the engine.
    """
    prepared = prepare(recordings, model, settings, output=output, language=language, overwrite=overwrite)
    if not prepared.todo:
        return prepared.report
    with progress_bar(on_progress, "Transcribe", prepared.seconds, "s") as progress:
        return prepared.run(progress)


def prepare(
    recordings: Source | Sequence[Source],
    model: Any,
    settings: TranscribeSettings,
    *,
    output: Source | None = None,
    language: str | None = None,
    overwrite: bool = False,
) -> Prepared:
    """Everything that can be wrong before a model is loaded; arguments and errors are those of `transcribe`."""
    items = plan_files(recordings, output, settings.format)
    opened, given = _opened(model, language, settings)
    todo, report = _pending(items, settings.selection, overwrite=overwrite)
    return Prepared(todo, report, opened, given, settings)


def _opened(model: Any, language: str | None, settings: TranscribeSettings) -> tuple[OnDemand, str | None]:
    """A model that is a Whisper, and the language given or else of its generation config; K2DError for no Whisper."""
    options = settings.decoding(language)
    if not isinstance(model, (str, Path, Sequence)):
        times_words, engine = isinstance(model, OneByOne), model.engine
    else:
        times_words, engine = engine_named(settings.engine).word_times, engine_named(settings.engine).name
        checkpoint = resolve_checkpoint(model)
        config = read_json(checkpoint.path / "config.json")
        if config.get("model_type") != "whisper" or shape_of_config(config) is None:
            kind = quote(config.get("model_type"))
            raise K2DError(f"model {checkpoint.name}: no Whisper, but {kind} by its config.json; give a Whisper")
        generation = checkpoint.path / "generation_config.json"
        if language is None and generation.is_file():
            options = replace(options, language=language_of_generation(read_json(generation)))
        model = str(checkpoint.path)
    if settings.word_times and not times_words:
        raise K2DError(f"word_times: the engine {engine} has none; set engine to faster-whisper, or leave them out")
    return OnDemand(model, options, engine=settings.engine), options.language


def plan_files(recordings: Source | Sequence[Source], output: Source | None, format: str | None) -> list[Planned]:
    """Each recording once, with the files that its transcript goes to.

    Raises:
        K2DError: for one that is not there, a folder without any, a format that is unknown, a folder that cannot be
            written, and two recordings whose files would have one name.
    """
    formats = check_formats(format) if format else []
    sources = [recordings] if isinstance(recordings, (str, os.PathLike)) else list(recordings)
    if not sources:
        raise K2DError("no recordings: give audio files, or folders of them")
    planned: dict[str, Planned] = {}
    taken: dict[str, str] = {}
    for name, below in _listed(sources):
        if name in planned:
            continue
        folder = folder_of(name) if output is None else joined(os.fspath(output), below) if below else os.fspath(output)
        stem = os.path.splitext(name_of(name))[0]
        planned[name] = Planned(name, {one: joined(folder, f"{stem}.{one}") for one in formats})
        for file in planned[name].files.values():
            if file in taken:
                raise K2DError(
                    f"{file}: the name of two transcripts, of {taken[file]} and of {name}; rename one, or transcribe "
                    "it into another folder"
                )
            taken[file] = name
    for folder in sorted({folder_of(file) or "." for file in taken}):
        check_writable(folder if is_address(folder) else Path(folder))
    return list(planned.values())


def _listed(sources: Iterable[Source]) -> Iterator[tuple[str, str]]:
    """The recordings of files and folders, each with its folder below the one that was given."""
    for given in sources:
        source = os.fspath(given)
        if is_folder(source):
            folder, found = source.rstrip("/") or "/", 0
            for row in audio_rows(folder):
                found += 1
                yield row.recording, folder_of(row.recording)[len(folder) :].strip("/")
            if not found:
                raise K2DError(f"{source}: no recordings below it; give a folder with audio files")
        elif exists(source):
            yield source, ""
        else:
            raise K2DError(f"{source}: no such file or folder; give audio files, or folders of them")


def _pending(
    items: Sequence[Planned], selection: Selection, *, overwrite: bool
) -> tuple[list[Planned], Transcriptions]:
    """The recordings that lack a file, with their seconds and these files alone; the others are noted."""
    report, todo = Transcriptions(), []
    for item in items:
        missing = {one: file for one, file in item.files.items() if overwrite or not exists(file)}
        if item.files and not missing:
            report.passed_over.append(item.name)
            continue
        try:
            seconds = audio_duration(item.name, selection)
        except AudioError:  # which it will be again when it is read
            seconds = 0.0
        todo.append(replace(item, files=missing, seconds=seconds))
    return todo, report


class _Progress:
    """Seconds of audio done, as whole numbers, of several recordings at once."""

    def __init__(self, advance: Callable[..., None]) -> None:
        self._advance = advance
        self._lock = threading.Lock()
        self._done: dict[str, float] = {}
        self._whole = 0.0
        self._shown = 0

    def reach(self, item: Planned, seconds: float) -> None:
        """Of this recording so many seconds are done."""
        with self._lock:
            before = self._done.get(item.name, 0.0)
            self._done[item.name] = max(before, min(seconds, item.seconds))
            self._whole += self._done[item.name] - before
            if count := round(self._whole) - self._shown:
                self._shown += count
                self._advance(count)

    def reach_end(self, item: Planned, segment: Segment) -> None:
        """Of this recording all is done up to the end of a segment."""
        self.reach(item, segment.end)


@dataclass
class Prepared:
    """Recordings that are ready to be transcribed, and a model that loads when it is first needed."""

    todo: list[Planned]
    report: Transcriptions
    model: OnDemand
    language: str | None  # of all recordings; None is that of a loaded model's options, or its guess
    settings: TranscribeSettings

    @property
    def seconds(self) -> int:
        """Seconds of audio to do."""
        return round(sum(item.seconds for item in self.todo))

    def run(self, advance: Callable[..., None]) -> Transcriptions:
        """Transcribe, write files as soon as each recording is done, and note what became of it.

        `advance` is called with the seconds of audio done since.
        """
        if not self.todo:
            return self.report
        progress, settings, report = _Progress(advance), self.settings, self.report
        step = partial(_step, progress, self.language, word_times=settings.word_times)
        size = settings.batch_size if self.model.batches_recordings else 1
        work = Work(
            partial(_read, settings.selection), step, None, size, READ_AHEAD if size == 1 else 1, settings.time_limit
        )
        shards = [Shard(at // size, tuple(self.todo[at : at + size])) for at in range(0, len(self.todo), size)]
        self.model.load(calls_at_once=len(shards))
        began = time.perf_counter()
        done: dict[str, Transcription] = {}
        with closing(Worker(work, self.model, NoFolder()).finish(shards, at_most=len(shards))) as finished:
            for shard, values in finished:
                for item in shard.items:
                    row = values[item.key]
                    if row["reason"] not in (None, NO_SPEECH):
                        _note_failure(report, item, row["reason"], row["detail"])
                    elif (written := _written(_transcription(item, row), item, settings, report)) is not None:
                        done[item.name] = written
                    progress.reach(item, item.seconds)
                    report.several_tracks += [item.name] * (row.get("tracks", 1) > 1 and settings.track is None)
                    report.out_of_phase += [item.name] * row.get("cancels", False)
        report.work_seconds = time.perf_counter() - began
        for line in warnings_of(report.several_tracks, report.out_of_phase):
            logger.warning("%s", line)
        report.transcripts = [done[item.name] for item in self.todo if item.name in done]
        report.seconds = sum(one.seconds for one in report.transcripts)
        return report


def _read(selection: Selection, item: Planned) -> Reading | Failure:
    reading = read_recording(item.name, selection=selection)
    return reading if reading.samples.any() else Failure(NO_SPEECH, "silence from start to end", item.seconds)


def _step(
    progress: _Progress,
    language: str | None,
    model: Transcriber,
    items: Sequence[Planned],
    audio: Sequence[np.ndarray],
    *,
    word_times: bool,
) -> list[dict[str, Any]]:
    """What a call gives of each recording."""
    if isinstance(model, OneByOne):
        transcripts = [
            model.transcribe_one(samples, language, word_times=word_times, on_segment=partial(progress.reach_end, item))
            for item, samples in zip(items, audio, strict=True)
        ]
    else:
        transcripts = model.transcribe(audio, [language] * len(audio))
    return [{"language": one.language, "segments": one.segments, "words": one.words} for one in transcripts]


def _transcription(item: Planned, row: dict[str, Any]) -> Transcription:
    """A transcript with its times within the recording, where silence follows the end of the last window."""
    seconds = row["seconds"]
    segments = [
        Segment(min(max(one.start, 0.0), seconds), min(max(one.end, 0.0), seconds), one.text)
        for one in row.get("segments") or ()
    ]
    return Transcription(item.name, seconds, row.get("language"), segments, row.get("words"))


def _written(
    transcription: Transcription, item: Planned, settings: TranscribeSettings, report: Transcriptions
) -> Transcription | None:
    """The transcript, once its files are there; None where they cannot be written, which is noted."""
    try:
        for name, file in item.files.items():
            write_atomic(file, FORMATS[name](transcription, settings).encode(errors="replace"))
    except OSError as error:
        _note_failure(report, item, "not written", f"{item.name}: {os_error_reason(error)}")
        return None
    return replace(transcription, files=tuple(item.files.values()))


def _note_failure(report: Transcriptions, item: Planned, reason: str, detail: str) -> None:
    detail = detail if item.name in detail else f"{item.name}: {reason} ({detail})"
    report.failed.append({"recording": item.name, "reason": reason, "detail": detail})
    logger.warning("%s", detail)


def failure_line(report: Transcriptions) -> str:
    """How many recordings failed, and why: `failed on 2 of 5 recordings: 1 not audio, 1 truncated`."""
    whole = len(report.transcripts) + len(report.failed) + len(report.passed_over)
    counts = Counter(one["reason"] for one in report.failed).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    return f"failed on {len(report.failed)} of {counted(whole, 'recording')}: {reasons}"
