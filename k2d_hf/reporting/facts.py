"""The facts of a report, before any of it is drawn or written: plain data, not escaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

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


@dataclass(frozen=True)
class RecordingFact:
    """A recording of the evaluation: its reference, and the transcripts of the models."""

    recording: str
    path: str
    reference: str
    transcripts: dict[str, str]  # by model
    errors: dict[str, ErrorCounts]  # likewise
    span: tuple[float, float | None] = (0.0, None)  # s, of the file at `path`: start and duration, by default all of it


@dataclass(frozen=True)
class RunFacts:
    """The facts of a report; unknown ones are empty or None.

    Attributes:
        name: of the recipe.
        directory: of the run, as it was given.
        announced: the line with which the run began: recordings, teacher, auxiliary.
        language: code, where the recipe has one.
        metric: distance of validation.
        threshold: alpha.
        demands: of the judges beyond the distance, a phrase each.
        stages: in order.
        shares: kept chunks first, then those dropped, by reason.
        distances: of all chunks [chunks].
        worst: chunks of the largest distance, that first.
        sample: some kept chunks, drawn at random, in their order.
        no_references: why those that the recipe names are not used, where they are not.
        calibration: curves over alpha; where it is None, `no_calibration` has the reason.
        training_log: of the Trainer.
        evaluation: figures by model, as in `evaluation.json`.
        intervals: of the MER by model, lower and upper end; where empty, `no_intervals` has the reason.
        recordings: of the evaluation, those with the most errors of the student first.
        recordings_left_out: how many more there are.
    """

    name: str
    directory: str
    announced: str | None = None
    language: str | None = None
    metric: str | None = None
    threshold: float | None = None
    demands: list[str] = field(default_factory=list)
    stages: list[StageFact] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    distances: np.ndarray = field(default_factory=lambda: np.zeros(0))
    worst: list[ChunkFact] = field(default_factory=list)
    sample: list[ChunkFact] = field(default_factory=list)
    no_references: str | None = None
    calibration: Calibration | None = None
    no_calibration: str | None = None
    training_log: list[dict[str, Any]] = field(default_factory=list)
    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    no_intervals: str | None = None
    recordings: list[RecordingFact] = field(default_factory=list)
    recordings_left_out: int = 0
