"""`k2d run` through all its stages with tiny Whispers: what runs again, what does not, and what stops it."""

import io
import json
import re
import shutil
from itertools import count
from pathlib import Path

import pytest
import soundfile
import yaml
from conftest import HEARD, WRITTEN
from datasets import load_from_disk
from fresh_process import PythonProcess
from hub_server import WRITER, LocalHub, serving
from shard_files import rewrite, stage_folder
from student_layout import check_layout
from tiny_whisper import make_tiny_whisper

from k2d_hf import load_recipe, run_recipe
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.pipeline.planning.plan_text import render_plan
from k2d_hf.terminal.console import Console

ALL = ["label", "validate", "student", "targets", "distil", "evaluate", "card"]


def run(workplace, output, *sets, from_stage=None, **console):
    """Run the recipe into `output`; returns the stages that did work, and all that was printed."""
    stream = io.StringIO()
    recipe = load_recipe(workplace / "recipe.yaml", [f"output={output}", *sets])
    run_recipe(recipe, from_stage=from_stage, console=Console(stream=stream, **console))
    shown = stream.getvalue()
    lines = re.findall(r"^\[\d/\d\] (\w+) +(.*)$", shown, re.MULTILINE)
    return [name for name, line in lines if not line.startswith("up to date: ")], shown


def texts(output, folder, column="text"):
    return load_from_disk(str(output / folder))[column]


@pytest.fixture(scope="module")
def first(workplace, tmp_path_factory):
    """The folder of a run that went through, by a clock of which every look takes half a minute, and what it printed."""
    output = tmp_path_factory.mktemp("runs") / "first"
    ran, shown = run(workplace, output, clock=count(0.0, 30.0).__next__)
    assert ran == ALL
    return output, shown


@pytest.fixture
def again(first, tmp_path):
    """A copy of that run, to go on with."""
    return shutil.copytree(first[0], tmp_path / "again")


@pytest.fixture
def own(workplace, tmp_path):
    """A workplace of one's own, to change files in."""
    return shutil.copytree(workplace, tmp_path / "own")


def evaluation_of(output):
    return json.loads((output / "evaluation.json").read_text(encoding="utf-8"))


def without_speed(figures):
    return {name: value for name, value in figures.items() if name not in ("rtf", "rtf_runs", "measurement")}


