"""Comparing labels by the million: the numbers of `compare_labels`, from all cores, in memory that does not grow.

Cross-model validation without models (paper, Eq. 1 to 5) for texts that are there already, both the teacher's and the
auxiliary's: another metric or normalisation of a whole corpus, say.
"""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice, starmap
from multiprocessing import get_context

from k2d_hf.errors import K2DError
from k2d_hf.files.processes import available_cores
from k2d_hf.validation.distance import LabelComparison, compare_labels

BATCH_PAIRS = 256  # some 30 ms of work, next to which sending texts and numbers to and fro is nothing
ALONE_PAIRS = 8192  # compared here in about the time that processes take to start


def compare_many(
    pairs: Iterable[tuple[str, str]],
    metric: str = "composite",
    *,
    normalise_by: str = "auxiliary",
    alphabet: str = "arpabet",
    language: str = "en-us",
    workers: int | None = None,
) -> Iterator[LabelComparison]:
    """`compare_labels(teacher_text, auxiliary_text, ...)` of each pair, in order.

    Pairs are read as results are taken, a few batches a worker ahead. The first few thousand are compared in this
    process; only where there are more do workers start. A script that may get that far calls this under
    `if __name__ == "__main__":`, for each worker imports the script anew.

    Args:
        pairs: teacher's and auxiliary's text of each label.
        metric: as for `compare_labels`, as are `normalise_by`, `alphabet` and `language`.
        workers: processes; 1 does all in this one. None: as many as cores that this process may use, or as
            OMP_NUM_THREADS says.

    Raises:
        K2DError: at once for an unknown metric, normaliser or alphabet, or less than one worker; later, where the
            workers die. What `compare_labels` raises in a worker arrives as itself.
    """
    if workers is None:
        workers = available_cores()
    if workers < 1:
        raise K2DError(f"workers={workers}: give at least 1, or none for all cores")
    compare = partial(compare_labels, metric=metric, normalise_by=normalise_by, alphabet=alphabet, language=language)
    compare("", "")  # wrong settings fail before the first pair is read
    return _compare(iter(pairs), compare, workers)


def _compare(
    pairs: Iterator[tuple[str, str]], compare: Callable[[str, str], LabelComparison], workers: int
) -> Iterator[LabelComparison]:
    if workers == 1:
        yield from starmap(compare, pairs)
        return
    yield from starmap(compare, islice(pairs, ALONE_PAIRS))
    batch = list(islice(pairs, BATCH_PAIRS))
    if not batch:
        return
    # Spawned, because forking a process that has threads (of torch, of a tokenizer) may hang its child; interrupts are
    # left to the parent.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    pending: deque[Future[list[LabelComparison]]] = deque()
    try:
        while batch or pending:
            if batch:
                pending.append(pool.submit(_compare_batch, compare, batch))
                batch = list(islice(pairs, BATCH_PAIRS))
            if not batch or len(pending) >= 2 * workers:
                yield from pending.popleft().result()
    except BrokenProcessPool as error:
        raise K2DError(
            "the processes that compare labels died: out of memory, or the script that calls compare_many lacks "
            '`if __name__ == "__main__":` around it; workers=1 needs no processes'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _compare_batch(
    compare: Callable[[str, str], LabelComparison], batch: list[tuple[str, str]]
) -> list[LabelComparison]:
    return list(starmap(compare, batch))
