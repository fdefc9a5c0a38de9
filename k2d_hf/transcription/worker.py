"""The worker of labelling and of validation: unfinished shards in, finished shards out, whoever runs it.

One process has one worker; on a Ray cluster every actor has one, and it is this one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError
from k2d_hf.files.background import prefetch, spread
from k2d_hf.files.shards import NO_SPEECH, Failure, Shard, ShardFolder, Values
from k2d_hf.transcription.timeout import Guard, Transcribe

if TYPE_CHECKING:
    import numpy as np

    from k2d_hf.transcription.engines import OnDemand


@dataclass(frozen=True)
class Work:
    """What a worker does with the items of a shard.

    Attributes:
        read: an item to its audio, float32 [samples] at 16 kHz, or why there is none; may raise AudioError.
        transcribe: transcriber, items and audio to the results of the items.
        order: sorts the items of a shard into calls, for batches of like length; None leaves them as they are.
        items_per_call: how many items go to the transcriber together.
        read_ahead: calls whose audio is decoded while others are transcribed.
        time_limit: seconds that 30 s of audio may take; None waits for ever.
    """

    read: Callable[[Any], np.ndarray | Failure]
    transcribe: Transcribe
    order: Callable[[Any], Any] | None
    items_per_call: int
    read_ahead: int
    time_limit: float | None


@dataclass
class _Open:
    """A shard that is worked on, what is known of it, and how many items are still to come."""

    shard: Shard
    values: Values
    missing: int = 0


@dataclass(frozen=True)
class _Call:
    """Items that go to the transcriber together; a call without items hands on a shard that is finished."""

    work: _Open
    items: list[Any]
    audio: list[np.ndarray] = field(default_factory=list)
    failures: Values = field(default_factory=dict)


class Worker:
    """Finishes shards: reads audio ahead of the model, and writes what each shard gave when it is complete.

    Args:
        work: what is done with an item.
        model: what transcribes; loaded when there is something to do.
        folder: where finished shards are.
        on_progress: called with the number of items done, and by Ray with a word on how it goes.
    """

    def __init__(
        self,
        work: Work,
        model: OnDemand,
        folder: ShardFolder,
        *,
        on_progress: Callable[..., None] | None = None,
    ) -> None:
        self.work = work
        self.model = model
        self.folder = folder
        self.on_progress = on_progress or (lambda count, note="": None)
        self._failed_in_a_row = 0

    def finish(
        self, shards: Iterable[Shard], *, at_most: int = 1 << 30, try_again: bool = True
    ) -> Generator[tuple[Shard, Values], None, None]:
        """Finish shards; each comes with the results of its items by their keys, as soon as it is complete.

        Args:
            shards: what is to be done, and what may be done already.
            at_most: how many calls of the transcriber there may be; fewer than it could take at once get more cores
                each.
            try_again: whether items that failed in an earlier run are tried again: their files may be mended.
        """
        todo = self._todo(shards, try_again=try_again)
        first = None
        for call in todo:
            if call.items:
                first = call
                break
            yield call.work.shard, call.work.values
        if first is None:
            return
        workers = self.model.load(calls_at_once=at_most).calls_at_once
        guard = Guard(self.model, time_limit=self.work.time_limit, in_a_row=self._failed_in_a_row)
        finished: deque[_Open] = deque()
        with (
            closing(guard),
            closing(prefetch(self._read, chain([first], todo), ahead=self.work.read_ahead)) as read,
            closing(spread(lambda call: _answer(guard, self.work.transcribe, call), read, workers=workers)) as answers,
        ):
            for call, values in answers:
                self._take(call, values, finished)
                while finished:
                    work = finished.popleft()
                    self._failed_in_a_row = guard.in_a_row
                    yield work.shard, work.values

    def transcribe(self, items: Sequence[Any]) -> Values:
        """The results of some items by their keys, which differ: a shard that is kept nowhere."""
        shard = Shard(0, tuple(items))
        calls = -(-len(items) // self.work.items_per_call)
        ((_, values),) = self.finish([shard], at_most=calls)
        return values

    def unfinished(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """Those shards that there is something to do for."""
        for shard in shards:
            work, items = self._look_up(shard, try_again=True)
            if items:
                yield shard

    def _look_up(self, shard: Shard, *, try_again: bool) -> tuple[_Open, list[Any]]:
        """What is known of a shard, and the items that are still to be worked on."""
        values = self.folder.read(shard) if shard.wanted else {}
        new = values is None
        if values is None:
            values = self.folder.known(shard)
        if new or try_again:
            values = {key: row for key, row in values.items() if row["reason"] in (None, NO_SPEECH)}
        # Items of one key sound alike, so that one of them is enough work.
        items = list({item.key: item for item in shard.wanted if item.key not in values}.values())
        if len(shard.items) > len(items):
            self.on_progress(len(shard.items) - len(items))
        if new and not items:
            self.folder.write(shard, values)
        return _Open(shard, values, len(items)), items

    def _todo(self, shards: Iterable[Shard], *, try_again: bool) -> Iterator[_Call]:
        """The calls that are needed; of a shard that is finished one without items."""
        for shard in shards:
            work, items = self._look_up(shard, try_again=try_again)
            if not items:
                yield _Call(work, [])
                continue
            if self.work.order is not None:
                items.sort(key=self.work.order)
            for at in range(0, len(items), self.work.items_per_call):
                yield _Call(work, items[at : at + self.work.items_per_call])

    def _read(self, call: _Call) -> _Call:
        usable = _Call(call.work, [])
        for item in call.items:
            try:
                audio = self.work.read(item)
            except AudioError as error:
                usable.failures[item.key] = Failure(error.reason, str(error)).row()
                continue
            if isinstance(audio, Failure):
                usable.failures[item.key] = audio.row()
            else:
                usable.items.append(item)
                usable.audio.append(audio)
        return usable

    def _take(self, call: _Call, values: Values, finished: deque[_Open]) -> None:
        work = call.work
        work.values.update(values)
        work.missing -= len(values)
        if work.missing == 0:
            if values:
                self.folder.write(work.shard, work.values)
            finished.append(work)
        if values:
            self.on_progress(len(values))


def _answer(guard: Guard, transcribe: Transcribe, call: _Call) -> tuple[_Call, Values]:
    values = dict(call.failures)
    if call.items:
        results: Sequence[dict[str, Any] | Failure] = guard.call(transcribe, call.items, call.audio)
        for item, samples, result in zip(call.items, call.audio, results, strict=True):
            known = {"reason": None, "detail": None, "seconds": len(samples) / SAMPLE_RATE}
            values[item.key] = result.row() if isinstance(result, Failure) else {**known, **result}
    return call, values
