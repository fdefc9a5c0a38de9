"""Run the laboratory: every row of the paper's Table 2 with every seed, then compare them.

    python recipes/lab/run.py                       # five rows, three seeds, two runs at a time on two cores
    python recipes/lab/run.py --rows full composite --seeds 1 2 3 --set distil.max_steps=1200
    python recipes/lab/run.py --rows composite bare cut mask agreement      # what a setting is worth

The run `labels-of-lab` comes first and keeps every chunk, so that teacher and auxiliary hear each once; the others
begin with a copy of it. What is there already is up to date and takes seconds: a laboratory that was stopped goes on
where it was. Runs at the same time have cores of their own, so that all are measured alike.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from k2d_hf.evaluation.comparison_table import write_comparison
from k2d_hf.pipeline.commands.compare import compare

HERE = Path(__file__).parent
ROWS = ["full", "trivial", "mer", "per", "composite"]
CHANGED = {  # the row "composite" with what the paper does not have, or without what the students begin with
    "bare": ["student.init=null", "distil.peft=null", "distil.learning_rate=3.0e-4", "distil.initial_share=0"],
    "rounds": ["rounds=2"],
    "auxiliary-0.1": ["distil.auxiliary_weight=0.1"],
    "auxiliary-0.3": ["distil.auxiliary_weight=0.3"],
    "soft": ["distil.chunk_weighting=soft"],
    "augment": ["distil.augment=0.5"],
    "on-policy": ["distil.on_policy=0.2"],
    "silence": ["label.silence=0.05"],
    "cut": ["validate.unit=segment", "validate.keep=cut"],
    "mask": ["validate.unit=segment", "validate.keep=mask"],
    "agreement": ["distil.token_weighting=agreement"],
    "language-mix": ["student.language_mix.zh=0.5", "student.language_mix.en=0.5"],
    "dora": ["distil.peft.use_dora=true", "distil.initial_share=0"],
    "narrow": [
        *("student.encoder_neurons=1024", "distil.freeze_encoder=false", "distil.encoder_weight=1.0"),
        *("distil.encoder_states_dir=null", "distil.initial_share=0"),
    ],
}
OF_ANOTHER = {"silence": "trivial"}  # rows of another recipe than composite, whose auxiliary writes into silence
OF_ONE_RUN = shutil.ignore_patterns(
    "student", "report.html", "calibration.*", "evaluation*", "log.txt", "distil-*", ".*"
)
CORES = sorted(os.sched_getaffinity(0))


def main() -> None:
    """Run what is asked for, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *CHANGED], default=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--prefix", default="lab", help="what the runs' names begin with")
    parser.add_argument("--jobs", type=int, default=len(CORES), help="runs at the same time, each with as many cores")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="in all recipes")
    arguments = parser.parse_args()
    labels = Path(f"runs/labels-of-{arguments.prefix}")
    once = ["evaluation=null", "distil.max_steps=1", "targets.enabled=true", "report.enabled=false"]
    run("full", labels, 1, [*arguments.set, *once], CORES)
    wanted = [(row, seed) for seed in arguments.seeds for row in arguments.rows]
    folders = [Path(f"runs/{arguments.prefix}-{row}-{seed}") for row, seed in wanted]
    free: SimpleQueue[list[int]] = SimpleQueue()
    for job in range(arguments.jobs):
        free.put(CORES[job :: arguments.jobs])

    def one(row: str, seed: int, folder: Path) -> None:
        begin(folder, labels, folders, rounds=row == "rounds")
        cores = free.get()
        try:
            run(row, folder, seed, arguments.set, cores)
        finally:
            free.put(cores)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for _ in pool.map(one, *zip(*wanted, strict=True), folders):
            pass
    print(write_comparison(compare(folders), None))


def begin(folder: Path, labels: Path, others: Iterable[Path], *, rounds: bool = False) -> None:
    """Copy labels, targets, and what was measured of the teacher, unless the run has begun; of rounds to the first."""
    if folder.exists():
        return
    shutil.copytree(labels, folder / "round-1" if rounds else folder, ignore=OF_ONE_RUN)
    (folder / "resume").mkdir(exist_ok=True)
    for measured in measurements(others):
        shutil.copy2(measured, folder / "resume")


def measurements(folders: Iterable[Path]) -> Iterator[Path]:
    """What evaluation keeps for the next run, of the first run that has finished it."""
    for folder in folders:
        if (folder / "evaluation.json").exists():
            yield from (folder / "resume").glob("evaluate-*.json")
            return


def run(row: str, folder: Path, seed: int, settings: list[str], cores: list[int]) -> None:
    """One run of `k2d run`, in a process of its own on some cores."""
    sets = [f"name={folder.name}", f"distil.seed={seed}", *CHANGED.get(row, []), *settings]
    recipe = HERE / f"{row if row in ROWS else OF_ANOTHER.get(row, 'composite')}.yaml"
    command = [sys.executable, "-m", "k2d_hf", "run", str(recipe), "--quiet"]
    command += [part for setting in sets for part in ("--set", setting)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores))}
    print(f"{folder}: begins", flush=True)
    subprocess.run(command, env=environment, preexec_fn=partial(os.sched_setaffinity, 0, cores), check=True)
    print(f"{folder}: done", flush=True)


if __name__ == "__main__":
    main()
