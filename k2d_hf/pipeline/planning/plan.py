"""The plan of a run, and what follows from it: disk, steps, whether there are soft targets and stored encoder states.

Pure: what is known of models and data comes in, the stages say how long they take (`Stage.seconds`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k2d_hf.distillation.settings import chunks_in_epoch, keeps_teacher
from k2d_hf.models.inspect import ModelInfo
from k2d_hf.models.shapes import WhisperShape
from k2d_hf.pipeline.planning.data_facts import DataFacts
from k2d_hf.pipeline.planning.throughput import LABEL_TOKENS, Throughput
from k2d_hf.pipeline.recipe import Recipe

SUPPOSED_SPEECH = 1000 * 3600.0  # seconds, where there are no recordings to count
FLOAT32, FLOAT16 = 4, 2  # bytes
SHARE_OF_DISK = 0.5  # of what is free, at most, for encoder states


@dataclass(frozen=True)
class PlannedStage:
    """A stage: its line of result if it is up to date, else the seconds that it takes on each machine."""

    name: str
    finished: str | None
    seconds: tuple[float, ...] | None  # None where it takes no time to speak of, or none that can be estimated
    supposed: bool = False  # for a thousand hours of speech, as the recordings are not here


@dataclass(frozen=True)
class Plan:
    """Everything that the dry run shows; None where something is not known."""

    recipe: Recipe
    arguments: Any  # the Trainer's
    recordings: DataFacts
    evaluation: Mapping[str, DataFacts]  # by set
    teacher: ModelInfo
    auxiliary: ModelInfo
    origin: ModelInfo  # whose layers the student has
    student: WhisperShape | None
    chunks: int | None
    kept: int | None
    counted: bool  # and not estimated, as to chunks and kept
    more_auxiliaries: tuple[ModelInfo, ...] = ()
    given: Mapping[str, int] = field(default_factory=dict)  # chunks whose text is known, by source, those that are here
    original: ModelInfo | None = None  # what an adapted teacher was before, which is measured too
    free: float = 0.0
    covered: tuple[float, float] | None = None  # seconds of recordings in chunks, and in all
    machines: tuple[Throughput, ...] = ()
    stages: tuple[PlannedStage, ...] = ()
    lacks: tuple[str, ...] = ()  # what the settings need and this machine does not have
    warnings: tuple[str, ...] = ()  # of what they do

    @property
    def speech(self) -> float:
        """Seconds of recordings, or a supposed amount where these are not here."""
        return SUPPOSED_SPEECH if self.recordings.seconds is None else self.recordings.seconds

    @property
    def batch(self) -> int:
        """Chunks a step."""
        return self.arguments.per_device_train_batch_size * self.arguments.gradient_accumulation_steps

    @property
    def learned(self) -> int | None:
        """Chunks to learn from, those whose text is known among them."""
        return None if self.kept is None else self.kept + sum(self.given.values())

    @property
    def in_epoch(self) -> int | None:
        """Chunks in an epoch, as their sources are mixed."""
        if self.kept is None:
            return None
        counts: dict[Any, int] = {None: self.kept, **self.given}
        return sum(chunks_in_epoch(counts, self.recipe.training.get("shares")).values())

    @property
    def steps(self) -> int | None:
        """Of training."""
        if self.arguments.max_steps > 0:
            return self.arguments.max_steps
        if self.in_epoch is None:
            return None
        return math.ceil(self.arguments.num_train_epochs * math.ceil(self.in_epoch / self.batch))

    @property
    def epochs(self) -> float | None:
        """Of training."""
        if self.arguments.max_steps <= 0:
            return self.arguments.num_train_epochs
        return None if self.in_epoch is None else self.arguments.max_steps * self.batch / self.in_epoch

    @property
    def trained(self) -> int | None:
        """Parameters that are trained; None for adapters."""
        student, arguments = self.student, self.arguments
        if student is None or self.recipe.distil.get("peft"):
            return None
        count = student.decoder_parameters if arguments.freeze_encoder else student.parameters
        return count - (student.vocab_size * student.d_model if arguments.freeze_embeddings else 0)

    @property
    def has_targets(self) -> bool:
        """Whether soft targets will be stored."""
        if self.recipe.targets.enabled is not None:
            return self.recipe.targets.enabled
        has_kl = bool(self.arguments.kl_weight or self.arguments.auxiliary_weight)
        return has_kl and (self.epochs or 0) > 1 and not keeps_teacher(vars(self.arguments))

    @property
    def forms_of_label(self) -> int:
        """In how many forms a label can come: with timestamps or plain, with a prompt or without."""
        timestamps = 2 if 0 < self.arguments.timestamp_probability < 1 else 1
        return timestamps * (2 if self.arguments.previous_text_probability else 1)

    @property
    def shares_encoder(self) -> bool:
        """Whether teacher and student have one frozen encoder."""
        settings = self.recipe.student
        return bool(self.arguments.freeze_encoder) and settings.has_whole_encoder and settings.init is None

    @property
    def encoder_states(self) -> float:
        """Bytes of the encoder states that are kept; 0 where none are."""
        arguments, student = self.arguments, self.student
        wanted = arguments.keep_encoder_states and self.shares_encoder and not arguments.auxiliary_weight
        if not wanted or self.learned is None or student is None or (self.epochs or 0) <= 1:
            return 0.0
        needed = float(self.learned * student.frames * student.d_model * FLOAT16)
        return needed if needed <= SHARE_OF_DISK * self.free else 0.0

    @property
    def disk(self) -> dict[str, float]:
        """Bytes by what they are for."""
        disk: dict[str, float] = {}
        original = () if self.original is None else (self.original,)
        for model in (self.teacher, self.auxiliary, *self.more_auxiliaries, self.origin, *original):
            if model.checkpoint is None and model.shape is not None:
                disk[f"{model.name} (cache)"] = model.shape.parameters * FLOAT32
        if self.student is None:
            return disk
        size = self.student.parameters * FLOAT32
        disk["student, before and after"] = 2.0 * size
        if str(self.arguments.save_strategy) not in ("no", "SaveStrategy.NO"):
            one = size + 2 * FLOAT32 * (self.trained or 0)  # Adam's two moments
            disk["training checkpoints"] = float(one * ((self.arguments.save_total_limit or 2) + 1))
        if self.encoder_states:
            disk["encoder states"] = self.encoder_states
        if self.has_targets and self.learned is not None:
            settings = self.recipe.targets
            position = self.student.d_model * FLOAT16 if settings.kind == "hidden" else settings.k * (FLOAT32 + FLOAT16)
            disk["soft targets"] = float(self.learned * self.forms_of_label * LABEL_TOKENS * position)
        return disk
