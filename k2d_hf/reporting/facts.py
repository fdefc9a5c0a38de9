"""The facts of a report, before any of it is drawn or written: plain data, not escaped; names and lengths in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from k2d_hf.audio.selection import USUAL, Selection
from k2d_hf.data.recording_rows import span_fields
from k2d_hf.terminal.console import minutes

if TYPE_CHECKING:
    from k2d_hf.scoring.error_rates import ErrorCounts
    from k2d_hf.validation.calibration_report import Calibration


@dataclass(frozen=True)
class StageFact:
    """One stage of the run: input, output, how long it took (None where unknown)."""

    name: str
    input: str
    output: str
    seconds: float | None
    line: str  # of result, as the log has it


@dataclass(frozen=True)
class Share:
    """Chunks of one verdict, and their seconds."""

    verdict: str  # `kept`, or the reason of dropping
    chunks: int
    seconds: float


@dataclass(frozen=True)
class ChunkFact:
    """A chunk with its texts. `source` is its row, as `read_chunk` takes it."""

    recording: str
    start: float
    duration: float
    text: str
    auxiliary_text: str | None  # None where the auxiliary gave no transcript
    reference: str | None
    true_mer: float | None  # of the label against its reference, where that is known
    distance: float
    mer: float
    per: float
    keep: bool
    drop_reason: str | None
    teacher_loops: bool
    auxiliary_loops: bool
    source: Mapping[str, Any] = field(repr=False)
    measures: Mapping[str, float] = field(default_factory=dict)  # of the judges beyond the distance, by name
    student_text: str | None = None  # None without a student, or without its transcript
    more_texts: Sequence[str | None] = ()  # of auxiliaries beside the first


@dataclass(frozen=True)
class RecordingFact:
    """A recording of the evaluation: its reference, and the transcripts of the models."""

    recording: str
    path: str
    reference: str
    transcripts: dict[str, str]  # by model
    errors: dict[str, ErrorCounts]  # likewise
    span: tuple[float, float | None] = (0.0, None)  # s, of the file at `path`: start and duration, by default all of it
    selection: Selection = USUAL  # its track and channel


@dataclass(frozen=True)
class SetFacts:
    """A test set: what was measured on it, and some of its recordings."""

    name: str  # empty of a run that has one set without a name
    figures: Mapping[str, Mapping[str, Any]]  # by model, as in `evaluation.json`
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the set's main rate by model
    no_intervals: str | None = None  # why there are none
    recordings: list[RecordingFact] = field(default_factory=list)  # those with the most errors of the student first
    left_out: int = 0  # how many more there are


@dataclass(frozen=True)
class RunFacts:
    """The facts of a report; unknown ones are empty or None."""

    name: str  # of the recipe
    directory: str  # of the run, as it was given
    announced: str | None = None  # the line with which the run began: recordings, teacher, auxiliary
    language: str | None = None  # code, where the recipe has one
    metric: str | None = None  # distance of validation
    threshold: float | None = None  # alpha
    demands: list[str] = field(default_factory=list)  # of the judges beyond the distance, a phrase each
    stages: list[StageFact] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)  # kept chunks first, then those dropped, by reason
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))  # of all chunks
    worst: list[ChunkFact] = field(default_factory=list)  # chunks of the largest distance, that first
    sample: list[ChunkFact] = field(default_factory=list)  # some kept chunks, drawn at random, in their order
    no_references: str | None = None  # why those that the recipe names are not used, where they are not
    calibration: Calibration | None = None  # curves over alpha
    no_calibration: str | None = None  # why there are none
    training_log: list[dict[str, Any]] = field(default_factory=list)  # of the Trainer
    sets: list[SetFacts] = field(default_factory=list)  # of the evaluation

    @property
    def recordings(self) -> list[RecordingFact]:
        """The recordings of all sets that are shown, in the order in which they are."""
        return [recording for one in self.sets for recording in one.recordings]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path without the folders that all of them share."""
    split = {path: path.replace("\\", "/").split("/") for path in paths}
    shared = 0
    for parts in zip(*(parts[:-1] for parts in split.values()), strict=False):
        if len(set(parts)) > 1:
            break
        shared += 1
    return {path: "/".join(parts[shared:]) for path, parts in split.items()}


def clock(seconds: float) -> str:
    """A moment of a recording: `1:05`, `1:02:09`."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def span_label(start: float, duration: float | None) -> str:
    """What follows the name of a recording that is a span of its file: `, 0:08 to 0:20`; nothing of a complete file."""
    if not span_fields(start, duration):
        return ""
    return f", {clock(start)} to " + ("the end" if duration is None else clock(start + duration))


def length(seconds: float) -> str:
    """How long something took or lasts: `49 s`, `5.2 min`, `3.1 h`."""
    if 0 < seconds < 0.5:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return minutes(seconds)
