"""A transcriber that raises, gives nothing or hangs costs the recording at hand, and stops no corpus."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.errors import K2DError
from k2d_hf.files.shards import Failure
from k2d_hf.transcription import timeout
from k2d_hf.transcription.engines import OnDemand
from k2d_hf.transcription.timeout import FAILURES_IN_A_ROW, TimedCalls
from k2d_hf.transcription.transcribers import DecodingOptions

AUDIO = [np.zeros(16000 * seconds, np.float32) for seconds in range(1, 9)]


def call(function, items, *, time_limit=None):
    """The results of a function of items, called under a time limit."""
    calls = TimedCalls(OnDemand(ScriptedTranscriber({}), DecodingOptions()), time_limit=time_limit)
    try:
        return calls.call(lambda model, some, audio: function(some), items, AUDIO[: len(items)])
    finally:
        calls.close()


def raises_on(bad, error):
    """A function that raises where an item is among its items."""

    def function(items):
        if bad in items:
            raise error
        return [{"text": item} for item in items]

    return function


@pytest.mark.parametrize("time_limit", [None, 60.0])
@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RuntimeError("CUDA error:\nan illegal access"), "RuntimeError: CUDA error: an illegal access"),
        (MemoryError(), "MemoryError: "),
        (K2DError("language 'xx' is unknown"), "language 'xx' is unknown"),
    ],
)
def test_of_items_that_fail_together_the_bad_one_alone_fails(time_limit, error, detail):
    results = call(raises_on("b", error), ["a", "b", "c"], time_limit=time_limit)
    assert results == [{"text": "a"}, Failure("not transcribed", detail, 2.0), {"text": "c"}]


@pytest.mark.parametrize("given", [[], [{"text": "a"}, {"text": "b"}]])
def test_too_few_or_too_many_results_are_no_results(given):
    (failure,) = call(lambda items: given, ["a"])
    assert failure.reason == "not transcribed"
    assert failure.detail == f"ValueError: the engine gave {len(given)} results for 1"


def test_a_call_that_hangs_is_abandoned_after_its_time():
    release = threading.Event()
    started = time.monotonic()

    def function(items):
        if "b" in items:
            release.wait(60)
        return [{"text": item} for item in items]

    results = call(function, ["a", "b"], time_limit=0.3)
    assert results[0] == {"text": "a"}
    assert (results[1].reason, results[1].detail) == ("timed out", "no result within 0.3 s")
    assert 0.5 < time.monotonic() - started < 20
    assert timeout.has_abandoned_calls()
    release.set()
    for thread in timeout._abandoned:
        thread.join(5)
    assert not timeout.has_abandoned_calls()


def test_the_time_is_for_30_s_of_audio():
    def slow(items):
        time.sleep(0.5)
        return [{}] * len(items)

    calls = TimedCalls(OnDemand(ScriptedTranscriber({}), DecodingOptions()), time_limit=0.2)
    try:
        for seconds, fits in [(15, False), (30, False), (300, True)]:
            audio = np.zeros(16000 * seconds, np.float32)
            (result,) = calls.call(lambda model, items, audio: slow(items), ["a"], [audio])
            assert isinstance(result, Failure) != fits
    finally:
        calls.close()


def test_failures_in_a_row_are_the_engines_and_stop_the_run():
    calls = TimedCalls(OnDemand(ScriptedTranscriber({}), DecodingOptions()), time_limit=None)

    def fail(model, items, audio):
        raise RuntimeError("no device")

    for _ in range(FAILURES_IN_A_ROW - 1):
        calls.call(fail, ["a"], AUDIO[:1])
    with pytest.raises(K2DError, match=r"8 in a row could not be transcribed.*no device; fix the engine"):
        calls.call(fail, ["a"], AUDIO[:1])


def test_an_interrupt_comes_through():
    with pytest.raises(KeyboardInterrupt):
        call(raises_on("a", KeyboardInterrupt()), ["a"], time_limit=60.0)


HANGS = """
import sys, threading, time
import numpy as np
from k2d_hf import cli
from k2d_hf.pipeline.stages.student import Student
from k2d_hf.transcription.timeout import TimedCalls

class Model:
    def load(self): return self
    def abandon(self, transcriber): pass

def execute(self, arguments):
    TimedCalls(Model(), time_limit=0.1).call(lambda model, items, audio: time.sleep(60), ["a"], [np.zeros(10)])
    print("went on")

Student.execute = execute
sys.exit(cli.main(["student", "teacher", "--output", "out"]))
"""


def test_the_command_ends_though_an_abandoned_call_still_runs():
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
