"""A map step that transcribes: the worker of labelling and validation, given one batch after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k2d_hf.data.map_step import MapStep
from k2d_hf.errors import K2DError
from k2d_hf.files.shards import NoFolder, Values
from k2d_hf.transcription.engines import OnDemand, on_ray
from k2d_hf.transcription.settings import WorkersSettings
from k2d_hf.transcription.transcribers import DecodingOptions, Transcriber
from k2d_hf.transcription.worker import Work, Worker


class Hypotheses(MapStep):
    """A map step with a model that transcribes.

    Args:
        source: checkpoint, or a loaded `Transcriber`.
        settings: of the stage.
        options: how a checkpoint transcribes.
        given: what the step was made with beside its settings, by the name of the argument.
    """

    work: Work

    def __init__(
        self,
        source: str | Path | Sequence[str] | Transcriber,
        settings: WorkersSettings,
        options: DecodingOptions,
        /,
        **given: Any,
    ) -> None:
        super().__init__(settings, **given)
        self.model = OnDemand(source, options, engine=settings.engine)
        self._worker: Worker | None = None

    def transcribe(self, items: Sequence[Any], rank: int | None) -> Values:
        """The results of each item, by its key, as in a shard."""
        self.ready(rank)
        assert self._worker is not None
        return self._worker.transcribe(items)

    def identities(self) -> list[str | None]:
        """The fingerprint of the checkpoint."""
        return [self.model.settings()["model"]]

    def load(self, device: str) -> None:
        """Set the device; the worker loads the model when there is something to transcribe."""
        if on_ray(self.settings.engine):
            raise K2DError("engine ray is that of whole data sets: give the class itself to map_batches of ray.data")
        self.model.move(device)
        self._worker = Worker(self.work, self.model, NoFolder())

    def unload(self) -> None:
        """Forget the model."""
        self.model.unload()
