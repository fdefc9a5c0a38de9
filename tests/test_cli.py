"""The command line as a user meets it: what is printed where, the exit status, and all commands one after the other."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import WRITTEN
from datasets import load_from_disk
from espeak_extra import needs_espeak
from tiny_whisper import make_tiny_whisper

from k2d_hf.cli import MISTYPED, main

SCRIPTED = ["--set", "engine=transformers", "--language", "zh"]
LABEL = [*SCRIPTED, "--beam-size", "1", "--condition-on-previous-text", "false"]


def k2d(*arguments):
    """Exit status of a command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture(scope="module")
def made(workplace, tmp_path_factory):
    """What the commands leave, one after the other, by name of the command."""
    folder = tmp_path_factory.mktemp("made")
    teacher, auxiliary = workplace / "teacher", workplace / "auxiliary"
    commands = [
        ("label", workplace / "recordings", "--teacher", teacher, "--output", folder / "label", *LABEL),
        ("validate", folder / "label", "--auxiliary", auxiliary, "--output", folder / "validate", *SCRIPTED, "--threshold", "0.5"),
        ("student", teacher, "--output", folder / "student", "--decoder-layers", "0,-1", "--language", "zh"),
        ("distil", folder / "validate", "--student", folder / "student", "--teacher", teacher, "--output", folder / "distil",
         "--set", "max_steps=2", "--set", "per_device_train_batch_size=2", "--kl-weight", "0.5", "--set", "peft.r=4"),
        ("evaluate", teacher, folder / "distil", "--data", workplace / "dev.jsonl", "--output", folder / "evaluate.json", "--language", "zh"),
    ]  # fmt: skip
    for command in commands:
        assert k2d(*command) == 0, command[0]
    return folder


def test_the_commands_make_what_the_next_one_reads(made):
    chunks = load_from_disk(str(made / "label"))
    assert chunks["text"] == [WRITTEN[0] + WRITTEN[1]] * 3
    assert set(load_from_disk(str(made / "validate")).column_names) >= {*chunks.column_names, "distance", "keep"}
    student = json.loads((made / "student" / "config.json").read_text(encoding="utf-8"))
    assert (student["decoder_layers"], student["encoder_layers"]) == (2, 2)
    figures = json.loads((made / "evaluate.json").read_text(encoding="utf-8"))
    assert [row["mer"] for row in figures.values()] == [0.0, 0.0]
    assert (made / "evaluate_transcripts.jsonl").exists()


def test_the_commands_leave_nothing_but_results(made):
    visible = {path.name for path in made.iterdir() if not path.name.startswith(".")}
    results = {"label", "validate", "student", "distil", "evaluate.json"}
    assert visible == results | {"label.skipped.jsonl", "evaluate_transcripts.jsonl"}


def test_where_targets_are_stored_distil_needs_no_teacher(made, workplace, tmp_path):
    teacher = ["--teacher", workplace / "teacher"]
    student = ["--student", made / "student"]
    top = ["--output", tmp_path / "targets", "--kind", "top", "--k", "16"]
    assert k2d("targets", made / "validate", *student, *teacher, *top) == 0
    assert np.shape(load_from_disk(str(tmp_path / "targets"))[0]["teacher_top_ids"])[1] == 16
    distil = ["distil", tmp_path / "targets", *student, "--output", tmp_path / "student", "--set", "max_steps=1"]
    assert k2d(*distil) == 0
    assert (tmp_path / "student" / "model.safetensors").exists()
    assert k2d(*distil[:-3], tmp_path / "other", "--temperature", "1") == 1


def test_without_targets_and_teacher_distil_says_what_is_missing(made, tmp_path, capsys):
    student = ["--student", made / "student"]
    assert k2d("distil", made / "validate", *student, "--output", tmp_path / "student", "--set", "max_steps=1") == 1
    assert "kl_weight is 1.0: give teacher_model, or set kl_weight to 0" in capsys.readouterr().err


