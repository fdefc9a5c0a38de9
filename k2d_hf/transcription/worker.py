"""The worker of labelling and of validation: unfinished shards in, finished shards out.

One process has one worker; on a Ray cluster every actor has one, and it is this one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, Reading
from k2d_hf.files.background import prefetch, spread
from k2d_hf.files.shards import NO_SPEECH, Failure, Shard, ShardFolder, Values
from k2d_hf.transcription.timeout import TimedCalls, Transcribe

if TYPE_CHECKING:
    from k2d_hf.transcription.engines import OnDemand


@dataclass(frozen=True)
class Work:
    """What a worker does with the items of a shard."""

    read: Callable[[Any], Reading | Failure]  # of an item; may raise AudioError
    transcribe: Transcribe  # transcriber, items and audio to the results of the items
    order: Callable[[Any], Any] | None  # sorts the items of a shard into calls, for batches of like length
    items_per_call: int
    read_ahead: int  # calls whose audio is decoded while others are transcribed
    time_limit: float | None  # s that 30 s of audio may take; None waits for ever


@dataclass
class _Open:
    """An unfinished shard, its results so far, and how many items are missing."""

    shard: Shard
    values: Values
    missing: int = 0


@dataclass(frozen=True)
class _Call:
    """Items that go to the transcriber together; a call without items stands for a finished shard."""

    work: _Open
    items: list[Any]
    audio: list[Reading] = field(default_factory=list)
    failures: Values = field(default_factory=dict)


class Worker:
    """Finishes shards: reads audio ahead of the model, and writes what each shard gave when it is complete.

    `on_progress` is called with the number of items done, and by Ray with a note on its speed.
    """

    def __init__(
        self, work: Work, model: OnDemand, folder: ShardFolder, *, on_progress: Callable[..., None] | None = None
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
            shards: finished ones among them come back as they are.
            at_most: calls of the transcriber; fewer than it could take at once get more cores each.
            try_again: whether items that failed in an earlier run are tried again: their files may be repaired by now.
        """
        todo = self._todo(shards, try_again=try_again)
        for first in todo:
            if first.items:
                break
            yield first.work.shard, first.work.values
        else:
            return
        workers = self.model.load(calls_at_once=at_most).calls_at_once
        calls = TimedCalls(self.model, time_limit=self.work.time_limit, in_a_row=self._failed_in_a_row)
        with (
            closing(calls),
            closing(prefetch(self._read, chain([first], todo), ahead=self.work.read_ahead)) as read,
            closing(spread(lambda call: _answer(calls, self.work.transcribe, call), read, workers=workers)) as answers,
        ):
            for call, values in answers:
                work = call.work
                work.values.update(values)
                work.missing -= len(values)
                if values and not work.missing:
                    self.folder.write(work.shard, work.values)
                if values:
                    self.on_progress(len(values))
                if not work.missing:
                    self._failed_in_a_row = calls.in_a_row
                    yield work.shard, work.values

    def transcribe(self, items: Sequence[Any]) -> Values:
        """The results of some items by their keys, which differ, as of one shard."""
        shard = Shard(0, tuple(items))
        ((_, values),) = self.finish([shard], at_most=-(-len(items) // self.work.items_per_call))
        return values

    def unfinished(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        """The shards with items to transcribe."""
        return (shard for shard in shards if self._look_up(shard, try_again=True)[1])

    def _look_up(self, shard: Shard, *, try_again: bool) -> tuple[_Open, list[Any]]:
        """A shard with its results so far, and the items without one."""
        finished = self.folder.read(shard) if shard.wanted else {}
        new = finished is None
        values = self.folder.known(shard) if finished is None else finished
        if new or try_again:
            values = {key: row for key, row in values.items() if row["reason"] in (None, NO_SPEECH)}
        # Items of one key have the same audio, so one of them is enough.
        items = list({item.key: item for item in shard.wanted if item.key not in values}.values())
        if len(shard.items) > len(items):
            self.on_progress(len(shard.items) - len(items))
        if new and not items:
            self.folder.write(shard, values)
        return _Open(shard, values, len(items)), items

    def _todo(self, shards: Iterable[Shard], *, try_again: bool) -> Iterator[_Call]:
        """The calls that are needed; for a finished shard one without items."""
        for shard in shards:
            work, items = self._look_up(shard, try_again=try_again)
            if self.work.order is not None:
                items.sort(key=self.work.order)
            for at in range(0, max(len(items), 1), self.work.items_per_call):
                yield _Call(work, items[at : at + self.work.items_per_call])

    def _read(self, call: _Call) -> _Call:
        usable = _Call(call.work, [])
        for item in call.items:
            try:
                reading = self.work.read(item)
            except AudioError as error:
                reading = Failure(error.reason, str(error))
            if isinstance(reading, Failure):
                usable.failures[item.key] = reading.row()
            else:
                usable.items.append(item)
                usable.audio.append(reading)
        return usable


def _answer(calls: TimedCalls, transcribe: Transcribe, call: _Call) -> tuple[_Call, Values]:
    values = dict(call.failures)
    if call.items:
        results = calls.call(transcribe, call.items, [reading.samples for reading in call.audio])
        for item, reading, result in zip(call.items, call.audio, results, strict=True):
            known = {"reason": None, "detail": None, "seconds": len(reading.samples) / SAMPLE_RATE, **reading.facts}
            values[item.key] = result.row() if isinstance(result, Failure) else {**known, **result}
    return call, values