def test_a_new_student_does_not_have_its_teacher_scored_again_and_is_timed_with_it(workplace, again):
    before = evaluation_of(again)
    assert len({one["measurement"]["id"] for one in before.values()}) == 1
    (kept,) = (
        path
        for path in (again / "resume").glob("evaluate-*.json")
        if json.loads(path.read_text())["figures"]["model"] == before["teacher"]["model"]
    )
    written = json.loads(kept.read_text(encoding="utf-8"))
    written["transcripts"][0]["hypothesis"] += "，"  # of which no figure knows
    marked = written["transcripts"][0]["hypothesis"]
    kept.write_text(json.dumps(written), encoding="utf-8")
    ran, _ = run(workplace, again, "distil.seed=5")
    assert ran == ["distil", "evaluate", "card"]
    after = evaluation_of(again)
    assert without_speed(after["teacher"]) == without_speed(before["teacher"])
    lines = (again / "evaluation_transcripts.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0])["hypothesis"] == marked
    (measurement,) = {one["measurement"]["id"] for one in after.values()}
    assert measurement != before["teacher"]["measurement"]["id"]
    assert all(after[name]["rtf"] != before[name]["rtf"] for name in after)
    run(workplace, again, "distil.seed=5", from_stage="card")
    assert evaluation_of(again) == after
    run(workplace, again, "distil.seed=5", "evaluate.before=false")
    assert evaluation_of(again)["student"]["measurement"]["id"] == measurement  # these two were timed together already
    run(workplace, again, "distil.seed=5", from_stage="evaluate")
    assert evaluation_of(again)["teacher"]["rtf"] != after["teacher"]["rtf"]


def test_a_run_goes_on_with_more_test_sets_and_is_compared_with_one_of_a_single_set(workplace, again, first, capsys):
    """What was measured before is not again, whatever the set is called now; old runs stay open."""
    before = evaluation_of(again)
    sets = "evaluation={dev: %s, en: {source: %s, language: en, normaliser: whisper-english}}"
    ran, shown = run(workplace, again, sets % ("dev.jsonl", "dev.jsonl"))
    assert ran == ["evaluate", "card"]
    after = evaluation_of(again)["sets"]
    timed = {model: (one["mer"], one["rtf_runs"]) for model, one in before.items()}
    assert {model: (one["mer"], one["rtf_runs"]) for model, one in after["dev"].items()} == timed
    assert [one["wer"] is not None for one in after["en"].values()] == [True] * 3
    assert "3 models, 2 sets, 2 recordings  dev MER 0.0%" in shown
    assert shown.index("\ndev: 1 recording") < shown.index("\nen: 1 recording") < shown.index("WER %")
    card = (again / "student" / "README.md").read_text(encoding="utf-8")
    assert "\n### dev\n" in card
    assert "\n### en\n" in card
    _, shown = run(workplace, again, sets % ("dev.jsonl", "dev.jsonl"))
    assert "up to date: 3 models, 2 sets" in shown
    capsys.readouterr()
    assert main(["compare", str(first[0]), str(again)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("dev\n")
    assert f"not in all runs, and left out: en ({again})" in shown
    assert main(["compare", str(again), "--output", str(again / "table.json")]) == 0
    compared = json.loads((again / "table.json").read_text(encoding="utf-8"))
    assert list(compared["sets"]) == ["dev", "en"]
    assert [row["wer"] is not None for one in compared["sets"].values() for row in one["rows"]] == [False] * 2 + [
        True
    ] * 2
    ran, _ = run(workplace, again, "evaluation={en: {source: dev.jsonl, language: en}}")
    assert ran == ["evaluate", "card"]
    assert list(evaluation_of(again)["sets"]) == ["en"]
    assert evaluation_of(again)["sets"]["en"]["student"]["rtf_runs"] == after["en"]["student"]["rtf_runs"]


def config_of(student):
    return json.loads((student / "generation_config.json").read_text(encoding="utf-8"))


def test_a_student_decodes_as_it_was_evaluated_and_other_settings_of_that_train_nothing(workplace, again):
    student = again / "student"
    before, weights = config_of(student), (student / "model.safetensors").stat().st_mtime_ns
    carried = {"num_beams": 2, "compression_ratio_threshold": 1.35, "condition_on_prev_tokens": False}
    assert before | carried | {"language": "zh", "task": "transcribe"} == before
    assert '"temperature": 0.0,' in (student / "README.md").read_text(encoding="utf-8")
    changed = "evaluate.beam_size=3", "evaluate.temperature_fallback=true", "evaluate.condition_on_previous_text=true"
    ran, _ = run(workplace, again, *changed)
    assert ran == ["evaluate", "card"]
    assert config_of(student) == before | {"num_beams": 3, "condition_on_prev_tokens": True}
    assert (student / "model.safetensors").stat().st_mtime_ns == weights
    card = (student / "README.md").read_text(encoding="utf-8")
    assert '"num_beams": 3,\n        "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),' in card
    figures = json.loads((again / "evaluation.json").read_text(encoding="utf-8"))["student"]
    assert [figures[name] for name in ("beam_size", "temperature_fallback", "dtype")] == [3, True, "float32"]
    decoded = f"beam 3, float32, windows that look wrong again by sampling, {figures['threads']} thread"
    assert f"Measured like this ({decoded}" in card
    assert f"long-form by transformers, {decoded}" in card
    assert run(workplace, again, *changed)[0] == []


def test_what_a_crash_left_between_training_and_its_decoding_is_made_good(workplace, again):
    path = again / "student" / "generation_config.json"
    whole = config_of(again / "student")
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != "num_beams"}), encoding="utf-8")
    run(workplace, again)
    assert config_of(again / "student") == whole


def test_without_evaluation_the_student_has_openai_whisper_s_settings(own):
    recipe = (own / "recipe.yaml").read_text(encoding="utf-8").replace("evaluation: dev.jsonl\n", "")
    (own / "recipe.yaml").write_text(recipe, encoding="utf-8")
    ran, _ = run(own, own / "out", "evaluate.beam_size=1")
    assert "evaluate" not in ran
    assert config_of(own / "out" / "student")["num_beams"] == 5
    card = (own / "out" / "student" / "README.md").read_text(encoding="utf-8")
    assert '"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),' in card
    assert "No recordings with references were evaluated" in card
    assert "Measured like this" not in card


