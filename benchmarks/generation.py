"""How fast a student with two decoder layers writes, against its teacher, at equal numbers of tokens.

Weights are random and every row writes the same number of tokens, greedily, whatever they are. `whole` is features to
tokens, `decoder` the same less one pass of the encoder, which both have alike.

    python benchmarks/generation.py                                                # Whisper base on a CPU
    python benchmarks/generation.py --geometry large-v2 --device cuda --dtype float16
"""

from __future__ import annotations

import argparse
from typing import Any

import measure
import torch
from training_step import FRAMES, GEOMETRIES, MEL_BINS, whisper

from k2d_hf import create_student


def sides(settings: argparse.Namespace) -> dict[str, Any]:
    """Teacher and student, ready to write."""
    torch.manual_seed(0)
    teacher = whisper(settings.geometry, settings.device)
    student = create_student(teacher, settings.decoder_layers)
    dtype = getattr(torch, settings.dtype)
    return {
        name: model.to(settings.device, dtype).eval() for name, model in (("teacher", teacher), ("student", student))
    }


@torch.no_grad()
def figures(models: dict[str, Any], batch: int, settings: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both, and how many times faster the student is, for one size of batch."""
    synchronise = torch.cuda.synchronize if settings.device == "cuda" else lambda: None
    features = torch.randn(batch, MEL_BINS, FRAMES).to(settings.device, models["teacher"].dtype)
    options = {"do_sample": False, "num_beams": 1, "return_timestamps": False, "max_new_tokens": settings.tokens}

    def write(model: Any) -> None:
        # suppressing the end makes every row as long as the others
        ids = model.generate(
            features, suppress_tokens=[model.config.eos_token_id], begin_suppress_tokens=None, **options
        )
        assert ids.shape[-1] >= settings.tokens, ids.shape

    runs = {name: (lambda model=model: write(model)) for name, model in models.items()}
    runs["encoder"] = lambda: models["teacher"].model.encoder(features)
    seconds = measure.in_turns(runs, rounds=settings.rounds, synchronise=synchronise)
    encoder = measure.median(seconds["encoder"])
    decoders = {name: [run - encoder for run in seconds[name]] for name in models}
    return {
        "seconds": {name: measure.median(taken) for name, taken in seconds.items()},
        "whole": measure.ratio(seconds, "teacher", "student"),
        "decoder": measure.ratio(decoders, "teacher", "student"),
    }


def main() -> None:
    """Measure each size of batch and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--geometry", default="base", choices=GEOMETRIES)
    parser.add_argument("--decoder-layers", type=int, default=2, help="of the student")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=120, help="written by each row")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    models = sides(settings)
    measured = {f"batch_{batch}": figures(models, batch, settings) for batch in settings.batches}
    asked = {name: getattr(settings, name) for name in ("geometry", "decoder_layers", "device", "dtype", "tokens")}
    measure.report("generation", {**asked, **measured}, packages=("torch", "transformers"))


if __name__ == "__main__":
    main()
