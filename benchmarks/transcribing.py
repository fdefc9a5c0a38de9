"""`k2d transcribe` against whisper-ctranslate2, two commands for the same file, from their start to their end.

Both search with five beams in int8 on one thread, without the text before. By default neither samples, so that both
always do the same work; with `--fallback` both decode bad windows again, whisper-ctranslate2 by chance and thus with
other work each time. A figure is the processor's time of a process, which other work on the machine changes less than
the clock's. `same_words` says whether both wrote the same, whatever their lines.

    python -m venv .venv-peer && .venv-peer/bin/pip install whisper-ctranslate2==0.5.8
    python benchmarks/transcribing.py --peer .venv-peer/bin/whisper-ctranslate2
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import quickstart

from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2

_TIMES = re.compile(r"^(\d+|[\d:,]+ --> [\d:,]+)$", re.MULTILINE)


def processor_seconds(command: list[str], errors: Path) -> float:
    """Run a command with one thread; what it and its children took of the processor."""
    with errors.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{errors.read_text()[-2000:]}")
    return used.ru_utime + used.ru_stime


def words(subtitles: Path) -> str:
    """What is said in an SRT file, without blanks: a language may be written with some or without."""
    return "".join(_TIMES.sub("", subtitles.read_text(encoding="utf-8")).split())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="whisper-ctranslate2", help="its command; it has an environment of its own")
    parser.add_argument("--model", help="checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--minutes", type=float, default=3.0, help="from the start of each lecture")
    parser.add_argument("--files", type=int, default=1, help="lectures, one after the other")
    parser.add_argument("--fallback", action="store_true", help="decode bad windows again, hotter")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkpoint = quickstart.checkpoint(options.model)
    converted = CTRANSLATE2.cached(checkpoint)
    ours: list[float] = []
    peers: list[float] = []
    same = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [quickstart.cut(one, options.minutes * 60, folder) for one in quickstart.lectures()[: options.files]]
        for turn in range(options.rounds + 1):
            for file in files:
                own = [sys.executable, "-m", "k2d_hf", "transcribe", str(file), "--model", str(checkpoint)]
                own += ["--language", quickstart.LANGUAGE, "--dtype", "int8", "--format", "srt", "--output", name]
                own += ["--overwrite", "--temperature-fallback", str(options.fallback).lower()]
                peer = [options.peer, str(file), "--model_directory", str(converted), "--compute_type", "int8"]
                peer += ["--language", quickstart.LANGUAGE, "--beam_size", "5", "--threads", "1"]
                peer += ["--condition_on_previous_text", "False", "--output_format", "srt"]
                peer += ["--output_dir", f"{name}/peer"]
                peer += [] if options.fallback else ["--temperature_increment_on_fallback", "None"]
                taken = processor_seconds(own, folder / "log"), processor_seconds(peer, folder / "log")
                if turn:  # the first has files to bring into memory
                    ours.append(taken[0])
                    peers.append(taken[1])
                    written = f"{file.stem}.srt"
                    same += words(folder / written) == words(folder / "peer" / written)
    figures = {
        "minutes": options.minutes,
        "fallback": options.fallback,
        "ours_s": measure.median(ours),
        "peer_s": measure.median(peers),
        "ratio": measure.ratio({"ours": ours, "peer": peers}, "ours", "peer"),
        "whole_ratio": round(sum(ours) / sum(peers), 3),
        "same_words": f"{same} of {len(ours)}",
    }
    measure.report("transcribing", figures, packages=["k2d_hf", "faster-whisper", "ctranslate2"])


if __name__ == "__main__":
    main()
