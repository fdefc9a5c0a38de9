"""Greedy transcription by a teacher alone, and with its student as assistant: the same text, in what part of the time.

python benchmarks/assistant.py recipes/quickstart/start                # two decoder layers
python benchmarks/assistant.py runs/quickstart/student --minutes 3     # four
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import measure
import quickstart

from k2d_hf.audio.reader import read_audio
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assistant", help="student with the teacher's encoder")
    parser.add_argument("--teacher", help="checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--minutes", type=float, default=1.5, help="from the start of the first lecture")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkpoint = quickstart.checkpoint(options.teacher)
    audio = read_audio(quickstart.lectures()[0], 0.0, options.minutes * 60)
    greedy: dict[str, Any] = {
        "language": quickstart.LANGUAGE,
        "beam_size": 1,
        "temperatures": (0.0,),
        "condition_on_previous_text": False,
    }
    texts: dict[str, str] = {}

    def run(name: str, transcriber: Any) -> None:
        (transcript,) = transcriber.transcribe([audio])
        texts[name] = "".join(segment.text for segment in transcript.segments)

    sides = {}
    for name, assistant in (("alone", None), ("assisted", options.assistant)):
        decoding = DecodingOptions(**greedy, assistant=assistant)
        sides[name] = partial(run, name, open_transcriber(checkpoint, decoding, engine="transformers"))
    seconds = measure.in_turns(sides, rounds=options.rounds)
    figures = {
        "minutes": options.minutes,
        **{f"{name}_s": measure.median(taken) for name, taken in seconds.items()},
        "times_faster": measure.ratio(seconds, "alone", "assisted"),
        "same_text": texts["alone"] == texts["assisted"],
    }
    measure.report("assistant", figures, packages=["k2d_hf", "transformers", "torch"])


if __name__ == "__main__":
    main()