def test_what_distil_makes_is_a_complete_whisper(made):
    from transformers import WhisperForConditionalGeneration, pipeline

    model = WhisperForConditionalGeneration.from_pretrained(made / "distil")
    assert model.generation_config.language == "zh"
    assert not any("lora" in name for name in model.state_dict())
    asr = pipeline("automatic-speech-recognition", model=str(made / "distil"), device="cpu")
    noise = np.random.default_rng(1).normal(0, 0.05, 5 * 16000).astype(np.float32)
    assert WRITTEN[0] in asr({"raw": noise, "sampling_rate": 16000}, return_timestamps=True)["text"]


def test_import_ctranslate2_gives_back_the_checkpoint(workplace, tmp_path, capsys):
    from transformers import WhisperForConditionalGeneration

    from k2d_hf import export_ctranslate2

    export_ctranslate2(workplace / "teacher", tmp_path / "ct2")
    assert k2d("import-ctranslate2", tmp_path / "ct2", "--output", tmp_path / "back") == 0
    assert capsys.readouterr().out == f"import-ctranslate2 {tmp_path / 'ct2'} -> {tmp_path / 'back'}\n"
    back = WhisperForConditionalGeneration.from_pretrained(tmp_path / "back").state_dict()
    there = WhisperForConditionalGeneration.from_pretrained(workplace / "teacher").state_dict()
    assert all((back[name] == there[name]).all() for name in there)


