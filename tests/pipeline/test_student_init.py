"""A student that begins with another model than its teacher: one that was distilled before."""

import io
import json
import re
import shutil

import pytest
from safetensors.torch import load_file
from tiny_whisper import make_tiny_whisper

from k2d_hf import load_recipe, run_recipe
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.pipeline.planning.plan_text import render_plan
from k2d_hf.terminal.console import Console

pytestmark = pytest.mark.slow


def run(workplace, output, *sets):
    """Run the recipe into `output`; returns the lines of its stages by name."""
    stream = io.StringIO()
    given = [f"output={output}", "evaluation=null", "distil.num_train_epochs=3", "distil.max_steps=-1", *sets]
    run_recipe(load_recipe(workplace / "recipe.yaml", given), console=Console(stream=stream))
    return dict(re.findall(r"^\[\d/\d\] (\w+) +(.*)$", stream.getvalue(), re.MULTILINE))


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def write_model(workplace, folder, **shape):
    """A complete checkpoint with random weights, in the place of what is there."""
    shutil.copytree(workplace / "teacher", folder, dirs_exist_ok=True)
    make_tiny_whisper(**{"d_model": 64, **shape}).save_pretrained(folder)


@pytest.fixture(scope="module")
def runs(workplace, tmp_path_factory):
    """A run, and one that begins with its student; both with the teacher's hidden states as soft targets."""
    folder = tmp_path_factory.mktemp("runs")
    lines = [run(workplace, folder / "one")]
    lines.append(run(workplace, folder / "two", f"student.init={folder / 'one'}", "student.decoder_layers=[1]"))
    return folder, lines


def test_card_and_plan_name_the_layers_of_that_model(workplace, runs):
    folder, _ = runs
    assert re.search(r"\| decoder layers +\| 1 of 2 \(1\) ", (folder / "two" / "student" / "README.md").read_text())
    given = [f"output={folder / 'two'}", f"student.init={folder / 'one'}", "student.decoder_layers=[1]"]
    plan = plan_run(load_recipe(workplace / "recipe.yaml", given))
    assert "decoder layers 1 of 2)" in render_plan(plan, Console().screen)


def test_it_has_the_layers_of_that_model_and_learns_from_the_teacher(runs):
    folder, (_, lines) = runs
    before, begun = weights_of(folder / "two" / "student-before"), weights_of(folder / "one" / "student")
    renamed = {name.replace("decoder.layers.0.", "decoder.layers.1."): value for name, value in before.items()}
    assert renamed
    assert all(value.equal(begun[name]) for name, value in renamed.items())
    assert re.search(r"decoder layers 1 of 2 of \S*one/student; ", lines["student"])
    assert "hidden states" in lines["targets"]
    assert "soft targets, no teacher in memory" in lines["distil"]
    embedding = "model.decoder.embed_tokens.weight"
    assert not before[embedding].equal(weights_of(folder / "one" / "student-before")[embedding])
    assert not weights_of(folder / "two" / "student")[embedding].equal(before[embedding])


def test_other_weights_in_its_place_make_another_student(runs, workplace, tmp_path):
    folder = shutil.copytree(runs[0], tmp_path / "runs")
    sets = f"student.init={folder / 'one'}", "student.decoder_layers=[1]"
    run(workplace, folder / "two", *sets)
    lines = run(workplace, folder / "two", *sets)
    assert all(line.startswith("up to date: ") for line in lines.values())
    write_model(workplace, folder / "one" / "student", seed=7, decoder_layers=2)
    lines = run(workplace, folder / "two", *sets)
    again = {name for name, line in lines.items() if not line.startswith("up to date: ")}
    assert again == {"student", "distil", "card"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_model": 32}, "has 32 dimensions, the teacher 64: begin with a model of the teacher's family"),
        ({"mel_bins": 128}, "has 128 mel bins, the teacher 80"),
        ({"vocab_size": 51866}, "has 51866 tokens, the teacher 51865"),
    ],
)
def test_a_model_of_another_family_is_an_error_before_any_work(workplace, tmp_path, change, message):
    write_model(workplace, tmp_path / "other", **change)
    given = [f"output={tmp_path / 'out'}", f"student.init={tmp_path / 'other'}"]
    recipe = load_recipe(workplace / "recipe.yaml", given)
    for work in (run_recipe, plan_run):
        with pytest.raises(K2DError, match=f"^student.init: .*other {message}"):
            work(recipe)
    assert not (tmp_path / "out" / "chunks").exists()


def test_layers_that_it_does_not_have_are_an_error_before_any_work(runs, workplace, tmp_path):
    given = [f"output={tmp_path / 'out'}", f"student.init={runs[0] / 'one'}", "student.decoder_layers=[3]"]
    with pytest.raises(K2DError, match=r"student.decoder_layers: no layer 3; the model of student.init has 2"):
        run_recipe(load_recipe(workplace / "recipe.yaml", given), console=Console(silent=True))


def test_the_plan_has_its_size(runs, workplace, tmp_path):
    given = [f"output={tmp_path / 'out'}", f"student.init={runs[0] / 'one'}", "student.decoder_layers=1"]
    plan = plan_run(load_recipe(workplace / "recipe.yaml", given, elsewhere=True))
    assert plan.student.decoder_layers == 1
    assert not plan.shares_encoder


def test_the_command_takes_it(runs, workplace, tmp_path, capsys):
    model, output = str(runs[0] / "one"), tmp_path / "student"
    command = ["student", str(workplace / "teacher"), "--init", model, "--decoder-layers", "2", "--output", str(output)]
    assert main(command) == 0
    assert json.loads((output / "config.json").read_text())["decoder_layers"] == 2
    assert weights_of(output)["model.decoder.layers.1.fc1.bias"].equal(
        weights_of(runs[0] / "one" / "student")["model.decoder.layers.1.fc1.bias"]
    )
    write_model(workplace, tmp_path / "other", d_model=32)
    command[3], command[-1] = str(tmp_path / "other"), str(tmp_path / "no")
    assert main(command) == 1
    assert "--init: " in capsys.readouterr().err


def test_a_mixed_language_token_learns_from_stored_hidden_states_of_the_teacher(workplace, tmp_path):
    """The teacher's embedding makes logits of them, not the student's, whose language token is another."""
    lines = run(workplace, tmp_path / "mixed", "student.language_mix={zh: 0.5, en: 0.5}")
    embedding = "model.decoder.embed_tokens.weight"
    before, teacher = (
        weights_of(folder)[embedding] for folder in (tmp_path / "mixed" / "student-before", workplace / "teacher")
    )
    assert before[50260].allclose((teacher[50259] + teacher[50260]) / 2)
    assert not before[50260].allclose(teacher[50260])
    assert lines["student"].endswith("; language token 50% zh, 50% en")
    assert "hidden states" in lines["targets"]
    assert "soft targets, no teacher in memory" in lines["distil"]
    card = (tmp_path / "mixed" / "student" / "README.md").read_text(encoding="utf-8")
    assert "| language token begins as | 50% zh, 50% en |" in card