def test_a_run_leaves_all_that_it_promises(first, workplace):
    output, shown = first
    assert (
        texts(output, "chunks") == [WRITTEN[0] + WRITTEN[1]] * 3
    )  # two windows of the first recording, one of the second
    validated = load_from_disk(str(output / "validated"))
    assert validated["auxiliary_text"] == [HEARD[0] + HEARD[1]] * 3
    assert validated["keep"] == [True] * 3
    for name in ("config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "README.md"):
        assert (output / "student" / name).is_file()
    evaluation = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    assert list(evaluation) == ["teacher", "student_before", "student"]
    assert evaluation["teacher"]["mer"] == 0.0
    assert {"zh_cer", "en_wer", "rtf", "parameters"} <= set(evaluation["student"])
    assert yaml.safe_load((output / "recipe.yaml").read_text(encoding="utf-8"))["validate"]["threshold"] == 0.4
    assert "K2D tiny: 3 recordings, teacher " in (output / "log.txt").read_text(encoding="utf-8")
    assert f'model="{output / "student"}"' in shown
    assert "student, before" in shown


def test_both_students_of_a_run_open_everywhere(first, processor):
    for name in ("student-before", "student"):
        check_layout(first[0] / name, processor)


def test_a_recording_that_cannot_be_used_is_counted_and_listed(first, workplace):
    output, shown = first
    assert re.search(
        r"\[1/7\] label .* 3/3 recordings .* -> 3 chunks \(\d+ s, 1 skipped, .*see .*skipped\.jsonl\)", shown
    )
    skipped = [json.loads(line) for line in (output / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    teachers = ("past the end", "passed over")
    listed = [(row["recording"], row["reason"]) for row in skipped if row["reason"] not in teachers]
    assert listed == [(str(workplace / "recordings" / "broken.wav"), "not audio")]
    assert "k2d: skipped 1 of 3 recordings: 1 not audio" in (output / "log.txt").read_text(encoding="utf-8")


def test_what_the_teacher_passes_over_is_listed_and_both_figures_are_shown(first, workplace):
    """In every 30 s the teacher of the workplace writes 20: the rest of a window stands nowhere else."""
    output, shown = first
    rows = [json.loads(line) for line in (output / "skipped.jsonl").read_text(encoding="utf-8").splitlines()]
    spans = [(Path(row["recording"]).name, row["start"], row["end"]) for row in rows if row["reason"] == "passed over"]
    assert spans == [("one.flac", 20.0, 30.0), ("one.flac", 50.0, 55.0), ("two.flac", 20.0, 25.0)]
    figures = json.loads((output / "labelling.json").read_text(encoding="utf-8"))
    seconds = [figures[name] for name in ("seconds", "seconds_in_chunks", "seconds_listed", "seconds_unlisted")]
    assert seconds == pytest.approx([80, 60, 20, 0])
    assert figures["chunks"] == len(texts(output, "chunks")) == 3
    assert sum(texts(output, "chunks", "duration")) == pytest.approx(60)
    assert re.search(r"1\.3 min -> 3 chunks \(\d+ s, 1 skipped, 1\.0 min covered, .*0\.3 min passed over, see ", shown)
    assert "| speech labelled | 1.0 min of 1.3 min of recordings, 3 chunks |" in (
        output / "student" / "README.md"
    ).read_text(encoding="utf-8")
    plan = plan_run(load_recipe(workplace / "recipe.yaml", [f"output={output}"]))
    assert "3 that cover 1.0 min of 1.3 min, of which 3 are kept" in render_plan(plan)


@pytest.mark.parametrize(
    ("stage", "counted"),
    [
        ("label", r"[23]/3 recordings"),
        ("validate", r"\d/3 chunks"),
        ("targets", r"\d/3 chunks"),
        ("distil", r"[12]/2 steps"),
        ("evaluate", r"[123]/3 transcripts"),
    ],
)
def test_a_stage_tells_the_log_how_it_goes(first, stage, counted):
    log = (first[0] / "log.txt").read_text(encoding="utf-8")
    lines = re.findall(rf"^[\d-]+ [\d:]+ \[\d/7\] {stage}: (.*)$", log, re.MULTILINE)
    going = rf"{counted}, \d+\.\d an? \w+"
    all_done = rf"(?={counted})(?P<all>\d)/(?P=all) \w+"  # which has no speed any more
    assert any(re.match(rf"({going}|{all_done}), \d\d:\d\d (left|so far)", line) for line in lines), lines


def test_a_second_run_does_nothing_and_shows_the_same_table(first, again, workplace):
    ran, shown = run(workplace, again)
    assert ran == []
    assert shown.count("up to date: ") == len(ALL)
    table = first[1][first[1].index("MER %") : first[1].index("Load it")]
    assert table in shown


@pytest.mark.parametrize(
    ("change", "finished"),
    [
        ("name=tiny", ALL),
        ("validate.threshold=0.9", ["label", "student"]),
        ("recordings=nowhere", []),
        ("teacher=openai/whisper-large-v2", []),
    ],
)
def test_a_plan_says_what_is_up_to_date_and_writes_nothing(again, workplace, change, finished):
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*")}
    plan = plan_run(load_recipe(workplace / "recipe.yaml", [f"output={again}", change], elsewhere=True))
    assert [stage.name for stage in plan.stages if stage.finished is not None] == finished
    assert {path: path.stat().st_mtime_ns for path in again.rglob("*")} == before
    if "validate" in finished:
        assert (plan.chunks, plan.counted) == (3, True)


def test_a_plan_from_a_stage_has_those_after_it_to_do(again, workplace):
    recipe = load_recipe(workplace / "recipe.yaml", [f"output={again}"], elsewhere=True)
    plan = plan_run(recipe, from_stage="distil")
    assert [stage.name for stage in plan.stages if stage.finished is None] == ["distil", "evaluate", "card"]
    with pytest.raises(K2DError, match="--from push: choose one of"):
        plan_run(recipe, from_stage="push")


def test_a_resolved_recipe_runs_as_the_original(again):
    recipe = load_recipe(again / "recipe.yaml", [f"output={again}"])
    stream = io.StringIO()
    run_recipe(recipe, console=Console(stream=stream))
    assert stream.getvalue().count("up to date: ") == len(ALL)


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        (
            "label.beam_size=2",
            ["label", "validate", "targets", "distil", "evaluate", "card"],
        ),  # the student has no labels
        ("validate.threshold=0.9", ["validate", "targets", "distil", "evaluate", "card"]),
        ("student.decoder_layers=[0, 1]", ["student", "distil", "evaluate", "card"]),
        ("distil.learning_rate=1e-4", ["distil", "evaluate", "card"]),
        ("distil.max_steps=1", ["targets", "distil", "evaluate", "card"]),  # no chunk is seen twice any more
        ("targets.enabled=false", ["targets", "distil", "evaluate", "card"]),
        ("evaluate.before=false", ["evaluate", "card"]),
        ("name=other", ["card"]),
    ],
)
def test_a_changed_setting_runs_its_stage_and_what_depends_on_it(again, workplace, change, ran):
    assert run(workplace, again, change)[0] == ran


def test_soft_targets_take_the_teachers_place_where_a_chunk_is_seen_twice(first):
    output, shown = first
    assert "teacher_hidden" in load_from_disk(str(output / "targets")).column_names
    assert re.search(r"\[4/7\] targets .* hidden states, \d+ MB .*encoder states kept", shown)
    assert re.search(r"\[5/7\] distil .* soft targets, no teacher in memory", shown)


def test_without_soft_targets_the_teacher_helps_in_every_step(again, workplace):
    _, shown = run(workplace, again, "targets.enabled=false", "evaluation=null")
    assert re.search(r"targets +none: targets\.enabled is false", shown)
    assert re.search(r"distil .* encoder shared with the teacher", shown)


@pytest.mark.parametrize(
    ("deleted", "ran"),
    [
        ("validated", ["validate", "targets", "distil", "evaluate", "card"]),
        ("student/model.safetensors", ["distil", "evaluate", "card"]),
        ("student/README.md", ["card"]),
    ],
)
def test_a_deleted_output_is_made_again(again, workplace, deleted, ran):
    target = again / deleted
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert run(workplace, again)[0] == ran
    assert target.exists()


def test_a_changed_recording_is_labelled_again_and_no_other(own, tmp_path):
    output = tmp_path / "out"
    short = ["student.decoder_layers=1", "distil.max_steps=1", "evaluation=null"]
    run(own, output, *short)
    rewrite(stage_folder(output / "resume", "label"), "one.flac", WRITTEN[0], "記得 one")
    two = own / "recordings" / "two.flac"
    audio, rate = soundfile.read(two)
    soundfile.write(two, audio[: 22 * rate], rate)
    ran, _ = run(own, output, *short)
    assert ran == ["label", "validate", "targets", "distil", "card"]
    assert texts(output, "chunks") == ["記得 one" + WRITTEN[1], WRITTEN[0] + WRITTEN[1], WRITTEN[0] + WRITTEN[1]]


def test_another_threshold_asks_the_auxiliary_nothing_new(again, workplace):
    rewrite(stage_folder(again / "resume", "validate"), "", HEARD[0], "記得 nothing else")
    run(workplace, again, "validate.threshold=1.0", "validate.max_speaking_rate=15", "distil.max_steps=1")
    assert any(text.startswith("記得") for text in texts(again, "validated", "auxiliary_text"))
    card = (again / "student" / "README.md").read_text(encoding="utf-8")
    assert "| validation | composite, threshold 1, speaking rate of at most 15 syllables a second |" in card


def test_from_a_stage_everything_is_done_afresh(again, workplace):
    rewrite(stage_folder(again / "resume", "validate"), "", HEARD[0], "記得 nothing else")
    ran, _ = run(workplace, again, from_stage="validate")
    assert ran == ALL[1:]
    assert texts(again, "validated", "auxiliary_text") == [HEARD[0] + HEARD[1]] * 3


@pytest.mark.parametrize(
    ("stage", "sets", "line"),
    [
        ("labels", [], "--from labels: choose one of label, validate, student, targets, distil, evaluate, card"),
        (
            "push",
            [],
            "--from push: choose one of label, validate, student, targets, distil, evaluate, card; without hub.repo_id there is no such stage",
        ),
        (
            "evaluate",
            ["evaluation=null"],
            "--from evaluate: choose one of label, validate, student, targets, distil, card; without evaluation data there is no "
            "such stage",
        ),
    ],
)
def test_from_a_stage_that_there_is_not(workplace, tmp_path, stage, sets, line):
    with pytest.raises(K2DError) as raised:
        run(workplace, tmp_path / "out", *sets, from_stage=stage)
    assert str(raised.value) == line
    assert not (tmp_path / "out").exists()


def test_where_every_chunk_is_dropped_the_next_run_needs_only_a_threshold(again, workplace):
    with pytest.raises(K2DError) as raised:
        run(workplace, again, "validate.metric=mer", "validate.threshold=0.01")
    assert str(raised.value) == (
        "every one of 3 chunks was dropped (3 distance > 0.01); raise validate.threshold (now 0.01), or look at the "
        f"column distance in {again / 'validated'}"
    )
    assert str(raised.value) in (again / "log.txt").read_text(encoding="utf-8")
    assert all(0.01 < distance < 0.4 for distance in texts(again, "validated", "distance"))
    ran, _ = run(workplace, again, "validate.metric=mer", "distil.max_steps=1")
    assert ran == ["validate", "targets", "distil", "evaluate", "card"]


def test_where_no_recording_can_be_used_the_list_says_why(own, tmp_path):
    for name in ("one.flac", "two.flac"):
        (own / "recordings" / name).write_bytes(b"")
    with pytest.raises(
        K2DError, match=r"^none of 3 recordings could be labelled; the first: .*; see .*skipped\.jsonl$"
    ):
        run(own, tmp_path / "out")
    lines = (tmp_path / "out" / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["reason"] for line in lines) == ["empty file", "empty file", "not audio"]


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (["student.decoder_layers=[0, 9]"], r"^student\.decoder_layers: .*9"),
        (["references=spoken.jsonl"], r"^/.*/own/spoken\.jsonl, line 1: no `segments`; .* with start, end and text each$"),
        (["references=dev.jsonl"], r"^/.*/own/dev\.jsonl, line 1: `reference` is the transcript of the whole recording"),
        (["references=recordings"], r"^references /.*/own/recordings: no subtitles .* beside its 3 recordings"),
        (["references=other.jsonl"], r"^references /.*/other\.jsonl: none of its 1 recordings, such as .*dev\.flac, is among the 3 here"),
        (["student.encoder_layers=0"], r"^student\.encoder_layers: 0 layers: the teacher has 2, so choose 1 to 2"),
        (["student.encoder_neurons=129"], r"^student\.encoder_neurons: 129 neurons: a layer of the teacher has 128, so choose"),
        (["evaluation=recordings/two.flac"], r"^evaluation: none of 1 recordings in .*two\.flac has a reference; give a manifest"),
        (["evaluation={a: dev.jsonl, b: recordings/two.flac}"], r"^evaluation\.b: none of 1 recordings in .*two\.flac has a reference; give a manifest"),
        (["evaluation={a: dev.jsonl, b: {source: dev.jsonl, language: yue}}"], r"^evaluation\.b\.language: .*teacher: .*yue"),
        (["teacher=no/where"], r"^teacher: model no/where: not a folder here, not in the cache, and the Hub is not asked .*; give the path of a local checkpoint folder$"),
        (["auxiliary=no/where"], r"^auxiliary: model no/where: not a folder here"),
        (["auxiliary=wide", "distil.auxiliary_weight=0.5"], r"^auxiliary has 51866 tokens, student 51865"),
        (["hub.repo_id=me"], r"^hub\.repo_id: 'me' is no name of a repository; write USER/NAME"),
        (["hub.repo_id=me/x"], r"^push to me/x: offline by HF_HUB_OFFLINE; unset it$"),
    ],
)  # fmt: skip
def test_what_would_stop_a_later_stage_is_found_before_the_first(own, processor, tmp_path, sets, line):
    (own / "spoken.jsonl").write_text('{"audio": "recordings/one.flac"}\n', encoding="utf-8")
    (own / "other.jsonl").write_text('{"audio": "dev.flac", "segments": []}\n', encoding="utf-8")
    if "auxiliary=wide" in sets:
        make_tiny_whisper(vocab_size=51866).save_pretrained(own / "wide")
        processor.save_pretrained(own / "wide")
    with pytest.raises(K2DError, match=line):
        run(own, tmp_path / "out", *sets)
    assert not (tmp_path / "out" / "chunks").exists()
    assert "k2d: " in (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sets", "lines"),
    [
        (["student.encoder_neurons=64"], ["student.encoder_neurons: the encoder loses parts, and is frozen"]),
        (["student.encoder_neurons=64", "distil.freeze_encoder=false"], []),
        (["distil.initial_share=0.5", "student.decoder_layers=[0, 1, 2, 3]"], []),
        (
            ["distil.initial_share=0.5", "student.decoder_layers=1"],
            ["distil.initial_share: the student begins without parts of the model that it is made of (student.decoder"],
        ),
    ],
)
def test_lost_parts_that_nothing_makes_up_for_are_named_before_the_first_stage(own, tmp_path, sets, lines):
    with pytest.raises(K2DError, match=r"^push to me/x"):
        run(own, tmp_path / "out", *sets, "hub.repo_id=me/x")
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    assert [line for line in log.splitlines() if "loses parts" in line or "begins without" in line] == [
        line for line in log.splitlines() if any(f"k2d: {one}" in line for one in lines)
    ]
    assert sum(f"k2d: {one}" in log for one in lines) == len(lines)
    assert "label" not in log


