"""Resident memory of labelling an hour and ten hours: it must not grow with the corpus.

Each length is labelled in a process of its own: one recording of ten minutes under as many names as it takes, by the
fast engine with a small random Whisper (Whisper's real vocabulary and features; greedy, without fallbacks). Figures, in
MiB: `peak`, the most that the process had resident at once. The ratio is that of the longest to the shortest. The C
library is told to give freed memory back at once, as left to itself it keeps more or less of it from run to run.

    python benchmarks/labelling_memory.py
    python benchmarks/labelling_memory.py --hours 1 10 30 --streaming
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import measure
import numpy as np
import quickstart

SAMPLE_RATE = 16_000  # Hz
MINUTES = 10  # of a recording
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}  # glibc's


def write_corpus(folder: Path, hours: float) -> None:
    """A recording of seeded noise over a tone, under as many names as make so many hours."""
    import soundfile

    random = np.random.default_rng(0)
    time = np.arange(MINUTES * 60 * SAMPLE_RATE) / SAMPLE_RATE
    sound = 0.1 * np.sin(2 * np.pi * 220 * time) + random.normal(0, 0.02, len(time))
    first = folder / "00000.flac"
    soundfile.write(first, sound, SAMPLE_RATE)
    for index in range(1, round(hours * 60 / MINUTES)):
        os.link(first, folder / f"{index:05d}.flac")


def write_model(folder: Path) -> None:
    """A small random Whisper with the quickstart's processor."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

    teacher = quickstart.checkpoint()
    config = WhisperConfig.from_pretrained(teacher)
    for party in ("encoder", "decoder"):
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 128)):
            setattr(config, f"{party}_{name}", value)
    config.d_model, config.num_hidden_layers = 64, 1
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    model.generation_config = WhisperForConditionalGeneration.from_pretrained(teacher).generation_config
    model.generation_config.alignment_heads = None
    model.save_pretrained(folder)
    WhisperProcessor.from_pretrained(teacher).save_pretrained(folder)


def label(model: str, corpus: str, *, streaming: bool) -> dict[str, float]:
    """Label a corpus in this process."""
    from k2d_hf import label_recordings, load_recordings
    from k2d_hf.labelling.teacher import LabellingReport
    from k2d_hf.transcription.engines import open_transcriber
    from k2d_hf.transcription.transcribers import DecodingOptions

    report = LabellingReport()
    options = DecodingOptions(language="zh", beam_size=1, temperatures=(0.0,), condition_on_previous_text=False)
    teacher = open_transcriber(model, options, engine="faster-whisper", calls_at_once=measure.cores())
    recordings = load_recordings(corpus, streaming=streaming)
    label_recordings(recordings, teacher, report=report, shards_dir=Path(corpus).with_suffix(".shards"))
    return {"peak": measure.peak_memory() * 1024, "hours": report.seconds / 3600}


def main() -> None:
    """Read the options, run each length, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--streaming", action="store_true", help="read the list of recordings as a stream")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "CORPUS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure.report("labelling_memory", label(*arguments.one, streaming=arguments.streaming))
        return
    os.environ.update(ALLOCATOR)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        write_model(folder / "model")
        peaks = {}
        for hours in arguments.hours:
            corpus = folder / f"{hours:g}"
            corpus.mkdir()
            write_corpus(corpus, hours)
            flags = ["--streaming"] * arguments.streaming
            figures = measure.in_process([__file__, "--one", str(folder / "model"), str(corpus), *flags])
            peaks[f"{figures['hours']:.1f} h"] = round(figures["peak"])
    values = list(peaks.values())
    measure.report("labelling_memory", {"peak": peaks, "ratio": round(values[-1] / values[0], 3)})


if __name__ == "__main__":
    main()
