"""The metric as a module of the Hub: `evaluate.load` finds the package's own, with no network."""

import re
from pathlib import Path

import pytest
from fresh_process import run_python

from k2d_hf import MixedErrorRate

MODULE = Path(__file__).parents[2] / "metrics" / "mixed_error_rate"
PAIRS = [
    ("今天講 mission learning", "今天講 machine learning"),
    ("我们用GPU来train一个model", "我們用 GPU 來 train 一個 model"),
    ("", "謝謝 everyone"),
    ("這個 attention attention 很重要", "這個 attention 很重要"),
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What the module answers in a process that may not ask the Hub."""
    predictions, references = map(list, zip(*PAIRS, strict=True))
    code = f"""
import evaluate
metric = evaluate.load({str(MODULE)!r})
rates = metric.compute(predictions={predictions!r}, references={references!r})
example = metric.compute(predictions={predictions[:1]!r}, references={references[:1]!r})
from k2d_hf import MixedErrorRate
result = [rates, example, type(metric) is MixedErrorRate]
"""
    return run_python(code, tmp_path_factory.mktemp("home"), HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1")[0]


def test_it_gives_what_the_package_gives(loaded):
    predictions, references = zip(*PAIRS, strict=True)
    assert loaded[0] == MixedErrorRate().compute(predictions=predictions, references=references)


def test_it_is_the_same_class_and_not_a_second_one(loaded):
    assert loaded[2]


def test_its_readme_shows_what_it_gives(loaded):
    shown = re.search(r"^# (\{.*\})$", (MODULE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert shown[1] == repr(loaded[1])


def test_it_names_the_package_that_it_needs():
    assert (MODULE / "requirements.txt").read_text().split() == ["k2d_hf"]
