"""Run the laboratory: every row of the paper's Table 2 with every seed, then compare them.

    python recipes/lab/run.py                       # five rows, three seeds
    python recipes/lab/run.py --rows full composite --seeds 1 2 3 --set distil.max_steps=1200

The first run labels; the others begin with a copy of it, so that teacher and auxiliary hear each chunk once. What is
there already is up to date and takes seconds: a laboratory that was stopped goes on where it was.
"""

import argparse
import shutil
from pathlib import Path

from k2d_hf import load_recipe, run_recipe
from k2d_hf.evaluation.comparison_table import write_comparison
from k2d_hf.stages import compare

HERE = Path(__file__).parent
ROWS = ["full", "trivial", "mer", "per", "composite"]
OF_ONE_RUN = shutil.ignore_patterns("student", "report.html", "calibration.*", "log.txt", ".*")


def main() -> None:
    """Run what is asked for, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--prefix", default="lab", help="what the runs' names begin with")
    parser.add_argument("--set", action="append", default=[], metavar="key=value", help="in all recipes")
    arguments = parser.parse_args()
    finished: list[Path] = []
    for seed in arguments.seeds:
        for row in arguments.rows:
            name = f"{arguments.prefix}-{row}-{seed}"
            recipe = load_recipe(HERE / f"{row}.yaml", [f"name={name}", f"distil.seed={seed}", *arguments.set])
            if finished and not recipe.directory.exists():
                shutil.copytree(finished[0], recipe.directory, ignore=OF_ONE_RUN)
            run_recipe(recipe)
            finished.append(recipe.directory)
    print(write_comparison(compare(finished), None))


if __name__ == "__main__":
    main()
