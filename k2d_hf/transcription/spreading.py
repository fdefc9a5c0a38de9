"""The shards of a stage, finished by a worker in this process or by the workers of a Ray cluster, in input order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from k2d_hf.files.cache import scratch_folder
from k2d_hf.files.shards import Shard, ShardFolder, Values, in_order
from k2d_hf.transcription.engines import OnDemand, on_ray
from k2d_hf.transcription.settings import WorkersSettings
from k2d_hf.transcription.worker import Work, Worker

if TYPE_CHECKING:
    import pyarrow


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
) -> Iterator[Iterator[tuple[Shard, Values]]]:
    """The shards with their results, in order, for as long as a `with` lasts.

    Args:
        shards: makes the shards anew each time it is called.
        work: what is done with their items.
        model: what transcribes.
        settings: engine and workers.
        schema: of the results.
        folder: where finished shards stay; None is a temporary one.
        calls: how many calls of the transcriber there may be.
        on_progress: called with the number of items done.
    """
    with ExitStack() as stack:
        keep = folder if folder is not None else stack.enter_context(scratch_folder())
        finished = ShardFolder(keep, schema, settings=model.settings() if folder is not None else {})
        worker = Worker(work, model, finished, on_progress=on_progress)
        if not on_ray(settings.engine):
            results = worker.finish(shards(), at_most=calls)
        else:
            from k2d_hf.transcription.ray_cluster import finish_on_ray

            finish_on_ray(worker, shards(), settings)
            quiet = Worker(work, model, ShardFolder(keep, schema, settings=finished.settings))
            results = quiet.finish(shards(), try_again=False)
        stack.enter_context(closing(results))
        yield in_order(results)
