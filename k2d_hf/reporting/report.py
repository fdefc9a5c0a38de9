"""The report of a run, from its folder to one file: facts, plots, clips, page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.audio.reader import read_audio
from k2d_hf.data.chunk_audio import read_chunk
from k2d_hf.errors import K2DError
from k2d_hf.files.resuming import key_of, unfinished
from k2d_hf.files.storage import write_atomic
from k2d_hf.formatting import counted, error_message
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.reporting.clips import NO_ROOM, Clip, ClipMaker
from k2d_hf.reporting.facts import ChunkFact, RecordingFact, length
from k2d_hf.reporting.gathering import gather
from k2d_hf.reporting.page import Page, render_page
from k2d_hf.reporting.plots import draw_plots
from k2d_hf.reporting.stage_facts import ReportedStage

if TYPE_CHECKING:
    from k2d_hf.validation.calibration_report import Calibration

MEGABYTES = 25.0
LONGEST_CLIP = 300.0  # s, of a recording of the evaluation; a lecture would take the room of all others


@dataclass(frozen=True)
class WrittenReport:
    """Path and size of a report, its clips, notes on what is not in it, and its calibration."""

    path: Path
    bytes: int
    clips: int
    notes: Sequence[str]
    calibration: Calibration | None = None


def write_report(
    directory: str | Path,
    *,
    stages: Iterable[ReportedStage],
    references: str | Path | None = None,
    output: str | Path | None = None,
    megabytes: float = MEGABYTES,
    student: bool = True,
    on_start: Callable[[int], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> WrittenReport:
    """Write the report of a run: one HTML file that opens from disk and needs no network.

    Args:
        directory: of the run, finished or not.
        stages: of the method, in order; what the table of stages lists.
        references: JSONL manifest with `audio` and `segments` of its recordings; shown, and used for the recall of
            bad labels. Those of the run's recipe if None, as far as they can still be read.
        output: the file; `report.html` in the run if None.
        megabytes: the page grows no larger, as long as its text alone is not; clips that have no room are left out.
        student: whether the run's student, where there is one, transcribes the chunks that are shown, once: the
            transcripts stay in the run's folder `resume`.
        on_start: called with the number of transcripts and clips to come, `on_progress` with that of those done.

    Raises:
        K2DError: if `directory` is no run, or the references cannot be used.
    """
    directory = Path(directory)
    path = Path(output) if output is not None else directory / "report.html"
    advance = on_progress or (lambda count: None)
    facts = gather(directory, references, stages=stages)
    notes = [facts.no_references] if facts.no_references else []
    trained = student and any((directory / "student").glob("model*.safetensors"))
    chunks = [*facts.worst, *facts.sample]
    if on_start:
        on_start(len(chunks) * (2 if trained else 1) + len(facts.recordings))
    if trained and chunks:
        try:
            chunks = _student_transcripts(chunks, directory, facts.language, advance)
        except (K2DError, OSError, ValueError) as error:  # damaged weights, a disk that is full or not to be written
            notes.append(f"no transcripts of the student: {error_message(error)}")
        facts = replace(facts, worst=chunks[: len(facts.worst)], sample=chunks[len(facts.worst) :])
    try:
        plots = draw_plots(facts)
    except K2DError as error:
        plots = {}
        notes.append(str(error))
    page = Page(facts, plots, notes=notes, made=time.strftime("%Y-%m-%d %H:%M"))
    room = int(1e6 * megabytes) - len(render_page(page).encode()) - 1000  # for notes on the clips
    maker = ClipMaker(room)
    clips = []
    for clip in chain(map(_chunk, chunks, repeat(maker)), map(_recording, facts.recordings, repeat(maker))):
        clips.append(clip)
        advance(1)
    if left_out := clips.count(NO_ROOM):
        notes.append(
            f"{counted(left_out, 'player')} left out: the page would grow beyond {megabytes:g} MB; "
            "--megabytes gives it more room"
        )
    content = render_page(replace(page, clips=clips)).encode(errors="replace")
    write_atomic(path, content)
    made = sum(clip.address is not None for clip in clips)
    return WrittenReport(path, len(content), made, notes, facts.calibration)


def _student_transcripts(
    chunks: Sequence[ChunkFact], directory: Path, language: str | None, on_progress: Callable[[int], None]
) -> list[ChunkFact]:
    """The same chunks with transcripts of the run's student, greedy and each from scratch, as the auxiliary's are.

    One whose audio cannot be read keeps None. The next report of the same student makes none of them again.
    """
    from datasets import Dataset

    from k2d_hf.validation.auxiliary import validate_labels

    student = directory / "student"
    rows = validate_labels(
        Dataset.from_list([{**chunk.source, "text": chunk.text} for chunk in chunks]),
        str(student),
        metric="full",
        language=language,
        shards_dir=unfinished(directory / "resume", "report", key_of(checkpoint_fingerprint(student), language)),
        on_progress=lambda count, *_: on_progress(count),
    )
    return [replace(chunk, student_text=text) for chunk, text in zip(chunks, rows["auxiliary_text"], strict=True)]


def _chunk(chunk: ChunkFact, maker: ClipMaker) -> Clip:
    return maker.clip(partial(read_chunk, chunk.source), chunk.duration)


def _recording(recording: RecordingFact, maker: ClipMaker) -> Clip:
    from k2d_hf.audio.reader import AudioError, audio_duration, span_within

    start, duration = recording.span
    try:
        seconds = span_within(recording.path, start, duration, audio_duration(recording.path, recording.selection))
    except AudioError as error:
        return Clip(None, f"the audio is not available: {error.reason}")
    shown = min(seconds, LONGEST_CLIP)
    note = f"the first {length(shown)} of {length(seconds)}" if shown < seconds else None
    read = partial(read_audio, recording.path, start, shown, selection=recording.selection)
    return maker.clip(read, shown, note=note)
