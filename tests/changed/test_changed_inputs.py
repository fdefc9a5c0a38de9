"""A finished run, and other sound or other weights in a file of the same name and size: found, and done again."""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from changed.conftest import Workplace, write_sound
from changed.results import differences, results_of

pytestmark = pytest.mark.slow

ALL = os.environ.get("K2D_CHANGED") == "all"


@pytest.fixture(scope="module")
def base(workplace, tmp_path_factory):
    """A workplace of one's own, to change files in, and the folder of its finished run."""
    folder = tmp_path_factory.mktemp("inputs")
    place = Workplace(shutil.copytree(workplace.folder, folder / "workplace"), folder / "runs")
    output = place.new()
    place.run(output)
    return place, output


@pytest.fixture
def own(base, tmp_path):
    """The same with a copy of the run; the files of the workplace are as before when a test is done."""
    place, output = base
    kept = shutil.copytree(place.folder, tmp_path / "kept")
    yield place, shutil.copytree(output, tmp_path / "again")
    for path in kept.rglob("*"):
        if path.is_file() and path.stat().st_mtime_ns != (place.folder / path.relative_to(kept)).stat().st_mtime_ns:
            shutil.copy2(path, place.folder / path.relative_to(kept))


def replace_weights(folder, *, seed):
    """Other weights in the same file, of the same size."""
    path = folder / "model.safetensors"
    weights, size = load_file(path), path.stat().st_size
    generator = torch.Generator().manual_seed(seed)
    for name, values in weights.items():
        if "encoder" in name or "fc1" in name:
            values += 0.01 * torch.randn(values.shape, generator=generator)
    save_file(weights, path, metadata={"format": "pt"})
    assert path.stat().st_size == size


def replace_sound(path, *, seed):
    """Other sound in the same file, of the same size."""
    size, seconds = path.stat().st_size, (path.stat().st_size - 44) // 32000
    write_sound(path, seconds, seed)
    assert path.stat().st_size == size


REPLACED = {  # what is replaced: the first stage that has to be done again, and what must be another
    "one.wav dev.wav": ("label", ["targets", "student weights"]),
    "teacher": ("label", ["targets", "student-before weights", "student weights"]),
    "auxiliary": ("validate", []),
    "dev.wav": ("evaluate", []),
}


@pytest.mark.parametrize("change", REPLACED if ALL else list(REPLACED)[:3])
def test_what_was_replaced_in_place_is_found(own, change):
    place, output = own
    sets = [] if "dev.wav" in change else ["evaluation=null"]
    first, changed = REPLACED[change]
    before = results_of(output)
    for name in change.split():
        replace = replace_sound if name.endswith("wav") else replace_weights
        replace(place.folder / name, seed=7)
    assert place.run(output, *sets)[0] == first
    after = results_of(output)
    assert differences(after, place.fresh(*sets)) == []
    assert set(changed) <= set(differences(after, before))


def test_a_student_to_begin_with_that_was_replaced_is_trained_anew(own):
    place, output = own
    before = results_of(output)
    replace_weights(output / "student-before", seed=7)
    assert place.run(output) == ["distil", "evaluate", "card"]
    assert {"student weights", "student-before weights"} <= set(differences(results_of(output), before))


def test_a_student_that_was_replaced_is_evaluated_anew(own):
    place, output = own
    replace_weights(output / "student", seed=7)
    assert place.run(output) == ["evaluate", "card"]