def test_without_a_small_model_the_teacher_checks_itself_and_the_output_says_what_that_is_worth(again, workplace):
    _, shown = run(workplace, again, 'auxiliary=["no/where", teacher]', "evaluation=null", "distil.max_steps=1")
    assert "auxiliary: the same checkpoint, decoding each chunk from scratch" in shown
    assert "it catches loops and drift that come from context, not errors that both make" in shown
    assert re.search(r"^\[6/6\] card ", shown, re.MULTILINE)
    assert set(texts(again, "validated", "auxiliary_text")) == {WRITTEN[0] + WRITTEN[1]}
    assert "no/where" in (again / "log.txt").read_text(encoding="utf-8")


def test_an_error_of_a_library_leaves_its_traceback_in_the_log(again, workplace):
    config = json.loads((again / "student-before" / "config.json").read_text(encoding="utf-8"))
    (again / "student-before" / "config.json").write_text(json.dumps({**config, "d_model": 2 * config["d_model"]}))
    with pytest.raises(RuntimeError) as raised:
        run(workplace, again, "distil.seed=5")
    assert not isinstance(raised.value, K2DError)
    assert "Traceback" in (again / "log.txt").read_text(encoding="utf-8")


PUSH = """
from k2d_hf.cli import main
SETS = ["hub.repo_id=me/student", "hub.data_repo_id=me/chunks", "hub.ctranslate2=true"]
def run(*more):
    return main(["run", RECIPE, "--output", OUTPUT, *[part for one in SETS for part in ("--set", one)], *more])
"""


