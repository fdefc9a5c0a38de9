"""Labelling and validation on a Ray cluster (extra `ray`): shards to workers that hold a model each.

Ray Data hands out the shards, starts a worker anew that died, and gives its shard to another. What a worker does with a
shard is what `worker.py` does in one process; the shards it finishes lie in the same folder, and the stage reads them
from there.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.shards import Shard, ShardFolder
from k2d_hf.formatting import error_message
from k2d_hf.transcription.worker import Worker

if TYPE_CHECKING:
    from k2d_hf.transcription.settings import WorkersSettings

logger = logging.getLogger(__name__)

SHARDS_AT_ONCE = 20_000  # handed to Ray Data together, so that memory here does not grow with the corpus
CONNECT_TIMEOUT = 10.0  # s that a cluster has to answer at all
SYNC_TIMEOUT = 60.0  # s that a network disk may take to show here what was written elsewhere


def finish_on_ray(worker: Worker, shards: Iterator[Shard], settings: WorkersSettings) -> None:
    """Have the workers of a cluster finish shards; returns when the folder holds them all.

    The worker's work, model and folder go to the cluster; shards that are finished are skipped.

    Raises:
        K2DError: if there is no cluster at the address, it has no room for a worker, the work fails for a reason that
            no other worker would change, or what workers write cannot be read here.
    """
    import ray

    todo = (shard.without_rows() for shard in worker.unfinished(shards))
    first = next(todo, None)
    if first is None:
        return
    started = _connect(settings)
    try:
        workers = room(settings)
        part = [first, *islice(todo, SHARDS_AT_ONCE - 1)]
        while part:
            _finish(worker, part, settings, min(workers, len(part)))
            part = list(islice(todo, SHARDS_AT_ONCE))
    finally:
        if started:
            ray.shutdown()


def _connect(settings: WorkersSettings) -> bool:
    """Connect to the cluster, unless this process is connected; returns whether it was not."""
    import ray

    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet: dict[str, Any] = {"log_to_driver": os.environ.get("K2D_DEBUG") == "1", "logging_level": logging.ERROR}
    if settings.address is None:
        quiet["include_dashboard"] = False
    try:
        probe(settings.address)
        with _quiet():
            ray.init(address=settings.address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise K2DError(
            f"no Ray cluster at {settings.address or 'this machine'} ({error_message(error)}); start one with "
            "`ray start --head`, or leave --address out for one on this machine"
        ) from None
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what Ray's libraries print, even about being quiet; errors come as exceptions."""
    if os.environ.get("K2D_DEBUG") == "1":
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def probe(address: str | None) -> None:
    """Raise OSError if nothing answers at an address HOST:PORT, which Ray would retry for many minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT).close()


def room(settings: WorkersSettings) -> int:
    """How many workers there will be; K2DError if the cluster has no room for them."""
    import ray

    has = ray.cluster_resources()
    wants = {"CPU": settings.worker_cpus, "GPU": settings.worker_gpus}
    fits = min((int(has.get(kind, 0) // amount) for kind, amount in wants.items() if amount), default=1)
    if fits < 1 or (settings.workers or 1) > fits:
        available = ", ".join(f"{has.get(kind, 0):g} {kind}" for kind in wants)
        needed = ", ".join(f"{amount:g} {kind}" for kind, amount in wants.items() if amount)
        raise K2DError(
            f"the Ray cluster has {available}: no room for {settings.workers or 1} workers of {needed}; "
            "set workers, worker_cpus or worker_gpus to what it has"
        )
    if (unused := has.get("GPU", 0)) and not settings.worker_gpus:
        logger.warning(
            "the Ray cluster has %g GPU, and the workers use none: they compute on CPUs; set worker_gpus (1: one "
            "for each worker) to use them",
            unused,
        )
    return settings.workers or fits


def _finish(worker: Worker, shards: list[Shard], settings: WorkersSettings, workers: int) -> None:
    import ray
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # A worker that dies is started again, as often as that takes; what raises in it would raise in any other.
    context.actor_task_retry_on_errors = False
    context.execution_no_progress_timeout_s = -1  # a shard may hold half a day of audio
    rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    done = rows.map_batches(
        _RemoteWorker,
        fn_constructor_args=(worker.work, worker.model, worker.folder),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=settings.worker_cpus,
        num_gpus=settings.worker_gpus or None,
    )
    started, seconds, hosts = time.monotonic(), 0.0, set()
    try:
        for row in done.iter_rows():
            if row["host"] not in hosts:
                _check_seen(worker.folder, row["key"], row["host"])
            hosts.add(row["host"])
            seconds += row["seconds"]
            speed = seconds / (time.monotonic() - started)
            worker.on_progress(int(row["items"]), f"{workers} workers, {speed:.1f} times as fast as it is spoken")
    except RayError as error:
        raise _as_ours(error) from error


def _check_seen(folder: ShardFolder, key: str, host: str) -> None:
    """Raise K2DError if a shard that a worker on `host` has written does not appear here."""
    deadline = time.monotonic() + SYNC_TIMEOUT
    while not folder.has(key):
        if time.monotonic() > deadline:
            raise K2DError(
                f"{folder.folder}: what the worker on {host} wrote there cannot be read here; give an --output "
                "on a disk that all machines share, or an address such as s3://bucket/folder"
            )
        time.sleep(1.0)


def _as_ours(error: Exception) -> K2DError:
    """The error of a worker, in one line, where it is a K2DError; else Ray's own, likewise."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, K2DError):
            return K2DError(str(cause).strip().splitlines()[-1].removeprefix("k2d_hf.errors.K2DError: "))
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return K2DError(f"the Ray cluster gave up ({lines[-1]}); run again: what is done stays done")


class _RemoteWorker:
    """A worker in a process of the cluster: shard in, a line about it out."""

    def __init__(self, work: Any, model: Any, folder: Any) -> None:
        logging.getLogger("k2d_hf").setLevel(logging.WARNING)
        self.done = 0
        self.worker = Worker(work, model, folder, on_progress=self._count)

    def _count(self, items: int) -> None:
        self.done += items

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        (shard,) = batch["shard"]
        self.done = 0
        ((_, values),) = self.worker.finish([shard])
        seconds = sum(row["seconds"] or 0.0 for row in values.values())
        about = {"key": shard.key, "items": self.done, "seconds": seconds, "host": socket.gethostname()}
        return {name: [value] for name, value in about.items()}
