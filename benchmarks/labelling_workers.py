"""Labelling by one and by two workers of a Ray cluster on this machine, each with one core and a one-thread engine.

The quickstart's lectures, cut to parts of equal length and repeated, go to Whisper base (fast engine, int8) in turns:
one worker, two workers, the same rows each time. `whole` is `label_recordings` on a cluster that runs, in which workers
start and load their models; `at work` is from the first part that is done to the last. `speech` is seconds of speech
labelled in a second while at work.

    python benchmarks/labelling_workers.py
    python benchmarks/labelling_workers.py --parts 8 --seconds 30
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import quickstart
import soundfile

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio


def write_parts(folder: Path, parts: int, seconds: float) -> None:
    """Parts of the lectures, one after the other and then again, as recordings of their own."""
    step = round(seconds * SAMPLE_RATE)
    lectures = [read_audio(lecture) for lecture in quickstart.lectures()]
    cut = [audio[at : at + step] for audio in lectures for at in range(0, len(audio) - step + 1, step)]
    for index in range(parts):
        soundfile.write(folder / f"{index:03d}.flac", cut[index % len(cut)], SAMPLE_RATE)


def main() -> None:
    """Read the options, label in turns, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--parts", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--beam-size", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    from k2d_hf import label_recordings, load_recordings

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    rows: dict[int, Any] = {}
    done: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as work:
        write_parts(Path(work), arguments.parts, arguments.seconds)
        recordings = load_recordings(work)
        checkpoint = str(quickstart.checkpoint(arguments.model))

        def label(workers: int) -> None:
            rows[workers] = label_recordings(
                recordings,
                checkpoint,
                language=quickstart.LANGUAGE,
                engine="ray+faster-whisper",
                workers=workers,
                beam_size=arguments.beam_size,
                on_progress=lambda count, note="": done[workers].append(time.perf_counter()),
            )[:]

        sides = {f"{count} workers": lambda count=count: label(count) for count in (1, 2)}
        whole = measure.in_turns(sides, rounds=1, warmup=0)
    # of n parts that n workers do at once, all but the first n are done between the first and the last word
    speed = {
        f"{count} workers": (arguments.parts - count) * arguments.seconds / (done[count][-1] - done[count][count - 1])
        for count in (1, 2)
    }
    figures = {
        "whole": {name: measure.median(values) for name, values in whole.items()},
        "speech": {name: round(value, 2) for name, value in speed.items()},
        "ratio": {
            "whole": measure.ratio(whole, "1 workers", "2 workers")["median"],
            "at work": round(speed["2 workers"] / speed["1 workers"], 3),
        },
        "same rows": rows[1] == rows[2],
    }
    measure.report("labelling_workers", figures, packages=["ray", "faster-whisper", "ctranslate2"])
    ray.shutdown()


if __name__ == "__main__":
    main()
