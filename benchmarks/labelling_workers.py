"""Labelling by one and by two workers of a Ray cluster on this machine, each with one core and a one-thread engine.

The quickstart's lectures, cut to parts of equal length, go to Whisper base (fast engine, int8) in turns: one worker,
two workers, the same rows each time. Seconds are those of `label_recordings` as a whole on a cluster that runs: workers
start and load their models in them. `speech` is seconds of speech labelled in a second.

    python benchmarks/labelling_workers.py
    python benchmarks/labelling_workers.py --parts 8 --seconds 30 --rounds 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import measure
import quickstart
import soundfile

from k2d_hf.labelling.audio import SAMPLE_RATE, read_audio


def write_parts(folder: Path, parts: int, seconds: float) -> None:
    """Parts of the lectures, one after the other, as recordings of their own."""
    written = 0
    for lecture in quickstart.lectures():
        audio = read_audio(lecture)
        step = round(seconds * SAMPLE_RATE)
        for at in range(0, len(audio) - step + 1, step):
            if written == parts:
                return
            soundfile.write(folder / f"{written:03d}.flac", audio[at : at + step], SAMPLE_RATE)
            written += 1
    raise SystemExit(f"the lectures make {written} parts of {seconds:g} s only")


def main() -> None:
    """Read the options, label in turns, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--parts", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=55.0)
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    from k2d_hf import label_recordings, load_recordings

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    rows: dict[int, Any] = {}
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
            )[:]

        sides = {f"{count} workers": lambda count=count: label(count) for count in (1, 2)}
        seconds = measure.in_turns(sides, rounds=arguments.rounds, warmup=0)
    speech = arguments.parts * arguments.seconds
    figures = {
        "seconds": {name: measure.median(values) for name, values in seconds.items()},
        "speech": {name: round(speech / measure.median(values), 2) for name, values in seconds.items()},
        "ratio": measure.ratio(seconds, "1 workers", "2 workers"),
        "same rows": rows[1] == rows[2],
    }
    measure.report("labelling_workers", figures, packages=["ray", "faster-whisper", "ctranslate2"])
    ray.shutdown()


if __name__ == "__main__":
    main()
