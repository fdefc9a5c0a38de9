"""The package's public names, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import k2d_hf

HEAVY = ("torch", "transformers", "datasets", "evaluate", "pandas")


def modules_after(code):
    """Which heavy modules a fresh interpreter holds after `code`."""
    code += f"\nimport sys; print(*[name for name in {(*HEAVY, 'numpy', 'yaml')!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("name", k2d_hf.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(k2d_hf, name) is not None


def test_the_names_of_the_design_are_public():
    designed = {
        *("load_recordings", "label_recordings", "validate_labels", "create_student", "evaluate_model"),
        *("K2DTrainingArguments", "K2DTrainer", "K2DDataCollator", "MixedErrorRate", "PhonemeErrorRate"),
        *("mixed_tokens", "count_errors", "Segment", "pack_segments", "is_looping", "label_distance"),
    }
    assert designed <= set(k2d_hf.__all__)


def test_names_are_listed_once_for_people_and_for_type_checkers():
    tree = ast.parse(Path(k2d_hf.__file__).read_text(encoding="utf-8"))
    checking = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in checking.body for alias in node.names}
    assert typed == {name: f"k2d_hf.{module}" for name, module in k2d_hf._MODULES.items()}
    assert sorted(k2d_hf.__all__) == sorted([*typed, "__version__"])
    assert dir(k2d_hf) == sorted(k2d_hf.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        k2d_hf.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    assert modules_after("import k2d_hf") == []


def test_scoring_loads_no_model_library():
    assert not set(HEAVY) & set(modules_after("from k2d_hf import mixed_tokens, count_errors, label_distance"))


def test_the_help_of_every_command_loads_no_model_library():
    code = """
import contextlib, io
from k2d_hf.cli import main
commands = "run label validate student distil evaluate push transcribe export import-ctranslate2"
for command in commands.split():
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main([command, "--help"])
    assert "usage: k2d " + command in out.getvalue()
"""
    assert not set(HEAVY) & set(modules_after(code))
