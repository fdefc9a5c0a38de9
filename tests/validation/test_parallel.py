import os
from itertools import count, islice

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.files.processes import available_cores
from k2d_hf.validation import parallel
from k2d_hf.validation.distance import compare_labels
from k2d_hf.validation.parallel import compare_many

LOOP = "謝謝大家收看" * 6
TEXTS = [
    "",
    LOOP,
    "今天講 machine learning",
    "我們用 GPU 來 train 一個 model",
    "我們用 GPU 來 train 兩個 models",
    "到 there",
]
PAIRS = [(f"{teacher} 第{i}頁" if i % 3 else teacher, TEXTS[i % 5]) for i, teacher in enumerate(TEXTS * 5)]


@pytest.fixture
def at_once(monkeypatch):
    """Small batches, and workers from the first pair on."""
    monkeypatch.setattr(parallel, "ALONE_PAIRS", 0)
    monkeypatch.setattr(parallel, "BATCH_PAIRS", 4)


class Deadly:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.parametrize(("metric", "normalise_by"), [("composite", "auxiliary"), ("mer", "teacher")])
@pytest.mark.parametrize("workers", [1, 2, None])
def test_few_pairs_are_compared_row_by_row_without_processes(monkeypatch, workers, metric, normalise_by):
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", None)
    expected = [compare_labels(*pair, metric, normalise_by=normalise_by) for pair in PAIRS]
    assert list(compare_many(iter(PAIRS), metric, normalise_by=normalise_by, workers=workers)) == expected


def test_two_workers_compare_row_by_row_and_read_only_little_ahead(at_once):
    read = 0

    def endless():
        nonlocal read
        for at in count():
            read += 1
            yield PAIRS[at % len(PAIRS)]

    compared = compare_many(endless(), "per", normalise_by="teacher", workers=2)
    assert read == 0
    wanted = 2 * len(PAIRS) + 1
    assert list(islice(compared, wanted)) == [
        compare_labels(*PAIRS[at % len(PAIRS)], "per", normalise_by="teacher") for at in range(wanted)
    ]
    assert read <= wanted + 4 * (2 * 2 + 1)
    compared.close()


def test_workers_take_over_from_this_process(monkeypatch):
    monkeypatch.setattr(parallel, "ALONE_PAIRS", 7)
    monkeypatch.setattr(parallel, "BATCH_PAIRS", 8)
    assert list(compare_many(PAIRS, workers=2)) == [compare_labels(*pair) for pair in PAIRS]


def test_one_process_reads_pair_by_pair():
    pairs = iter(PAIRS)
    compared = compare_many(pairs, workers=1)
    assert next(compared) == compare_labels(*PAIRS[0])
    assert next(pairs) == PAIRS[1]


def test_what_is_raised_in_a_worker_arrives_as_itself(at_once):
    with pytest.raises(TypeError, match="NoneType"):
        list(compare_many([*PAIRS[:4], ("今天", None)], workers=2))


def test_workers_that_die_are_an_error_that_says_what_to_do(at_once):
    with pytest.raises(K2DError, match="workers=1 needs no processes"):
        list(compare_many([(Deadly(), "")], workers=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "compsite"}, "did you mean composite?"),
        ({"normalise_by": "techer"}, "did you mean teacher?"),
        ({"alphabet": "sampa"}, "alphabet 'sampa' is unknown"),
        ({"alphabet": "ipa", "language": "zz"}, "espeak-ng has no language 'zz'"),
        ({"workers": 0}, "workers=0: give at least 1"),
    ],
)
def test_wrong_settings_are_an_error_before_any_pair_is_read(arguments, message):
    pairs = iter(PAIRS)
    with pytest.raises(K2DError, match=message):
        compare_many(pairs, **arguments)
    assert next(pairs) == PAIRS[0]


@pytest.mark.parametrize("wanted", ["3", "", "0", "all"])
def test_workers_are_as_many_as_cores_unless_set_otherwise(monkeypatch, wanted):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert available_cores() in ([3] if wanted == "3" else range(1, os.cpu_count() + 1))