@pytest.mark.slow
def test_a_run_ends_with_a_push_where_the_recipe_names_a_repository(again, workplace, tmp_path):
    hub = LocalHub()
    prepare = f"RECIPE, OUTPUT = {str(workplace / 'recipe.yaml')!r}, {str(again)!r}\n{PUSH}"
    with serving(hub) as address, PythonProcess(tmp_path, HF_ENDPOINT=address, HF_TOKEN=WRITER) as python:
        assert python.run(prepare).error is None
        first = python.run("result = run()")
        done = (again / "push.json").read_text(encoding="utf-8")
        hub.forget()
        second = python.run("result = run()")
        assert hub.kinds() == []
        third = python.run("result = run('--from', 'push')")
        refused = python.run("result = run('--from', 'label', '--set', 'hub.repo_id=other/student')")
    assert [one.result for one in (first, second, third, refused)] == [0, 0, 0, 1], first.said + third.said
    model, data = hub.repository("me/student"), hub.repository("me/chunks", "dataset")
    assert re.search(
        r"\[8/8\] push  .* 3/3 chunks .*/me/student \(private, .*/datasets/me/chunks \(private, ", first.said
    )
    assert [json.loads(done)[index]["commit"] for index in (0, 1)] == [model.log()[0].sha, data.log()[0].sha]
    assert [one.said.count("up to date: ") for one in (first, second, third)] == [
        len(ALL) - 2,
        len(ALL) + 1,
        len(ALL),
    ]  # the card names the repository, and how the student does with the engine that a folder is made for
    figures = json.loads((again / "evaluation.json").read_text(encoding="utf-8"))
    assert set(figures["student"]["ways"]) == {"pipeline", "faster-whisper"}
    assert third.said.count("(private) is up to date") == 2
    assert [model.private, data.private, len(model.titles()), len(data.titles())] == [True, True, 1, 1]
    assert refused.said.splitlines()[-1].startswith("k2d: push to other/student: the token does not write for other")
    assert (again / "chunks").exists()
    student = {path.name for path in (again / "student").iterdir()} - {"training_log.json", "training_facts.json"}
    export = {"config.json", "model.bin", "preprocessor_config.json", "tokenizer.json", "vocabulary.json"}
    assert set(model.contents()) == student | {f"ctranslate2/{name}" for name in export}
    card = data.contents()["README.md"].decode()
    assert "| teacher | teacher |" in card
    assert "| validation | composite, threshold 0.4 |" in card


def test_the_student_is_a_whisper_that_the_pipeline_loads(first):
    from transformers import pipeline

    asr = pipeline("automatic-speech-recognition", model=str(first[0] / "student"), device="cpu")
    assert asr.model.config.decoder_layers == 2
    noise = {"raw": make_noise(5), "sampling_rate": 16000}
    assert set(asr(noise)) == {"text"}
    assert asr({"raw": make_noise(5), "sampling_rate": 16000}, return_timestamps=True)["chunks"]


def make_noise(seconds):
    import numpy as np

    return np.random.default_rng(1).normal(0, 0.05, seconds * 16000).astype(np.float32)
