"""The laboratory's recipes and its speech: rows that differ in one setting, lectures that come out as planned."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from k2d_hf import load_recipe
from k2d_hf.planning.plan import plan_run

LAB = Path(__file__).parents[1] / "recipes" / "lab"
ROWS = ["full", "trivial", "mer", "per", "composite"]
RATE = 16_000


@pytest.fixture(scope="module")
def speech():
    """The modules that make the speech, all but the voices."""
    sys.path.insert(0, str(LAB / "speech"))
    import lectures
    import make_speech

    yield lectures, make_speech
    sys.path.remove(str(LAB / "speech"))


def tone(text, voice, speed):
    """A voice that needs no model: a second of sound for five characters."""
    return 0.1 * np.sin(np.arange(int(RATE * len(text) / 5 / speed)))


def test_rows_differ_in_their_metric_and_their_name_alone():
    recipes = [load_recipe(LAB / f"{row}.yaml", elsewhere=True) for row in ROWS]
    assert [recipe.validate.metric for recipe in recipes] == ROWS
    alike = {repr({**vars(recipe), "name": None, "validate": None}) for recipe in recipes}
    assert len(alike) == 1
    assert recipes[0].student.decoder_layers == [0, 1, 3, 5]


@pytest.mark.parametrize("row", ROWS)
def test_each_row_has_a_plan(row):
    plan = plan_run(load_recipe(LAB / f"{row}.yaml", [f"name=planned-{row}"], elsewhere=True))
    assert (plan.steps, plan.batch, plan.student.decoder_layers) == (300, 4, 4)


@pytest.mark.parametrize("scene", ["lecture", "hard"])
def test_a_lecture_is_as_long_as_asked_and_its_segments_are_in_order(speech, scene):
    lectures, _ = speech
    random = Random(3)
    sentences = lectures.lecture_sentences("ml")
    sound, segments, ratio = lectures.lecture(random, lectures.SCENES[scene], sentences, tone, "any", 60)
    assert 60 <= len(sound) / RATE < 60 + 20
    assert np.abs(sound).max() <= 0.9 + 1e-6
    times = [time for segment in segments for time in (segment["start"], segment["end"])]
    assert times == sorted(times)
    assert lectures.SCENES[scene].quietest <= ratio <= lectures.SCENES[scene].loudest


def test_the_same_seed_says_the_same(speech):
    lectures, _ = speech
    made = [
        lectures.lecture(Random(7), lectures.SCENES["hard"], lectures.lecture_sentences("bio"), tone, "any", 20)
        for _ in range(2)
    ]
    assert made[0][1] == made[1][1]
    assert np.array_equal(made[0][0], made[1][0])


@pytest.fixture(scope="module")
def laboratory():
    """The script that runs it."""
    spec = importlib.util.spec_from_file_location("laboratory", LAB / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_begins_with_the_labels_and_what_was_measured_of_the_teacher(laboratory, tmp_path):
    labels, first, second = (tmp_path / name for name in ("labels", "first", "second"))
    for file in ("chunks/state.json", "resume/targets-1/a.arrow", "resume/distil-1/b", "student/model", "log.txt"):
        (labels / file).parent.mkdir(parents=True, exist_ok=True)
        (labels / file).write_text(file, encoding="utf-8")
    laboratory.begin(first, labels, [first, second])
    copied = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert copied == ["chunks/state.json", "resume/targets-1/a.arrow"]
    (first / "resume" / "evaluate-1.json").write_text("{}", encoding="utf-8")
    laboratory.begin(second, labels, [first, second])
    assert not (second / "resume" / "evaluate-1.json").exists()  # the first is at it still
    shutil.rmtree(second)
    (first / "evaluation.json").write_text("{}", encoding="utf-8")
    laboratory.begin(second, labels, [first, second])
    assert (second / "resume" / "evaluate-1.json").exists()
    (first / "chunks" / "state.json").write_text("its own", encoding="utf-8")
    laboratory.begin(first, labels, [first, second])
    assert (first / "chunks" / "state.json").read_text(encoding="utf-8") == "its own"


def test_no_two_splits_share_a_seed_and_manifests_name_audio_from_where_they_lie(speech, tmp_path):
    _, make_speech = speech
    seeds = [plan["seed"] for plan in make_speech.SPLITS.values()]
    assert len(set(seeds)) == len(seeds)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rows.jsonl").write_text('{"audio": "x.opus"}\n', encoding="utf-8")
    make_speech.write_manifest(tmp_path / "all.jsonl", [(tmp_path / "a" / "rows.jsonl", tmp_path / "a")])
    assert json.loads((tmp_path / "all.jsonl").read_text(encoding="utf-8")) == {"audio": "a/x.opus"}
