"""Speech and model of the benchmarks that transcribe: the quickstart's lectures and the Whisper base of its wheels."""

from __future__ import annotations

import json
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import soundfile

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.data.chunking import Segment, chunk_rows, pack_segments
from k2d_hf.models import resolve_checkpoint
from k2d_hf.pipeline.recipe import load_recipe

FOLDER = Path(__file__).parent.parent / "recipes" / "quickstart"
LANGUAGE = "zh"


def lectures() -> list[Path]:
    """The recordings that the quickstart learns from, some four minutes each."""
    return sorted((FOLDER / "train").glob("*.opus"))


def checkpoint(model: str | None = None) -> Path:
    """Folder of a checkpoint; by default of the one that comes as a package and needs no Hub."""
    return resolve_checkpoint(model or load_recipe(FOLDER / "quickstart.yaml").teacher[-1]).path


def cut(recording: Path, seconds: float, folder: Path) -> Path:
    """The beginning of a recording as a file of its own, in FLAC, from which every decoder gets the same samples."""
    target = folder / f"{recording.stem}.flac"
    soundfile.write(target, read_audio(recording, 0.0, seconds), SAMPLE_RATE)
    return target


def chunks(count: int) -> list[dict[str, Any]]:
    """Chunks as a teacher without fault would make them, from the references: as many of each lecture."""
    lines = (FOLDER / "train_references.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[list[dict[str, Any]]] = []
    for line in map(json.loads, lines):
        segments = [Segment(part["start"], part["end"], part["text"]) for part in line["segments"]]
        rows.append(chunk_rows(str(FOLDER / line["audio"]), pack_segments(segments), language=LANGUAGE))
    turns = (row for turn in zip_longest(*rows) for row in turn if row is not None)
    return list(islice(turns, count))
