"""Work in background threads: what comes out, how far it runs ahead, and that nothing of it stays behind."""

import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.files.background import check_cancelled, prefetch, spread

SOON = 10  # seconds after which a test that waits for another thread has failed


@pytest.fixture(autouse=True)
def _no_thread_left_behind():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def until_stopped(started=None):
    """A long piece of work that can stop."""
    if started is not None:
        started.set()
    while True:
        check_cancelled()
        threading.Event().wait(0.001)


# Ahead


@given(items=st.lists(st.integers()), ahead=st.integers(1, 5))
def test_prefetched_results_are_those_of_map_in_order(items, ahead):
    assert list(prefetch(str, items, ahead=ahead)) == list(map(str, items))


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_is_taken_than_may_wait(ahead):
    taken = []
    for used, result in enumerate(prefetch(abs, (taken.append(n) or n for n in range(10)), ahead=ahead), start=1):
        assert result == used - 1
        assert len(taken) <= used + ahead


def test_the_next_results_are_made_while_one_is_used():
    made = [threading.Event() for _ in range(4)]
    with closing(prefetch(lambda n: made[n].set(), range(4), ahead=2)) as results:
        next(results)
        assert made[1].wait(SOON)
        assert made[2].wait(SOON)
        assert not made[3].is_set()


@pytest.mark.parametrize("ahead", [1, 5])
def test_an_exception_comes_in_the_place_of_its_result_and_is_the_last(ahead):
    results = prefetch(lambda n: 6 // (3 - n), range(9), ahead=ahead)
    assert [next(results), next(results), next(results)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


# Several at once


@given(items=st.lists(st.integers()), workers=st.integers(1, 5))
def test_spread_results_are_those_of_map(items, workers):
    assert sorted(spread(lambda n: n + 1, items, workers=workers)) == sorted(n + 1 for n in items)


def test_results_come_as_soon_as_they_are_done():
    release = threading.Event()

    def work(n):
        assert n > 0 or release.wait(SOON)
        return n

    results = spread(work, range(4), workers=2)
    first = [next(results) for _ in range(3)]
    release.set()
    assert sorted(first) == [1, 2, 3]
    assert list(results) == [0]


def test_as_many_run_at_once_as_there_are_workers():
    together = threading.Barrier(3, timeout=SOON)
    taken = []
    items = (taken.append(n) or n for n in range(6))
    with closing(spread(lambda n: together.wait(), items, workers=3)) as results:
        next(results)
        assert len(taken) == 3
        assert len(list(results)) == 5


def test_one_worker_is_the_thread_that_asks():
    assert set(spread(lambda n: threading.get_ident(), range(3), workers=1)) == {threading.get_ident()}


# Stopping


@pytest.mark.parametrize("run", [prefetch, spread])
def test_closing_stops_the_work_and_takes_no_more(run):
    taken, started = [], threading.Event()
    items = (taken.append(n) or n for n in range(10))

    def work(n):
        return n if n == 0 else until_stopped(started)

    with closing(run(work, items, **{"ahead" if run is prefetch else "workers": 2})) as results:
        assert next(results) == 0
        assert started.wait(SOON)
    assert len(taken) <= 3


def test_an_exception_stops_the_other_workers():
    started = threading.Event()

    def work(n):
        assert n == 0 or started.wait(SOON)
        return until_stopped(started) if n == 0 else 1 // 0

    with pytest.raises(ZeroDivisionError):
        list(spread(work, range(2), workers=2))


def test_work_continues_while_its_result_is_awaited():
    check_cancelled()  # nor is the caller's own thread ever stopped
    assert list(spread(lambda n: check_cancelled(), range(4), workers=2)) == [None] * 4
    assert list(prefetch(lambda n: check_cancelled(), range(4), ahead=2)) == [None] * 4
