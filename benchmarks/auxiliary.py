"""The auxiliary's pass batched, against the same pass chunk by chunk, for both engines.

The chunks are those that a teacher without fault would make of the quickstart's lectures. Batched is `validate_labels`
as it is used: chunks with labels of like length in one pass, several passes at the same time where the engine divides
the cores. One by one is a model with all cores to itself and one chunk a call, read, transcribed and compared by the
same function. Both search greedily. `same_texts` counts chunks in which both heard the same.

    python benchmarks/auxiliary.py                              # 16 chunks
    python benchmarks/auxiliary.py --engines faster-whisper --chunks 32
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import measure
import numpy as np
import quickstart

from k2d_hf import validate_labels
from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions, Transcriber


def auxiliary(checkpoint: Path, engine: str, *, batch: int, calls: int) -> Transcriber:
    """A greedy model for that many calls at the same time."""
    options = DecodingOptions(
        language=quickstart.LANGUAGE, beam_size=1, condition_on_previous_text=False, batch_size=batch, device="cpu"
    )
    return open_transcriber(checkpoint, options, engine=engine, calls_at_once=calls)


def figures(checkpoint: Path, engine: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What one engine takes, batched and one by one."""
    calls = -(-arguments.chunks // arguments.batch)
    models = {
        "one_by_one": (auxiliary(checkpoint, engine, batch=1, calls=1), 1),
        "batched": (auxiliary(checkpoint, engine, batch=arguments.batch, calls=calls), arguments.batch),
    }
    chunks = datasets.Dataset.from_list(quickstart.chunks(arguments.chunks))
    heard: dict[str, list[str]] = {}

    def run(side: str) -> None:
        model, batch = models[side]
        heard[side] = validate_labels(chunks, model, batch_size=batch)["auxiliary_text"][:]

    for model, _ in models.values():
        model.transcribe_chunks([np.zeros(SAMPLE_RATE, np.float32)])
    seconds = measure.in_turns({side: partial(run, side) for side in models}, rounds=arguments.rounds, warmup=0)
    return {
        "throughput_batched_to_one_by_one": measure.ratio(seconds, "one_by_one", "batched"),
        "seconds": {side: [round(run, 2) for run in runs] for side, runs in seconds.items()},
        "calls_at_once": models["batched"][0].calls_at_once,
        "same_texts": sum(a == b for a, b in zip(heard["one_by_one"], heard["batched"], strict=True)),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--engines", nargs="+", default=["faster-whisper", "transformers"])
    parser.add_argument("--chunks", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    checkpoint = quickstart.checkpoint(arguments.model)
    measured = {engine: figures(checkpoint, engine, arguments) for engine in arguments.engines}
    settings = {"chunks": arguments.chunks, "batch": arguments.batch}
    measure.report(
        "auxiliary", {**settings, **measured}, packages=["faster-whisper", "ctranslate2", "transformers", "torch"]
    )


if __name__ == "__main__":
    main()
