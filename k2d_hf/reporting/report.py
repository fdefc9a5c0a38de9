"""The report of a run, from its folder to one file: facts, plots, clips, page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import read_audio
from k2d_hf.data.chunk_audio import read_chunk
from k2d_hf.errors import K2DError
from k2d_hf.files.storage import write_atomic
from k2d_hf.formatting import counted, error_message
from k2d_hf.reporting.clips import Clip, ClipMaker
from k2d_hf.reporting.facts import ChunkFact, RecordingFact
from k2d_hf.reporting.gathering import gather
from k2d_hf.reporting.names import length
from k2d_hf.reporting.page import Clips, Page, render_page
from k2d_hf.reporting.plots import draw_plots
from k2d_hf.reporting.stage_facts import ReportedStage
from k2d_hf.reporting.student import student_of, student_transcripts

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
        on_start: called with the number of transcripts and clips to come.
        on_progress: called with the number of them done.

    Raises:
        K2DError: if `directory` is no run, or the references cannot be used.
    """
    directory = Path(directory)
    path = Path(output) if output is not None else directory / "report.html"
    facts = gather(directory, references, stages=stages)
    notes = [facts.no_references] if facts.no_references else []
    trained = student_of(directory) if student else None
    chunks = [*facts.worst, *facts.sample]
    if on_start:
        on_start(len(chunks) * (2 if trained else 1) + len(facts.recordings))
    if trained:
        try:
            chunks = student_transcripts(
                chunks, trained, language=facts.language, resume=directory / "resume", on_progress=on_progress
            )
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

    def each(items: Sequence[Any], make: Callable[[Any, ClipMaker], Clip]) -> list[Clip]:
        clips = []
        for item in items:
            clips.append(make(item, maker))
            if on_progress:
                on_progress(1)
        return clips

    clips = Clips(each(facts.worst, _chunk), each(facts.sample, _chunk), each(facts.recordings, _recording))
    if maker.left_out:
        notes.append(
            f"{counted(maker.left_out, 'player')} left out: the page would grow beyond {megabytes:g} MB; "
            "--megabytes gives it more room"
        )
    content = render_page(replace(page, clips=clips)).encode(errors="replace")
    write_atomic(path, content)
    return WrittenReport(path, len(content), maker.made, notes, facts.calibration)


def _chunk(chunk: ChunkFact, maker: ClipMaker) -> Clip:
    return maker.clip(partial(read_chunk, chunk.source), chunk.duration)


def _recording(recording: RecordingFact, maker: ClipMaker) -> Clip:
    from k2d_hf.audio.reader import AudioError, audio_duration, span_within

    start, duration = recording.span
    try:
        seconds = span_within(recording.path, start, duration, audio_duration(recording.path))
    except AudioError as error:
        return Clip(None, f"the audio is not available: {error.reason}")
    note = None
    if seconds > LONGEST_CLIP:
        note = f"the first {length(LONGEST_CLIP)} of {length(seconds)}"
    shown = min(seconds, LONGEST_CLIP)
    return maker.clip(partial(read_audio, recording.path, start, shown), shown, note=note)
