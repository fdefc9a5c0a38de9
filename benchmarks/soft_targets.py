"""Soft targets against the teacher in every step: loss, final mixed error rate, time, and bytes on disk.

The quickstart's recipe of one round is run once. Then its student is distilled again from the same labels, for several
seeds: with the teacher online, with its stored hidden states, with its 32 top tokens, and with hidden states and frozen
embeddings. What is done stays in the folder of results, so a run that was stopped goes on. Some 4 minutes a training on
two cores.

    python benchmarks/soft_targets.py --seeds 3 --output runs/soft-targets
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import measure
import torch
from datasets import load_from_disk
from transformers import WhisperProcessor

from k2d_hf import K2DTrainer, K2DTrainingArguments, load_recipe, run_recipe
from k2d_hf.models import resolve_checkpoint

RECIPE = Path(__file__).parents[1] / "recipes" / "quickstart" / "one_round.yaml"
SIDES = {
    "online": ["targets.enabled=false"],
    "hidden": ["targets.enabled=true"],
    "top": ["targets.enabled=true", "targets.kind=top"],
    "hidden_frozen_embeddings": ["targets.enabled=true", "distil.freeze_embeddings=true"],
}


def train(base: Path, output: Path, sets: list[str]) -> dict[str, Any]:
    """Distil and evaluate again from the labels of `base`; figures of the student."""
    if not output.exists():
        shutil.copytree(base, output)
    run_recipe(load_recipe(RECIPE, [*sets, "evaluate.before=false", f"output={output}"]))
    evaluation = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    log = json.loads((output / "student" / "training_log.json").read_text(encoding="utf-8"))
    return {
        "mer": evaluation["student"]["mer"],
        "teacher_mer": evaluation["teacher"]["mer"],
        "train_seconds": round(next(entry["train_runtime"] for entry in log if "train_runtime" in entry), 1),
        "loss": round(next(entry["train_loss"] for entry in log if "train_loss" in entry), 4),
    }


def losses(student: Path, stored: dict[str, Path], batches: int = 8) -> dict[str, float]:
    """Loss and KL of one student on the same batches, with the teacher online and with its stored targets."""
    recipe = load_recipe(RECIPE)
    teacher = str(resolve_checkpoint(recipe.teacher).path)
    found: dict[str, float] = {}
    for side, folder in {"online": next(iter(stored.values())), **stored}.items():
        with tempfile.TemporaryDirectory() as unused:
            trainer = K2DTrainer(
                str(student),
                K2DTrainingArguments(unused, report_to="none", use_cpu=True, language=recipe.language),
                teacher_model=teacher if side == "online" else None,
                train_dataset=load_from_disk(str(folder)),
                processing_class=WhisperProcessor.from_pretrained(student),
            )
        sums = []
        rows: Any = trainer.train_dataset
        with torch.no_grad():
            for at in range(batches):
                batch = trainer.data_collator([rows[(4 * at + i) % len(rows)] for i in range(4)])
                sums.append(trainer.loss_sums(trainer.model, batch))
        tokens = sum(part.tokens for part in sums)
        found[f"loss_{side}"] = round(sum(float(part.total) for part in sums) / tokens, 4)
        found[f"kl_{side}"] = round(sum(float(part.kl) for part in sums) / tokens, 4)
    return found


def megabytes(folder: Path, pattern: str) -> float:
    """Size of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob(pattern)) / 1e6


def main() -> None:
    """Train all sides with all seeds, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/soft-targets"))
    settings = parser.parse_args()
    base = settings.output / "base"
    run_recipe(load_recipe(RECIPE, [*SIDES["hidden"], "evaluate.before=false", f"output={base}"]))
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for seed in range(settings.seeds):
        for side, sets in SIDES.items():
            output = settings.output / f"{side}-{seed}"
            results[side].append(train(base, output, [*sets, f"distil.seed={seed}"]))
    rows = load_from_disk(str(base / "targets"))
    kept = [index for index, keep in enumerate(rows["keep"]) if keep]
    hours = sum(rows.select(kept)["duration"]) / 3600
    plain = megabytes(base / "validated", "*.arrow")
    top = settings.output / "top-0" / "targets"
    measure.report(
        "soft_targets",
        {
            "teacher_mer": results["online"][0]["teacher_mer"],
            "mer": {side: [round(run["mer"], 4) for run in runs] for side, runs in results.items()},
            "mer_median": {side: measure.median([run["mer"] for run in runs]) for side, runs in results.items()},
            "train_seconds": {
                side: statistics.median(run["train_seconds"] for run in runs) for side, runs in results.items()
            },
            "untrained": losses(base / "student-before", {"hidden": base / "targets", "top": top}),
            "trained": losses(base / "student", {"top": top}),  # hidden states want the embedding as it was
            "megabytes_per_hour": {
                "hidden states of the teacher": round((megabytes(base / "targets", "*.arrow") - plain) / hours, 1),
                "32 top tokens": round((megabytes(top, "*.arrow") - plain) / hours, 1),
                "encoder states": round(megabytes(base / "resume" / "encoder-states", "*.npy") / hours, 1),
            },
        },
        packages=("torch", "transformers", "ctranslate2"),
    )


if __name__ == "__main__":
    main()
