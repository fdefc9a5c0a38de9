"""A model in float32 and in int8, as faster-whisper runs both: errors, seconds, room on the disk.

python benchmarks/number_formats.py runs/quickstart/student
python benchmarks/number_formats.py runs/quickstart/student openai/whisper-base --beam-size 1
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import measure
import quickstart

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.exports.ctranslate2_format import FORMAT
from k2d_hf.scoring.error_rates import mixed_errors
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions

FORMATS = ("float32", "int8")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="checkpoints, runs' students, adapters")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    decoding: dict[str, Any] = {
        "language": quickstart.LANGUAGE,
        "beam_size": options.beam_size,
        "temperatures": (0.0,),  # what fallback samples takes other seconds each time
        "condition_on_previous_text": False,
    }
    audio, reference = lecture()
    texts: dict[str, str] = {}

    def run(name: str, transcriber: Any) -> None:
        (transcript,) = transcriber.transcribe([audio])
        texts[name] = " ".join(segment.text for segment in transcript.segments)

    sides, room = {}, {}
    for model in options.models:
        path = resolve_checkpoint(model).path
        for number_format in FORMATS:
            name = f"{model} {number_format}"
            transcriber = open_transcriber(
                path, DecodingOptions(**decoding, dtype=number_format), engine="faster-whisper"
            )
            sides[name] = partial(run, name, transcriber)
            folder = FORMAT.cached(path, quantization=None if number_format == "float32" else number_format)
            room[name] = (folder / "model.bin").stat().st_size / 1e6
    seconds = measure.in_turns(sides, rounds=options.rounds)
    figures: dict[str, Any] = {"minutes": round(len(audio) / SAMPLE_RATE / 60, 2), "beam_size": options.beam_size}
    for name, taken in seconds.items():
        errors = mixed_errors(reference, texts[name]).mixed
        figures[name] = {
            "mer": round(100 * errors.rate, 1),
            "s_d_i": [errors.substitutions, errors.deletions, errors.insertions],
            "seconds": measure.median(taken),
            "megabytes": round(room[name], 1),
        }
    for model in options.models:
        figures[f"{model}: int8 times faster"] = measure.ratio(seconds, f"{model} float32", f"{model} int8")
    for number_format in FORMATS:
        first, *others = (f"{model} {number_format}" for model in options.models)
        figures |= {f"{first} times faster than {other}": measure.ratio(seconds, other, first) for other in others}
    measure.report("number_formats", figures, packages=["k2d_hf", "faster-whisper", "ctranslate2"])


def lecture() -> tuple[Any, str]:
    """The quickstart's development lecture and what is said in it."""
    row = json.loads((quickstart.FOLDER / "dev.jsonl").read_text(encoding="utf-8").splitlines()[0])
    audio = read_audio(quickstart.FOLDER / row["audio"])
    return audio, " ".join(part["text"] for part in row["segments"])


if __name__ == "__main__":
    main()
