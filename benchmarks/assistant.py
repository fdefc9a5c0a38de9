"""Greedy transcription by a teacher alone, and with its student as assistant: the same text, in what part of the time.

python benchmarks/assistant.py runs/quickstart/student --minutes 3    # two decoder layers
python benchmarks/assistant.py runs/one-round/student --minutes 3     # four
python benchmarks/assistant.py recipes/quickstart/start --decoder-layers 6 12 24 32   # how deep a teacher must be

A deeper decoder is the teacher's own with layers that add nothing behind it: the same text, at the price of its depth.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import measure
import quickstart

from k2d_hf.audio.reader import read_audio
from k2d_hf.models import load_whisper
from k2d_hf.models.processors import load_processor
from k2d_hf.models.student_folder import save_student
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assistant", help="student with the teacher's encoder")
    parser.add_argument("--teacher", help="checkpoint; by default the quickstart's Whisper base")
    parser.add_argument("--minutes", type=float, default=1.5, help="from the start of the first lecture")
    parser.add_argument("--decoder-layers", type=int, nargs="+", help="depths of the teacher; by default its own")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkpoint = quickstart.checkpoint(options.teacher)
    if not options.decoder_layers:
        compare(checkpoint, options)
    for layers in options.decoder_layers or ():
        with tempfile.TemporaryDirectory() as folder:
            compare(deepened(checkpoint, layers, Path(folder)), options)


def deepened(checkpoint: Path, layers: int, folder: Path) -> Path:
    """The model with so many decoder layers, the new ones last and without effect, in a folder."""
    model = load_whisper(checkpoint)
    decoder: Any = model.model.decoder
    while len(decoder.layers) < layers:
        layer = copy.deepcopy(decoder.layers[-1])
        for last in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            last.weight.data.zero_()
            last.bias.data.zero_()
        decoder.layers.append(layer)
    model.config.decoder_layers = len(decoder.layers)
    save_student(model, load_processor(checkpoint), folder)
    return folder


def compare(checkpoint: Path, options: argparse.Namespace) -> None:
    """Measure a teacher with and without the assistant, and report."""
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
        "decoder_layers": load_whisper(checkpoint).config.decoder_layers,
        "minutes": options.minutes,
        **{f"{name}_s": measure.median(taken) for name, taken in seconds.items()},
        "times_faster": measure.ratio(seconds, "alone", "assisted"),
        "same_text": texts["alone"] == texts["assisted"],
    }
    measure.report("assistant", figures, packages=["k2d_hf", "transformers", "torch"])


if __name__ == "__main__":
    main()
