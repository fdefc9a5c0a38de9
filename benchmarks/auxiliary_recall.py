"""What a small auxiliary finds that the teacher, decoding each chunk again, does not: recall of bad labels, and speed.

The teacher labels recordings whose references are known, beam 5, with context. Then each auxiliary transcribes every
chunk from scratch, greedily; a label is bad if its true MER is above 0.4. An auxiliary that disagrees more drops more,
so recalls are compared at the same kept share: at each alpha the teacher drops as many chunks as the auxiliary does,
those that it disagrees with most, and where several are as far, the expected share of them. `same_chunks_faster` is
what the auxiliary's pass over the chunks takes, against the teacher's, in turns, models loaded.

    python benchmarks/auxiliary_recall.py recipes/lab/dev/dev.jsonl
    python benchmarks/auxiliary_recall.py lab-speech/train.jsonl --chunks runs/labels-of-lab/chunks --rounds 1
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

from k2d_hf import label_recordings, load_recordings, validate_labels
from k2d_hf.audio.reader import SAMPLE_RATE
from k2d_hf.evaluation.comparison import interval
from k2d_hf.models import resolve_checkpoint
from k2d_hf.pipeline.recipe import load_recipe
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions, Transcriber
from k2d_hf.validation.calibrate import validated_labels
from k2d_hf.validation.calibration import BAD_MER, COARSE_ALPHAS

THRESHOLD = 0.4


def auxiliary(checkpoint: Path, no_repeat_ngram_size: int, chunks: int, batch: int) -> Transcriber:
    """A greedy model, opened and warm."""
    options = DecodingOptions(
        language=quickstart.LANGUAGE,
        beam_size=1,
        no_repeat_ngram_size=no_repeat_ngram_size,
        condition_on_previous_text=False,
        batch_size=batch,
        device="cpu",
    )
    model = open_transcriber(checkpoint, options, engine="faster-whisper", calls_at_once=-(-chunks // batch))
    model.transcribe_chunks([np.zeros(SAMPLE_RATE, np.float32)])
    return model


def recall_at(distances: np.ndarray, bad: np.ndarray, kept: int) -> float:
    """Share of the bad labels among all but the `kept` nearest; of those that are as far as the last, the expected."""
    if kept == 0:
        return 1.0
    last = np.sort(distances)[kept - 1]
    nearer, as_far = distances < last, distances == last
    share = (kept - nearer.sum()) / as_far.sum()
    return 1.0 - float((bad & nearer).sum() + share * (bad & as_far).sum()) / float(bad.sum())


def recalls(distances: dict[str, np.ndarray], bad: np.ndarray) -> np.ndarray:
    """A row an alpha: share that the auxiliary keeps, its recall, the teacher's with as many chunks kept."""
    rows = []
    for alpha in COARSE_ALPHAS:
        keep = distances["auxiliary"] <= alpha
        rows.append((keep.mean(), (~keep)[bad].mean(), recall_at(distances["teacher"], bad, int(keep.sum()))))
    return np.array(rows)


def advantage_interval(distances: dict[str, np.ndarray], bad: np.ndarray, draws: int = 1000) -> list[float]:
    """Bootstrap 95% interval over chunks of the mean recall less the teacher's, of draws with a bad label."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        drawn = generator.integers(len(bad), size=len(bad))
        if bad[drawn].any():
            _, own, teachers = recalls({name: values[drawn] for name, values in distances.items()}, bad[drawn]).T
            found.append((own - teachers).mean())
    return [round(edge, 3) for edge in interval(np.array(found))]


def compared(distances: dict[str, np.ndarray], bad: np.ndarray) -> dict[str, Any]:
    """Recall of the auxiliary at each alpha, and of the teacher with as many chunks kept."""
    rows = recalls(distances, bad)
    own = [float((distances["teacher"][bad] > alpha).mean()) for alpha in COARSE_ALPHAS]
    return {
        "mean_recall": round(float(rows[:, 1].mean()), 3),
        "mean_recall_of_teacher_at_same_kept": round(float(rows[:, 2].mean()), 3),
        "advantage_interval": advantage_interval(distances, bad),
        "mean_recall_of_teacher_at_its_own": round(float(np.mean(own)), 3),
        "alpha_kept_recall_teachers": [
            [round(value, 3) for value in (alpha, *row)]
            for alpha, row in zip(COARSE_ALPHAS, rows.tolist(), strict=True)
        ],
        "teacher_kept": [round(float((distances["teacher"] <= alpha).mean()), 3) for alpha in COARSE_ALPHAS],
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("references", help="JSONL manifest of recordings with segments")
    parser.add_argument("--chunks", help="labels of these recordings that are there already")
    parser.add_argument("--auxiliary", help="checkpoint; by default the quickstart's")
    parser.add_argument(
        "--no-repeat",
        type=int,
        nargs=2,
        metavar=("TEACHER", "AUXILIARY"),
        help="no_repeat_ngram_size of each; by default 0 and what the quickstart's recipe says",
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    recipe = load_recipe(quickstart.FOLDER / "quickstart.yaml")
    teacher = resolve_checkpoint(recipe.teacher).path
    small = resolve_checkpoint(arguments.auxiliary or quickstart.FOLDER / "auxiliary").path
    if arguments.chunks:
        chunks = datasets.load_from_disk(arguments.chunks)
    else:
        chunks = label_recordings(load_recordings(arguments.references), str(teacher), language=quickstart.LANGUAGE)
    no_repeat = arguments.no_repeat or (0, recipe.validate.no_repeat_ngram_size)
    models = {
        name: auxiliary(path, size, len(chunks), arguments.batch)
        for name, path, size in zip(("teacher", "auxiliary"), (teacher, small), no_repeat, strict=True)
    }
    validated: dict[str, datasets.Dataset] = {}

    def run(name: str) -> None:
        validated[name] = validate_labels(chunks, models[name], threshold=THRESHOLD, batch_size=arguments.batch)

    seconds = measure.in_turns({name: partial(run, name) for name in models}, rounds=arguments.rounds, warmup=0)
    rates = validated_labels(validated["teacher"], arguments.references).true_mer
    bad = rates > BAD_MER
    distances = {name: np.array(rows["distance"]) for name, rows in validated.items()}
    kept = {name: values <= THRESHOLD for name, values in distances.items()}
    measure.report(
        "auxiliary_recall",
        {
            "no_repeat_ngram_size": dict(zip(models, no_repeat, strict=True)),
            "chunks": len(bad),
            "bad": int(bad.sum()),
            "looping_labels": int(np.sum(validated["teacher"]["teacher_loops"])),
            "mean_capped_true_mer": round(float(np.minimum(rates, 1).mean()), 3),
            f"kept_at_{THRESHOLD}": {
                name: {
                    "share": round(float(which.mean()), 3),
                    "capped_true_mer": round(float(np.minimum(rates[which], 1).mean()), 3),
                }
                for name, which in kept.items()
            },
            **(compared(distances, bad) if bad.any() else {}),
            "same_chunks_faster": measure.ratio(seconds, "teacher", "auxiliary"),
            "seconds": {name: [round(run, 2) for run in runs] for name, runs in seconds.items()},
            "parameters": {name: model.parameters for name, model in models.items()},
        },
        packages=["faster-whisper", "ctranslate2"],
    )


if __name__ == "__main__":
    main()