def test_one_line_of_result_and_warnings_apart(workplace, tmp_path, capsys):
    command = ("label", workplace / "recordings", "--teacher", workplace / "teacher", "--output", tmp_path / "out")
    assert k2d(*command, *LABEL) == 0
    captured = capsys.readouterr()
    skipped = tmp_path / "out.skipped.jsonl"
    assert re.fullmatch(
        rf"label     #+ 3/3 recordings  1\.3 min -> 3 chunks \(\d+ s, 1 skipped, .*see {re.escape(str(skipped))}\)\n",
        captured.out,
    )
    assert "k2d: skipped 1 of 3 recordings: 1 not audio\n" in captured.err
    assert "Warning" not in captured.err
    assert k2d(*command, *LABEL) == 1
    assert capsys.readouterr().err == (
        f"k2d: {tmp_path / 'out'}: already there and not empty; choose another output folder or remove it\n"
    )


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("run no.yaml", 1, "k2d: no.yaml: no such recipe; give the path of a YAML file"),
        ("run recipe.yaml --set validate.treshold=1", 1, "k2d: recipe.yaml: validate.treshold: no such setting; did you mean threshold?"),
        ("run recipe.yaml --set validate.threshold=2", 1, "k2d: recipe.yaml: validate.threshold: 2.0 is outside 0 to 1"),
        ("run recipe.yaml --set distil.max_steps", 1, "k2d: --set distil.max_steps: write key=value, such as distil.max_steps=50"),
        ("run recipe.yaml --from labels", 1, "k2d: --from labels: choose one of label, validate, student, targets, distil, evaluate, card"),
        ("run recipe.yaml --set recordings=nowhere.jsonl", 1, "k2d: recipe.yaml: recordings: 'nowhere.jsonl' does not exist, neither beside the recipe nor from here"),
        ("run recipe.yaml --set recordings=pathless.jsonl", 1, "k2d: manifest {here}/pathless.jsonl: no column with audio; it has sound, reference; rename one to, or set audio_column: audio, path,"),
        ("run recipe.yaml --set teacher=no/where", 1, "k2d: teacher: model no/where: not a folder here, not in the cache, and the Hub is not asked"),
        ("run", 2, "k2d: the following arguments are required: RECIPE.yaml; `k2d run --help` has more"),
        ("run recipe.yaml --frm label", 2, "k2d: unrecognized arguments: --frm; did you mean --from?; `k2d run --help` has more"),
        ("rum recipe.yaml", 2, "k2d: argument COMMAND: invalid choice: 'rum'"),
        ("label recordings --output out", 2, "k2d: the following arguments are required: --teacher; `k2d label --help` has more"),
        ("label nowhere --teacher teacher --output out", 1, "k2d: recordings nowhere: no such file or folder, and not a Hub id; give a folder of audio files"),
        ("label no/where --teacher teacher --output out", 1, "k2d: data set no/where: it cannot be loaded"),
        ("label pathless.jsonl --teacher teacher --output out", 1, "k2d: manifest {here}/pathless.jsonl: no column with audio"),
        ("label recordings --teacher no/where --output out", 1, "k2d: model no/where: not a folder here, not in the cache, and the Hub is not asked"),
        ("label recordings --teacher teacher --output out --set beam_sise=3", 1, "k2d: label: beam_sise: no such setting; did you mean beam_size?"),
        ("label recordings --teacher teacher --output out --beam-size many", 1, "k2d: label: beam_size: 'many' is not a whole number"),
        ("label recordings --teacher teacher --output out --engine faster", 1, "k2d: label: engine: 'faster' is none of auto, transformers, faster-whisper, ray, ray+transformers, ray+faster-whisper; did you mean faster-whisper?"),
        ("validate recordings --auxiliary auxiliary --output out", 1, "k2d: recordings: no data set of chunks:"),
        ("validate chunks --auxiliary auxiliary --output out --threshold 1.2", 1, "k2d: validate: threshold: 1.2 is outside 0 to 1"),
        ("validate chunks --auxiliary auxiliary --output out --metric merr", 1, "k2d: validate: metric: 'merr' is none of full, trivial, mer, per, composite; did you mean mer?"),
        ("validate chunks --auxiliary auxiliary --output recipe.yaml", 1, "k2d: recipe.yaml: already there and not empty"),
        ("student nowhere --output out", 1, "k2d: model nowhere: no such folder, and not a Hub id of the form owner/name; give the path of a local checkpoint folder"),
        ("student teacher --output out --decoder-layers 0", 1, "k2d: decoder_layers: "),
        ("distil chunks --student teacher --teacher teacher --output out --set max_step=3", 1, "k2d: distil: max_step: no such setting; did you mean max_steps?"),
        ("distil chunks --student teacher --teacher teacher --output out --kl-weight=-1", 1, "k2d: distil: settings: kl_weight -1"),
        ("evaluate teacher --data recordings/one.flac", 1, "k2d: none of 1 recordings in recordings/one.flac has a reference"),
        ("push", 2, "k2d: the following arguments are required: --repo-id; `k2d push --help` has more"),
        ("push --repo-id me/x", 1, "k2d: push: nothing to push; give the folder of a student, or --data CHUNKS"),
        ("push nowhere --repo-id me/x", 1, "k2d: nowhere: no such folder; give the folder of a student, as k2d distil or k2d run writes it"),
        ("push recordings --repo-id me/x", 1, "k2d: recordings: not a complete checkpoint, no config.json; give what"),
        ("push teacher --repo-id x", 1, "k2d: push: 'x' is no name of a repository; write USER/NAME"),
        ("push teacher --repo-id me/x", 1, "k2d: push to me/x: offline by HF_HUB_OFFLINE; unset it"),
        ("push teacher --repo-id me/x --public --private", 2, "k2d: argument --private: not allowed with argument --public"),
        ("push --repo-id me/x --data recordings", 1, "k2d: recordings: no data set of chunks:"),
        ("push --repo-id me/x --data chunks --ctranslate2", 1, "k2d: push: --ctranslate2 goes with a student; give its folder, or leave the option out"),
        ("push teacher --repo-id me/x --data-repo-id me/y", 1, "k2d: push: --data-repo-id goes with --data CHUNKS; give them, or leave the option out"),
        ("import-ctranslate2 teacher --output out", 1, "k2d: "),
        ("import-ctranslate2 teacher --output out --dtype int3", 1, "k2d: dtype 'int3': not one of float32, float16, bfloat16"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_on_stderr_and_an_exit_status(here, capsys, command, status, line):
    assert k2d(*command.split()) == status
    captured = capsys.readouterr()
    assert captured.err.startswith(line.format(here=here))
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (here / "out").exists()


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A copy of the workplace as the current folder, with a manifest that has no paths."""
    folder = shutil.copytree(workplace, tmp_path / "here")
    (folder / "pathless.jsonl").write_text('{"sound": "one.flac", "reference": "x"}\n', encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("shape", "line"),
    [
        ({"vocab_size": 51866}, r"^k2d: teacher has 51866 tokens, student 51865: "),
        ({"mel_bins": 128}, r"^k2d: teacher has 128 mel bins, student 80: .*create the student from the teacher\n$"),
    ],
)
def test_a_teacher_of_another_family_is_refused(made, processor, tmp_path, capsys, shape, line):
    make_tiny_whisper(**shape).save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    capsys.readouterr()
    command = ("distil", made / "validate", "--student", made / "student", "--teacher", tmp_path / "other")
    assert k2d(*command, "--output", tmp_path / "out", "--set", "max_steps=1") == 1
    assert re.match(line, capsys.readouterr().err)


def test_where_every_chunk_is_dropped_the_status_says_so(made, workplace, tmp_path, capsys):
    command = (
        "validate",
        made / "label",
        "--auxiliary",
        workplace / "auxiliary",
        "--output",
        tmp_path / "out",
        *SCRIPTED,
    )
    assert k2d(*command, "--metric", "mer", "--threshold", "0.01") == 1
    assert capsys.readouterr().err == (
        "k2d: every one of 3 chunks was dropped (3 distance > 0.01); raise validate.threshold (now 0.01), or look at "
        f"the column distance in {tmp_path / 'out'}\n"
    )


def test_validation_takes_a_limit_and_warns_of_a_low_share(made, workplace, tmp_path, capsys):
    chunks = load_from_disk(str(made / "label"))
    rows = chunks.to_list()
    rows[0]["segments"][1]["end"] = rows[0]["segments"][1]["start"]  # a sentence in no time
    rows[1]["text"] = "完全不一樣的一句話"
    type(chunks).from_list(rows, features=chunks.features).save_to_disk(str(tmp_path / "chunks"))
    command = ("validate", tmp_path / "chunks", "--auxiliary", workplace / "auxiliary", *SCRIPTED)
    dropped = "1 distance > 0.40", "1 speaking rate > 15"
    for name, limit in {"a": ("--max-speaking-rate", "15"), "b": ("--set", "max_speaking_rate=15")}.items():
        assert k2d(*command, "--output", tmp_path / name, *limit) == 0
        shown = capsys.readouterr()
        assert "kept 1 (33%, " in shown.out
        assert all(reason in shown.out for reason in dropped)
        assert re.fullmatch(r"k2d: validation kept only 1 of 3 chunks \(33%, .*\n", shown.err)
        assert load_from_disk(str(tmp_path / name))["keep"] == [False, False, True]
    assert k2d(*command, "--output", tmp_path / "c", "--max-speaking-rate", "0") == 1
    assert "max_speaking_rate: 0.0 is too small; at least 1" in capsys.readouterr().err


def test_an_output_in_use_is_an_error_with_its_holder(here, capsys):
    from k2d_hf.files.folders import locked

    with locked(here / "runs" / "tiny"):
        assert k2d("run", "recipe.yaml") == 1
    assert re.fullmatch(
        rf"k2d: runs/tiny is in use by process {os.getpid()} \(started \d\d:\d\d on host \S+\); "
        r"wait for it or choose another --output\n",
        capsys.readouterr().err,
    )


@pytest.fixture
def a_run(made, tmp_path):
    """What the commands left, where a run has it."""
    folder = tmp_path / "run"
    (folder / "student-before").mkdir(parents=True)
    (folder / "stages.json").write_text("{}", encoding="utf-8")
    for part, name in {"chunks": "label", "validated": "validate", "student": "distil"}.items():
        (folder / part).symlink_to(made / name)
    shutil.copytree(made / "student", folder / "student-before", dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("calibrate {run}", "calibrate {run}/validated"),
        ("export {run} --to ctranslate2 --output {run}/none --quantization int3", "export {run}/student --to ctranslate2 --output {run}/none --quantization int3"),
        ("push {run} --repo-id me/x", "push {run}/student --repo-id me/x"),
        ("push --data {run} --repo-id me/x", "push --data {run}/validated --repo-id me/x"),
        ("student {run} --output {run}/none --decoder-layers 9", "student {run}/student --output {run}/none --decoder-layers 9"),
        ("evaluate {run} --data dev.jsonl --language yue", "evaluate {run}/student --data dev.jsonl --language yue"),
        ("report {run}/validated", "report {run}"),
        ("compare {run}/student", "compare {run}"),
    ],
)  # fmt: skip
def test_the_folder_of_a_run_is_taken_for_that_of_its_stage(a_run, here, capsys, command, part):
    shown = []
    for one in (command, part):
        status = k2d(*one.format(run=a_run).split())
        captured = capsys.readouterr()
        shown.append((status, captured.out, captured.err.replace(f"{a_run}/student", str(a_run))))
    assert shown[0] == shown[1]
    assert shown[0][2].count("\n") <= 1


def test_every_stage_of_training_takes_a_run(a_run, workplace, tmp_path, capsys):
    teacher = ["--teacher", workplace / "teacher"]
    options = ["--student", a_run, "--language", "zh"]
    assert k2d("targets", a_run, *options, *teacher, "--output", a_run / "targets", "--kind", "top", "--k", "4") == 0
    assert k2d("distil", a_run, *options, "--output", tmp_path / "out", "--max_steps", "1") == 0
    assert "soft targets, no teacher in memory" in capsys.readouterr().out  # without a teacher, those are meant


@needs_espeak
@pytest.mark.parametrize(
    ("options", "language"),
    [
        (["--token-weighting", "agreement"], "es"),  # as the run's chunks were validated
        (["--token-weighting", "agreement", "--espeak-language", "hi"], "hi"),
        ([], None),  # nothing is compared
    ],
)
def test_tokens_of_a_run_are_weighed_by_the_phones_of_its_validation(
    a_run, workplace, tmp_path, monkeypatch, options, language
):
    (a_run / "recipe.yaml").write_text("{validate: {espeak_language: es}}", encoding="utf-8")
    given = []
    monkeypatch.setattr("k2d_hf.pipeline.stages.distil.distil", lambda *all: given.append(all[4]) or "done")
    for place in (a_run, a_run / "validated"):
        command = [
            "distil",
            place,
            "--student",
            a_run,
            "--teacher",
            workplace / "teacher",
            "--output",
            tmp_path / "out",
        ]
        assert k2d(*command, *options) == 0
    assert [settings.get("espeak_language") for settings in given] == [language] * 2


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("calibrate empty", "empty: a run without validated; `k2d run` makes it, or give another folder"),
        ("validate empty --auxiliary teacher --output out", "empty: a run without chunks; "),
        ("distil empty --student teacher --output out", "empty: a run without targets or mixed or validated; "),
        ("push empty --repo-id me/x", "empty: a run without student; "),
        ("evaluate empty --data dev.jsonl", "empty: a run without student; "),
        ("report recordings", "recordings: no recipe.yaml in it; give the folder of a run"),
        ("calibrate odd", "odd: no data set of chunks: its Parquet files cannot be read, or have different columns; "),
        ("validate odd --auxiliary teacher --output out", "odd: no data set of chunks: its Parquet files cannot"),
        ("distil odd --student teacher --output out", "odd: no data set of chunks: its Parquet files cannot"),
        ("calibrate recordings", "recordings: no data set of chunks: there are no Parquet files in it; "),
        ("validate numbers --auxiliary teacher --output out", "numbers: no data set of chunks: no column text, recording or audio; "),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_stages_is_one_line(here, capfd, command, line):
    from datasets import Dataset

    (here / "empty").mkdir()
    (here / "empty" / "stages.json").write_text("{}", encoding="utf-8")
    (here / "odd").mkdir()
    Dataset.from_dict({"a": [1]}).to_parquet(here / "odd" / "a.parquet")
    Dataset.from_dict({"b": ["x"]}).to_parquet(here / "odd" / "b.parquet")
    Dataset.from_dict({"a": [1]}).save_to_disk(here / "numbers")
    capfd.readouterr()
    assert k2d(*command.split()) == 1
    captured = capfd.readouterr()
    assert captured.err.startswith(f"k2d: {line}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_chunks_that_nobody_validated_are_trained_on_only_where_that_is_said(made, workplace, tmp_path, capsys):
    command = [made / "label", "--student", made / "student", "--teacher", workplace / "teacher"]
    for stage in ("distil", "targets"):
        assert k2d(stage, *command, "--output", tmp_path / stage) == 1
        assert capsys.readouterr().err == (
            f"k2d: {made / 'label'}: nobody validated these 3 chunks (no column keep): give what `k2d validate` makes "
            "of them, or say --unvalidated to take all\n"
        )
    options = ["--max_steps", "2", "--learning_rate", "3e-4", "--logging-steps=1", "--no_dataloader_pin_memory"]
    options += ["--lr_scheduler_type=constant_with_warmup", "--lr_scheduler_kwargs", "{}", "--report_to", "none"]
    assert k2d("distil", *options, *command, "--output", tmp_path / "out", "--unvalidated", "--save_only_model") == 0
    log = json.loads((tmp_path / "out" / "training_log.json").read_text(encoding="utf-8"))
    assert [row["learning_rate"] for row in log if "learning_rate" in row] == [3e-4, 3e-4]


def test_help_is_complete(capsys):
    from dataclasses import fields

    from k2d_hf.distillation.settings import DistillationSettings
    from k2d_hf.pipeline import recipe

    sections = {
        "label": recipe.LabelSettings,
        "validate": recipe.ValidateSettings,
        "student": recipe.StudentSettings,
        "distil": DistillationSettings,
        "evaluate": recipe.EvaluateSettings,
    }
    assert k2d("run", "--help") == 0
    whole = capsys.readouterr().out
    assert all(f"hub.{field.name} " in whole for field in fields(recipe.HubSettings))
    assert all(f"recordings.{field.name} " in whole for field in fields(recipe.DataSettings))
    assert all(f"evaluation.{field.name} " in whole for field in fields(recipe.EvaluationDataSettings))
    assert all(f"report.{field.name} " in whole for field in fields(recipe.ReportSettings))
    for command, settings in sections.items():
        assert k2d(command, "--help") == 0
        shown = capsys.readouterr().out
        for field in fields(settings):
            assert f"--{field.name.replace('_', '-')} " in shown
            assert f"{command}.{field.name} " in whole
    assert k2d() == MISTYPED
    overview = capsys.readouterr().out
    assert all(f"    {command}" in overview for command in [*sections, "run", "push", "import-ctranslate2"])


def test_the_version_is_printed(capsys):
    from k2d_hf import __version__

    assert k2d("--version") == 0
    assert capsys.readouterr().out == f"k2d {__version__}\n"


def test_debug_shows_where_an_error_comes_from():
    shown = {}
    for debug in ("0", "1"):
        command = [sys.executable, "-m", "k2d_hf", "run", "no.yaml"]
        done = subprocess.run(command, env={**os.environ, "K2D_DEBUG": debug}, capture_output=True, text=True)
        assert done.returncode == 1
        shown[debug] = done.stderr
    assert shown["0"] == "k2d: no.yaml: no such recipe; give the path of a YAML file\n"
    assert shown["1"].startswith("Traceback")
    assert shown["1"].endswith(f"K2DError: {shown['0'].removeprefix('k2d: ')}")


def test_an_error_of_a_library_is_one_line_too(made, workplace, tmp_path, capsys):
    teacher = shutil.copytree(workplace / "teacher", tmp_path / "teacher")
    config = json.loads((teacher / "config.json").read_text(encoding="utf-8"))
    (teacher / "config.json").write_text(json.dumps({**config, "d_model": 2 * config["d_model"]}), encoding="utf-8")
    command = ("distil", made / "validate", "--student", made / "student", "--teacher", teacher)
    assert k2d(*command, "--output", tmp_path / "out") == 1
    assert re.fullmatch(r"k2d: \w+Error: .+; K2D_DEBUG=1 shows where\n", capsys.readouterr().err)
