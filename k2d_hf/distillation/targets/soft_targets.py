"""Soft targets as a map step: a batch of chunks in, the same with the teacher's targets out (K2D, stage 3, its KL)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.map_step import MapStep, batch_of
from k2d_hf.data.utterances import chunk_names
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.batches.rows import check_windows
from k2d_hf.distillation.batches.target_columns import is_target
from k2d_hf.distillation.models import find_processor
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.distillation.targets.settings import TargetsSettings
from k2d_hf.distillation.targets.writer import TargetWriter, check_temperature
from k2d_hf.files.keywords import takes
from k2d_hf.models.languages import checked_language
from k2d_hf.models.sources import load_whisper, model_fingerprint
from k2d_hf.transcription.settings import SHARD_BY_SHARD

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration


class SoftTargets(MapStep):
    """Map step: chunks to the same chunks with soft targets, the rows of `add_soft_targets` (K2D, stage 3).

    For `Dataset.map(batched=True)`, `IterableDataset.map`, and Ray's `map_batches`. It pays where training sees a chunk
    more than once. A row in is a chunk, or a labelled utterance as a data set of the Hub has it. No row is left out:
    one that training would leave out, with `keep` false or a label that is too long, has no targets.

    The models are loaded by the first call in a process. With `with_rank=True` each has the GPU of its rank.

    Args:
        teacher: checkpoint (path or Hub id), whose processor makes the labels; a loaded model stays in its process.
        auxiliary: likewise, where the loss has its KL too; its targets are of kind `top`.
        temperature: of the loss (T), which targets of kind `top` are bound to.
        language: of chunks that carry none; this and the four that follow as in the training to come.
        task: Whisper's task.
        timestamp_probability: how often a label carries timestamps; targets are stored of what can be drawn.
        previous_text_probability: how often a chunk is given the text before as prompt, likewise.
        full_windows: whether the input, with timestamps, is the full window from the chunk's start.

    Raises:
        K2DError: for a wrong setting, or models that do not fit each other.
    """

    @takes(TargetsSettings, without=SHARD_BY_SHARD)
    def __init__(
        self,
        teacher: str | Path | WhisperForConditionalGeneration,
        *,
        auxiliary: str | Path | WhisperForConditionalGeneration | None = None,
        temperature: float = DistillationSettings.temperature,
        language: str | None = None,
        task: str = DistillationSettings.task,
        timestamp_probability: float = DistillationSettings.timestamp_probability,
        previous_text_probability: float = DistillationSettings.previous_text_probability,
        full_windows: bool = DistillationSettings.full_windows,
        settings: TargetsSettings,
    ) -> None:
        check_temperature(temperature)
        self._labels: dict[str, Any] = {
            "language": checked_language(language), "task": task, "timestamp_probability": timestamp_probability,
            "previous_text_probability": previous_text_probability, "full_windows": full_windows,
        }  # fmt: skip
        self._models = teacher, auxiliary
        self._temperature = temperature
        self._writer: TargetWriter | None = None
        super().__init__(settings, teacher=teacher, auxiliary=auxiliary, temperature=temperature, **self._labels)

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        """The chunks of a batch, given as columns by name, with their targets, in the form in which the batch came."""
        self.ready(rank)
        assert self._writer is not None
        given = batch_of(batch)
        given = given.renamed(chunk_names(list(given.columns), given.features))
        old = [name for name in given.columns if is_target(name)]
        check_windows(list(given.columns), self._writer.collator, what="chunks")
        chunks = [{name: row[name] for name in row if name not in old} for row in given.rows()]
        return given.extended(self._writer.columns(chunks), self._writer.features(), without=old)

    def identities(self) -> list[str | None]:
        """The fingerprints of the checkpoints."""
        return [model_fingerprint(model) for model in self._models if model is not None]

    def load(self, device: str) -> None:
        """Load the models onto the device."""
        teacher, auxiliary = self._models
        model: Any = load_whisper(teacher) if isinstance(teacher, (str, Path)) else teacher
        positions = model.config.max_target_positions
        collator = K2DDataCollator(find_processor(teacher), max_tokens=positions, **self._labels)
        settings = replace(self.settings, device=device)
        self._writer = TargetWriter(model, collator, settings, auxiliary=auxiliary, temperature=self._temperature)

    def unload(self) -> None:
        """Forget the models."""
        self._writer = None
