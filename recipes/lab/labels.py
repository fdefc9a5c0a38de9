"""What the teacher's labels of the laboratory are like, split by split, and what each metric finds in them.

    python recipes/lab/labels.py runs/labels-of-lab/validated lab-speech/train.jsonl

A label is bad if its true MER is above 0.4, and loops by Eq. 1 of the paper; a true MER counts as 1 at most.
"""

import argparse
import re
from pathlib import Path

import datasets
import numpy as np

from k2d_hf.validation.calibrate import validated_labels
from k2d_hf.validation.calibration import BAD_MER, ValidatedLabels, metric_distances
from k2d_hf.validation.distance import METRICS

HEAD = ["split", "chunks", "minutes", "loops", "bad", "true MER", *METRICS]


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("validated", help="validated chunks")
    parser.add_argument("references", help="manifest of what was said")
    parser.add_argument("--alpha", type=float, default=0.4)
    arguments = parser.parse_args()
    chunks = datasets.load_from_disk(arguments.validated)
    labels = validated_labels(chunks, arguments.references)
    keeps = {metric: metric_distances(labels, metric) <= arguments.alpha for metric in METRICS}
    splits = np.array([re.sub(r"_\d+$", "", Path(recording).stem) for recording in chunks["recording"]])
    print("| " + " | ".join(HEAD) + " |\n|" + " --- |" * len(HEAD))
    for name in [*dict.fromkeys(splits), "all"]:
        chosen = (splits == name) | (name == "all")
        print("| " + " | ".join([name, *cells(labels, keeps, chosen)]) + " |")
    found = "share kept, share of the bad labels dropped, true MER of what is kept"
    print(f"\nUnder a metric, at alpha {arguments.alpha:g}: {found}.")


def cells(labels: ValidatedLabels, keeps: dict[str, np.ndarray], chosen: np.ndarray) -> list[str]:
    """The cells of one split after its name."""
    bad, capped = labels.true_mer > BAD_MER, np.minimum(labels.true_mer, 1)
    minutes = labels.seconds[chosen].sum() / 60
    counts = [chosen.sum(), round(minutes), labels.teacher_loops[chosen].sum(), bad[chosen].sum()]
    found = [
        f"{percent(keep[chosen])}, {percent(~keep[chosen & bad])}, {mean(capped[chosen & keep])}"
        for keep in keeps.values()
    ]
    return [*map(str, counts), mean(capped[chosen]), *found]


def percent(values: np.ndarray) -> str:
    """The share that is true."""
    return f"{100 * values.mean():.0f}%" if len(values) else "-"


def mean(rates: np.ndarray) -> str:
    """The mean; - of nothing."""
    return f"{rates.mean():.3f}" if len(rates) else "-"


if __name__ == "__main__":
    main()
