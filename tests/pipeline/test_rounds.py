"""Rounds: the model that comes out of one is the teacher of the next."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file

from k2d_hf import load_recipe, run_recipe
from k2d_hf.cli import main
from k2d_hf.pipeline.rounds import ADAPT, compare_labels, merge, rounds_of
from k2d_hf.terminal.console import Console

ADAPTING = Path(__file__).parents[2] / "recipes" / "adapt" / "adapt.yaml"


def recipe_of(workplace, output, *sets):
    return load_recipe(workplace / "recipe.yaml", [f"output={output}", "rounds=2", *sets])


def test_what_the_first_rounds_change_is_what_the_recipe_of_adapting_sets():
    adapting = yaml.safe_load(ADAPTING.read_text(encoding="utf-8"))
    changed = {**ADAPT["distil"]}
    assert changed.pop("max_steps") == -1  # a recipe's own would end the epochs
    assert changed.pop("initial_share") == adapting["distil"].get("initial_share", 0.0)
    assert {name: adapting["distil"][name] for name in changed} == changed
    assert adapting["student"]["decoder_layers"] == 6  # all that its teacher has


def test_each_round_has_a_folder_and_its_teacher_from_the_one_before(workplace, tmp_path):
    recipe = recipe_of(
        workplace, tmp_path / "run", "rounds=3", "student.decoder_layers=[0]", "distil.learning_rate=0.1"
    )
    first, second, last = rounds_of(recipe)
    assert [each.directory for each in (first, second, last)] == [
        tmp_path / "run" / "round-1", tmp_path / "run" / "round-2", tmp_path / "run"
    ]  # fmt: skip
    assert first.teacher == recipe.teacher
    assert second.teacher == str(tmp_path / "run" / "round-1" / "student")
    assert last.teacher == str(tmp_path / "run" / "round-2" / "student")
    assert [each.student.decoder_layers for each in (first, second, last)] == [None, None, [0]]
    assert [each.distil["learning_rate"] for each in (first, second, last)] == [5e-4, 5e-4, 0.1]
    assert first.distil["peft"]["r"] == 32
    assert "peft" not in last.distil
    assert rounds_of(last) == [last]


def test_the_last_round_alone_is_measured_with_the_teacher_of_the_first(workplace, tmp_path):
    recipe = recipe_of(workplace, tmp_path / "run", "rounds=3")
    first, second, last = rounds_of(recipe)
    assert first.evaluation is second.evaluation is None
    assert last.evaluation == recipe.evaluation
    assert last.evaluate.adapted_from == recipe.teacher
    other = str(workplace / "auxiliary")
    named = recipe_of(workplace, tmp_path / "run", "evaluate.adapted_from=auxiliary")
    assert rounds_of(named)[-1].evaluate.adapted_from == named.evaluate.adapted_from == other


def test_adapt_goes_into_the_sections_of_the_recipe(workplace, tmp_path):
    sets = ("adapt.distil={learning_rate: 2.0e-4, peft: null}", "adapt.label={beam_size: 3}")
    first, last = rounds_of(recipe_of(workplace, tmp_path, *sets))
    assert (first.distil["learning_rate"], first.distil["peft"], first.distil["num_train_epochs"]) == (2e-4, None, 6)
    assert (first.label.beam_size, last.label.beam_size) == (3, 1)
    assert merge({"a": {"b": 1}, "c": 2}, {"a": {"d": 3}, "c": None}) == {"a": {"b": 1, "d": 3}, "c": None}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("adapt.distill={seed: 1}", "adapt: distill: no such setting; did you mean distil?"),
        (
            "adapt={teacher: x}",
            "adapt: teacher: no such setting; known are label, validate, mix, student, targets, distil",
        ),
        ("adapt={rounds: 2}", "adapt: rounds: no such setting"),
        ("adapt={evaluate: {beam_size: 2}}", "adapt: evaluate: no such setting"),  # the last round alone is measured
        ("adapt={distil: 3}", "adapt: distil: 3 is not a mapping"),
        ("adapt.distil={learning_rat: 1}", "adapt: distil.learning_rat: no such setting; did you mean learning_rate?"),
        ("adapt.student={decoder_layers: two}", "adapt: student.decoder_layers: 'two' is not"),
        ("adapt.distil={learning_rate: -1}", "adapt: distil: "),
        ("rounds=0", "rounds: 0 is too small; at least 1"),
        # models and places of the last round
        ("student.init=./nowhere", "student.init: "),
        ("student.language_mix={zh: 0.5, yue: 0.5}", "student.language_mix: "),
        ("evaluate.adapted_from=./nowhere", "evaluate.adapted_from: "),
        ("hub.repo_id=someone/student", "push to someone/student: "),
    ],
)
def test_a_wrong_setting_of_a_round_is_one_line_before_any_work(workplace, tmp_path, sets, message, capsys):
    output = tmp_path / "run"
    arguments = [f"output={output}", "evaluation=null", "rounds=2", sets]
    sets = [part for one in arguments for part in ("--set", one)]
    assert main(["run", str(workplace / "recipe.yaml"), *sets]) == 1
    shown = capsys.readouterr().err.strip()
    assert message in shown
    assert "\n" not in shown
    assert not list(output.rglob("chunks"))


def test_better_labels_promise_more_and_others_do_not():
    first, better, worse = ({"mer": mer, "kept_mer": mer / 2, "kept": 0.9} for mer in (0.3, 0.2, 0.31))
    assert len(compare_labels([first, better])) == 2
    assert compare_labels([first, better])[1] == (
        "round 2: true MER of the labels 20.0%, of those kept 10.0% (90% of the speech)"
    )
    assert compare_labels([first, worse])[-1] == "round 2 had no better labels than round 1: another will not help"


@pytest.mark.slow
def test_two_rounds_from_the_command_line(workplace, tmp_path, capsys):
    output = tmp_path / "run"
    segments = [{"start": 0.0, "end": 60.0, "text": "今天 test 一下"}]
    references = tmp_path / "references.jsonl"
    recordings = (workplace / "recordings").glob("*.flac")
    rows = [json.dumps({"audio": str(path), "segments": segments}) for path in recordings]
    references.write_text("\n".join(rows), encoding="utf-8")
    sets = ("validate.metric=full", f"references={references}", "adapt.distil={max_steps: 2, peft: {r: 2}}")
    stale = output / "round-1" / "student"  # of another run, about to be made again: no reason to refuse round 2
    stale.mkdir(parents=True)
    (stale / "config.json").write_text("{}", encoding="utf-8")

    def run(**options):
        stream = io.StringIO()
        run_recipe(recipe_of(workplace, output, *sets), console=Console(stream=stream), **options)
        return stream.getvalue()

    shown = run()
    figures = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    assert list(figures) == ["teacher", "adapted", "student_before", "student"]
    assert (figures["teacher"]["mer"], figures["teacher"]["model"]) == (0.0, str(workplace / "teacher"))
    assert figures["adapted"]["model"] == str(output / "round-1" / "student")
    assert re.search(r"^teacher, adapted +", shown, re.MULTILINE)
    assert "| teacher | teacher, adapted to this speech" in (output / "student" / "README.md").read_text(
        encoding="utf-8"
    )
    assert not (output / "round-1" / "evaluation.json").exists()
    assert "Round 1 of 2, in " in shown
    assert "Round 2 of 2, in " in shown
    assert len(re.findall(r"true MER of the labels [\d.]+%", shown)) == 2
    qualities = json.loads((output / "rounds.json").read_text(encoding="utf-8"))
    assert all(np.isfinite(one["mer"]) and one["kept"] == 1.0 for one in qualities)
    adapted, student = (load_file(output / part / "student" / "model.safetensors") for part in ("round-1", "."))
    assert len(adapted) > len(student)
    before = load_file(output / "student-before" / "model.safetensors")
    same = "model.decoder.layers.0.fc1.weight"
    assert before[same].equal(adapted[same])  # the small student begins with the adapted teacher's layers
    assert shown.count("up to date") == 0
    assert run().count("up to date: ") == 2 * len(re.findall(r"^\[\d/\d\] ", shown, re.MULTILINE)) // 2
    assert re.findall(r"(\w+) +up to date", run(from_stage="distil"))[:4] == ["label", "validate", "student", "targets"]

    assert main(["run", str(workplace / "recipe.yaml"), "--dry-run", *(a for s in sets for a in ("--set", s)),
                 "--set", "rounds=2", "--set", f"output={tmp_path / 'other'}"]) == 0  # fmt: skip
    assert capsys.readouterr().out.count("distil") >= 2
    assert not (tmp_path / "other").exists()
