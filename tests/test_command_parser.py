"""What is typed: the nearest command and option, underscores, the Trainer's options, help, and outputs that will not do."""

import dataclasses
import re
import shutil

import pytest

from k2d_hf import K2DTrainingArguments
from k2d_hf.cli import MISTYPED, main


def k2d(*arguments):
    """Exit status of a command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A copy of the workplace as the current folder."""
    folder = shutil.copytree(workplace, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "label recordings --teacher nowhere --output {place}",
        "validate nowhere --auxiliary nowhere --output {place}",
        "student nowhere --output {place}",
        "targets nowhere --student nowhere --teacher nowhere --output {place}",
        "distil nowhere --student nowhere --output {place}",
        "export nowhere --to ctranslate2 --output {place}",
        "import-ctranslate2 nowhere --output {place}",
        "calibrate nowhere --output {place}",
        "evaluate nowhere --data nowhere --output {place}/x.json",
        "compare nowhere --output {place}/x.md",
        "report recordings --output {place}/x.html",
        "run recipe.yaml --output {place}",
    ],
)
def test_an_output_that_cannot_be_written_is_one_line_before_the_work(here, capsys, command):
    assert k2d(*command.format(place="recipe.yaml/inside").split()) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(r"k2d: recipe\.yaml/inside\S*: cannot be written \(.+\); choose another .+\n", captured.err)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("lable x", "argument COMMAND: invalid choice: 'lable'; did you mean label?"),
        ("import x", "argument COMMAND: invalid choice: 'import'; did you mean import-ctranslate2?"),
        ("zzz", "argument COMMAND: invalid choice: 'zzz'; choose one of run, label, validate, "),
        ("--quite label", "unrecognized arguments: --quite"),
        ("label x --teachr y --output z", "unrecognized arguments: --teachr; did you mean --teacher?"),
        ("label x --beam_siz 3 --output z", "unrecognized arguments: --beam-siz; did you mean --beam-size?"),
        ("validate x --theshold=3", "unrecognized arguments: --theshold; did you mean --threshold?"),
        ("distil x --max_stps 3", "unrecognized arguments: --max-stps; did you mean --max-steps?"),
        ("distil x --learning-rat=3", "unrecognized arguments: --learning-rat; did you mean --learning-rate?"),
        ("push x --repo_idd me/x", "unrecognized arguments: --repo-idd; did you mean --repo-id?"),
    ],
)
def test_the_nearest_command_or_option_is_named(capsys, command, hint):
    assert k2d(*command.split()) == MISTYPED
    captured = capsys.readouterr().err
    assert captured.startswith(f"k2d: {hint}")
    assert captured.count("\n") == 1


def test_options_may_be_written_with_underscores(here, capsys):
    assert k2d("push", "teacher", "--repo_id", "x") == 1
    assert "'x' is no name of a repository" in capsys.readouterr().err
    assert k2d("distil", "nowhere", "--student", "x", "--output", "out", "--kl_weight=-1") == 1
    assert "kl_weight -1" in capsys.readouterr().err


def test_every_field_of_the_trainer_is_an_option(capsys):
    from k2d_hf.pipeline.training import add_trainer_options
    from k2d_hf.terminal.command_parser import CommandParser

    parser = CommandParser(prog="x")
    add_trainer_options(parser)
    fields = {field.name: field for field in dataclasses.fields(K2DTrainingArguments)}
    known = parser._option_string_actions
    assert {f"--{name.replace('_', '-')}" for name in fields} <= set(known)
    given = vars(
        parser.parse_args(["--bf16", "--label_names", "a", "b", "--no_logging_nan_inf_filter", "--max_steps", "-1"])
    )
    assert given == {"bf16": "true", "label_names": ["a", "b"], "logging_nan_inf_filter": "false", "max_steps": "-1"}


def test_help_fits_and_says_what_values_are(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("run", "label", "validate", "student", "targets", "distil", "evaluate", "calibrate", "compare", "report",
             "push", "export", "import-ctranslate2")  # fmt: skip
    for command in commands:
        assert k2d(command, "--help") == 0
        shown = capsys.readouterr().out
        assert "VALUE" not in shown
        assert max(map(len, shown.splitlines())) <= 80
    assert k2d("targets", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "hidden states" in shown[: shown.index("positional arguments")]
