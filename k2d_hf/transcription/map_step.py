"""The worker of labelling and validation at work: as a map step, or shard by shard, here or on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.data.map_step import MapStep
from k2d_hf.errors import K2DError
from k2d_hf.files.cache import scratch_folder
from k2d_hf.files.shards import NoFolder, Shard, ShardFolder, Values, in_order
from k2d_hf.transcription.engines import OnDemand, on_ray
from k2d_hf.transcription.settings import WorkersSettings
from k2d_hf.transcription.transcribers import DecodingOptions, Transcriber
from k2d_hf.transcription.worker import Work, Worker

if TYPE_CHECKING:
    import pyarrow


Source = str | Path | Sequence[str] | Transcriber  # of a model that transcribes


class Hypotheses(MapStep):
    """A map step with models that transcribe: each a checkpoint, or a loaded `Transcriber` with its own options.

    There is one, or there are `more` that do the same. `given` is what the step was made with beside its settings, by
    the name of the argument.
    """

    work: Work

    def __init__(
        self,
        source: Source,
        settings: WorkersSettings,
        options: DecodingOptions,
        /,
        *,
        more: Sequence[Source] = (),
        **given: Any,
    ) -> None:
        super().__init__(settings, **given)
        self.models = [OnDemand(one, options, engine=settings.engine) for one in (source, *more)]
        self._workers: list[Worker] = []

    @property
    def model(self) -> OnDemand:
        """The first of the models."""
        return self.models[0]

    def transcribe(self, items: Sequence[Any], rank: int | None) -> list[Values]:
        """The results of each item by each of the models, by its key, as in a shard."""
        self.ready(rank)
        return [worker.transcribe(items) for worker in self._workers]

    def identities(self) -> list[str | None]:
        """The fingerprints of the checkpoints."""
        return [model.settings()["model"] for model in self.models]

    def load(self, device: str) -> None:
        """Set the device; the worker loads the model when there is something to transcribe."""
        if on_ray(self.settings.engine):
            raise K2DError("engine ray is that of whole data sets: give the class itself to map_batches of ray.data")
        for model in self.models:
            model.move(device)
        self._workers = [Worker(self.work, model, NoFolder()) for model in self.models]

    def unload(self) -> None:
        """Forget the models."""
        for model in self.models:
            model.unload()


@contextmanager
def finished_shards(
    shards: Callable[[], Iterator[Shard]],
    work: Work,
    model: OnDemand,
    settings: WorkersSettings,
    *,
    schema: pyarrow.Schema,
    folder: str | Path | None,
    calls: int,
    on_progress: Callable[..., None] | None,
    ahead: bool = False,
) -> Iterator[Iterator[tuple[Shard, Values]]]:
    """The shards with their results, in order, for as long as a `with` lasts.

    Args:
        shards: makes the shards anew each time it is called.
        work: what is done with their items.
        model: what transcribes.
        settings: engine and workers.
        schema: of the results.
        folder: where finished shards stay; None is a temporary one.
        calls: limit of the transcriber's calls.
        on_progress: called with the number of items done.
        ahead: whether all are finished, and the model is forgotten, before the first of them comes.
    """
    with ExitStack() as stack:
        keep = folder if folder is not None else stack.enter_context(scratch_folder())
        finished = ShardFolder(keep, schema, settings=model.settings() if folder is not None else {})
        worker = Worker(work, model, finished, on_progress=on_progress)
        if not (ahead or on_ray(settings.engine)):
            results = worker.finish(shards(), at_most=calls)
        else:
            if on_ray(settings.engine):
                from k2d_hf.transcription.ray_cluster import finish_on_ray

                finish_on_ray(worker, shards(), settings)
            else:
                deque(worker.finish(shards(), at_most=calls), maxlen=0)
            model.unload()
            quiet = Worker(work, model, ShardFolder(keep, schema, settings=finished.settings))
            results = quiet.finish(shards(), try_again=False)
        stack.enter_context(closing(results))
        yield in_order(results)
