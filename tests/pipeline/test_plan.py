"""Plans: sizes by shape, hours by the table of throughputs, disk, and the dry run of every recipe that there is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from tiny_whisper import WHISPER_BASE, make_tiny_whisper

from k2d_hf import load_recipe
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.models.inspect import inspect_model
from k2d_hf.models.shapes import known_shape, shape_of_config
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.pipeline.planning.data_facts import inspect_data
from k2d_hf.pipeline.planning.plan_text import duration, gigabytes, render_plan
from k2d_hf.pipeline.planning.throughput import GPU, cores, decoding_seconds, training_operations
from k2d_hf.pipeline.recipe import DataSettings, EvaluationDataSettings

RECIPES = Path(__file__).parents[2] / "recipes"
LARGE_V2 = RECIPES / "k2d_large_v2_zh_en"
ROWS = sorted(path for path in LARGE_V2.glob("*.yaml") if "auxiliary" not in path.stem)
MINIMAL = "name: mine\nrecordings: lectures\nteacher: openai/whisper-base\nauxiliary: openai/whisper-tiny\n"
LARGE, BASE = known_shape("openai/whisper-large-v2"), known_shape("openai/whisper-base")


def plan_of(folder, text=MINIMAL, *sets):
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return plan_run(load_recipe(folder / "recipe.yaml", [f"output={folder}/run", *sets], elsewhere=True))


@pytest.fixture
def lectures(tmp_path):
    """Ten minutes in two files, and one that is no audio."""
    (tmp_path / "lectures").mkdir()
    for name in "ab":
        soundfile.write(tmp_path / "lectures" / f"{name}.wav", np.zeros(300 * 8000, np.int16), 8000)
    (tmp_path / "lectures" / "c.wav").write_text("no sound")
    return tmp_path


# Sizes


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("tiny", 37.76), ("base", 72.59), ("small", 241.73), ("medium", 763.86), ("large-v2", 1543.30),
        ("large-v3", 1543.49), ("large-v3-turbo", 808.88), ("base.en", 72.59),
    ],
)  # fmt: skip
def test_published_models_have_their_size(name, millions):
    assert known_shape(f"openai/whisper-{name}").parameters / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize(
    "name", ["openai/whisper-huge", "someone/whisper-base", "openai/whisper-large-v3.en", "teacher"]
)
def test_other_names_tell_nothing(name):
    assert known_shape(name) is None


def test_a_config_tells_the_size_of_the_model_that_it_makes():
    model = make_tiny_whisper(encoder_layers=3, mel_bins=128)
    assert shape_of_config(model.config.to_dict()).parameters == model.num_parameters()
    assert shape_of_config({"model_type": "bert"}) is None


def test_a_checkpoint_here_is_looked_at_and_not_loaded(tiny_whisper_dir):
    found = inspect_model(["openai/whisper-base", str(tiny_whisper_dir)])
    assert (found.name, found.where) == (str(tiny_whisper_dir), "folder")
    assert (found.shape.d_model, found.shape.decoder_layers) == (32, 4)


def test_wheels_are_known_by_their_name():
    found = inspect_model(WHISPER_BASE)
    assert (found.name, found.shape.parameters) == ("openai/whisper-base", BASE.parameters)


def test_a_model_that_cannot_be_had_now_is_planned_by_its_name():
    found = inspect_model(["someone/else", "openai/whisper-large-v2"])
    assert (found.name, found.shape, found.available) == ("openai/whisper-large-v2", LARGE, False)
    assert "HF_HUB_OFFLINE" in found.where


def test_a_model_of_which_nothing_is_known_is_an_error():
    with pytest.raises(K2DError, match="none of someone/else is here"):
        inspect_model("someone/else")


# Recordings


def test_hours_come_from_headers(lectures):
    facts = inspect_data(DataSettings(str(lectures / "lectures")))
    assert (facts.recordings, facts.note) == (3, "1 cannot be read")
    assert facts.seconds == 600


def test_of_many_recordings_some_are_looked_at(lectures, monkeypatch):
    monkeypatch.setattr("k2d_hf.pipeline.planning.data_facts.MOST_HEADERS", 1)
    facts = inspect_data(DataSettings(str(lectures / "lectures")))
    assert (facts.recordings, facts.seconds, facts.note) == (3, 900, "by 1 of 3 headers")


def test_joined_utterances_count_as_one(lectures):
    rows = [{"audio": f"lectures/{name}.wav", "text": "a", "session": 1} for name in "ab"]
    (lectures / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    facts = inspect_data(EvaluationDataSettings(str(lectures / "dev.jsonl"), join_by="session"))
    assert (facts.recordings, facts.seconds) == (1, 600)


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ("nowhere.jsonl", "not here"),
        ("org/set", "on the Hub, not looked at"),
        ("s3://bucket/x", "far away, not looked at"),
    ],
)
def test_what_is_not_here_is_not_counted(source, note):
    facts = inspect_data(DataSettings(source))
    assert (facts.recordings, facts.seconds, facts.note) == (None, None, note)


# Hours, steps and disk


def test_hours_of_the_paper_come_out():
    student = replace(LARGE, decoder_layers=2)
    chunk = training_operations(student, LARGE, encoder_passes=1, encoder_trains=False)
    assert 120_000 * 256 * chunk / GPU.operations / 3600 == pytest.approx(4 * 42, rel=0.05)


def test_a_quarter_of_an_hour_of_the_quickstart_comes_out():
    assert decoding_seconds(cores(2), BASE, 984, beam_size=5) == pytest.approx(49, rel=0.1)
    assert decoding_seconds(cores(2), BASE, 984, beam_size=1) == pytest.approx(26, rel=0.1)


def test_steps_follow_from_the_recordings(lectures):
    plan = plan_of(lectures, MINIMAL, "distil={num_train_epochs: 4, per_device_train_batch_size: 4}")
    assert (plan.chunks, plan.kept, plan.steps, plan.epochs) == (23, 17, 20, 4)
    plan = plan_of(lectures, MINIMAL, "distil={max_steps: 34, per_device_train_batch_size: 2}", "validate.metric=full")
    assert (plan.kept, plan.steps, plan.epochs) == (23, 34, pytest.approx(68 / 23))


def test_without_recordings_hours_are_for_a_thousand(tmp_path):
    plan = plan_of(tmp_path, MINIMAL, "distil.max_steps=10")
    stages = {stage.name: stage for stage in plan.stages}
    assert (plan.chunks, plan.steps, plan.epochs) == (None, 10, None)
    assert stages["label"].supposed
    assert stages["label"].seconds[0] > stages["validate"].seconds[0] > 0
    assert not stages["distil"].supposed


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ("distil.num_train_epochs=2", {"encoder states", "soft targets", "training checkpoints"}),
        ("distil.num_train_epochs=1", {"training checkpoints"}),
        ("distil={num_train_epochs: 2, save_strategy: 'no', freeze_encoder: false}", {"soft targets"}),
        ("distil={num_train_epochs: 2, keep_encoder_states: false, kl_weight: 0}", {"training checkpoints"}),
    ],
)
def test_disk_is_counted_for_what_is_written(lectures, sets, named):
    disk = plan_of(lectures, MINIMAL, sets).disk
    always = {"openai/whisper-base (cache)", "openai/whisper-tiny (cache)", "student, before and after"}
    assert set(disk) == always | named
    assert all(size > 0 for size in disk.values())


def test_every_model_that_a_run_fetches_has_its_disk(tmp_path):
    """Each once, whichever setting names it, and how often."""
    init, original = "openai/whisper-small", "openai/whisper-tiny.en"
    disk = plan_of(tmp_path, MINIMAL, f"student.init={init}", f"evaluate.adapted_from={original}").disk
    cached = [name for name in disk if name.endswith("(cache)")]
    models = ["openai/whisper-base", "openai/whisper-tiny", init, original]
    assert cached == [f"{model} (cache)" for model in models]


@pytest.mark.parametrize(
    ("sets", "lost"),
    [
        (["student.encoder_neurons=1024"], "student.encoder_neurons"),
        (["student.encoder_layers=3"], "student.encoder_layers"),
        (["student.encoder_layers=3", "student.encoder_neurons=1024"], "student.encoder_layers and student.encoder_n"),
        (["student.encoder_neurons=2048"], None),  # all of them
        (["student.encoder_neurons=1024", "distil.freeze_encoder=false"], None),
    ],
)
def test_an_encoder_that_loses_parts_and_is_not_trained_is_named(tmp_path, sets, lost):
    plan = plan_of(tmp_path, MINIMAL, "distil.max_steps=10", *sets)
    warned = [line for line in render_plan(plan).splitlines() if line.startswith("Warning: ")]
    assert [line.startswith(f"Warning: {lost}") for line in warned] == [True] * (lost is not None)


def test_fewer_neurons_make_a_smaller_student_with_an_encoder_of_its_own(tmp_path):
    plan = plan_of(tmp_path, MINIMAL, "distil.max_steps=10", "student.encoder_neurons=1024")
    assert BASE.encoder_parameters - plan.student.encoder_parameters == 6 * 1024 * (2 * 512 + 1)
    assert "(encoder layers 6 of 6 with 1024 neurons of 2048, decoder layers 0,5 of 6)" in render_plan(plan)
    assert not plan.shares_encoder
    with pytest.raises(K2DError, match=r"^student\.encoder_neurons: 2049 neurons: a layer of the teacher has 2048"):
        plan_of(tmp_path, MINIMAL, "student.encoder_neurons=2049")


def test_the_teacher_checks_itself_where_no_auxiliary_is_to_be_had(tmp_path):
    plan = plan_of(tmp_path, MINIMAL.replace("openai/whisper-tiny", "[openai/whisper-tiny, teacher]"))
    assert plan.auxiliary is plan.teacher


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (duration, 40, "40 s"), (duration, 900, "15 min"), (duration, 7200, "2.0 h"), (duration, 4.5e6, "1,250 h"),
        (gigabytes, 4e6, "4 MB"), (gigabytes, 3.44e9, "3.4 GB"), (gigabytes, 2e13, "20,000 GB"),
    ],
)  # fmt: skip
def test_numbers(function, value, text):
    assert function(value) == text


# Recipes


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(RECIPES)))
def test_every_recipe_loads_and_has_a_plan(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--dry-run", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "parameters" in printed
    assert "[1/7] label" in printed
    assert list(tmp_path.iterdir()) == []


def test_rows_of_the_papers_table_differ_in_one_setting():
    assert [path.stem for path in ROWS] == ["composite", "full", "mer", "per", "trivial"]
    common = set()
    for path in ROWS:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert values.pop("name") == f"k2d-large-v2-zh-en-{path.stem}"
        assert values["validate"].pop("metric") == path.stem
        common.add(json.dumps(values, sort_keys=True))
    assert len(common) == 1


def test_the_recipe_beside_them_adds_the_auxiliarys_loss_alone():
    read = [yaml.safe_load((LARGE_V2 / f"{name}.yaml").read_text()) for name in ("composite", "composite_auxiliary")]
    paper, ours = read
    assert ours.pop("name") == f"{paper.pop('name')}-auxiliary"
    assert (ours["distil"].pop("auxiliary_weight"), ours["distil"].pop("chunk_weighting")) == (0.1, "soft")
    assert ours == paper
    assert plan_run(load_recipe(LARGE_V2 / "composite_auxiliary.yaml", elsewhere=True)).steps == 120_000


def test_the_papers_setting_is_the_papers():
    recipe = load_recipe(ROWS[0], elsewhere=True)
    plan = plan_run(recipe)
    assert (recipe.validate.metric, recipe.validate.threshold) == ("composite", 0.4)
    assert (recipe.distil["ce_weight"], recipe.distil["kl_weight"], recipe.distil["freeze_encoder"]) == (0.8, 1.0, True)
    assert (plan.batch, plan.steps, recipe.evaluate.speed_runs) == (256, 120_000, 5)
    assert (plan.student.encoder_layers, plan.student.decoder_layers) == (32, 2)
    with pytest.raises(K2DError, match="recordings: 'lectures' does not exist"):
        load_recipe(ROWS[0])
