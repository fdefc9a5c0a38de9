"""What waits for a GPU runs in small on a CPU, a line of JSON for each part, and no failing part stops the others."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "on_gpu.py"


def lines_of(*options):
    """What it prints, by part, in its order."""
    command = [sys.executable, str(SCRIPT), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line.pop("part"): line for line in lines}


@pytest.fixture(scope="module")
def found():
    """One run of everything."""
    return lines_of("--tiny", "--device", "cpu")


def test_every_part_runs_in_small_or_says_which_package_it_lacks(found):
    assert list(found)[0] == "packages"
    assert list(found)[-2:] == ["ratios", "done"]
    lacking = {"liger": "liger_kernel", "faster_whisper": "faster_whisper"}
    for part, figures in found.items():
        absent = [module for name, module in lacking.items() if name in part and not importlib.util.find_spec(module)]
        if absent:
            assert absent[0].replace("_", "-") in found["packages"]["missing"]
            assert "error" in figures
        elif "liger" not in part:  # whose kernels a CPU does not run
            assert "error" not in figures, (part, figures)
    assert all(part.startswith("loss_liger") or "faster" in part for part in found["done"]["failed"])


def test_what_the_parts_say_is_what_they_are_for(found):
    assert found["exactness"]["loss"] < 1e-5
    assert max(found["exactness"][f"gradient_by_{name}"] for name in ("hidden_states", "embedding")) < 1e-4
    assert found["training"]["losses"][-1] < found["training"]["losses"][0]
    losses = [found[f"loss_{kind}"]["loss"] for kind in ("plain", "plain_compiled", "blockwise", "blockwise_1024")]
    assert losses == pytest.approx([losses[0]] * 4, rel=2e-2)
    assert set(found["ratios"]) == {f"{side}_1" for side in ("exact", "hidden", "hidden_cached", "exact_compiled")}
    assert found["labelling_transformers"]["seconds"] > 0
    assert found["generation"]["batch_1"]["decoder"]["median"] > 0


def test_a_part_that_fails_gives_a_line_and_the_next_one_runs():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import on_gpu
    finally:
        sys.path.remove(str(SCRIPT.parent))

    def dies(plan):
        os._exit(9)

    def raises(plan):
        raise MemoryError("no room\nat all")

    def sleeps(plan):
        import time

        time.sleep(60)

    assert on_gpu.alone(raises, None, 10) == {"error": "MemoryError: no room"}
    assert on_gpu.alone(dies, None, 10) == {"error": "its process ended with 9"}
    assert on_gpu.alone(lambda plan: {"seconds": 1}, None, 10) == {"seconds": 1}
    assert on_gpu.alone(sleeps, None, 1.0) == {"error": "not done in 1 s"}
    assert on_gpu.alone(sleeps, None, 0.0) == {"error": "no time was left for it"}
