"""Hints at what is not installed: commands that work, as the name of this package is on no index."""

import configparser
from pathlib import Path

import pytest

from k2d_hf.files.extras import install_hint, packages_of

ROOT = Path(__file__).parents[1]
EXTRAS = configparser.ConfigParser()
EXTRAS.read(ROOT / "setup.cfg", encoding="utf-8")


@pytest.mark.parametrize("extra", ["fast", "report", "ray", "espeak", "quickstart"])
def test_a_hint_names_the_packages_of_the_extra(extra):
    declared = EXTRAS["options.extras_require"][extra].split()
    assert packages_of(extra) == declared
    assert install_hint(extra) == "pip install " + " ".join(f"'{package}'" for package in declared)


def test_from_its_source_alone_the_hint_is_the_checkouts(monkeypatch):
    monkeypatch.setattr("k2d_hf.files.extras.DISTRIBUTION", "k2d_hf-that-nobody-installed")
    assert install_hint("fast") == "pip install '.[fast]' in the checkout of k2d_hf-that-nobody-installed"


@pytest.mark.parametrize("folder", ["k2d_hf", "recipes", "benchmarks", "metrics", "docs", "model_cards"])
def test_nobody_is_sent_to_the_index_for_this_package(folder):
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*") if _is_text(path)}
    assert texts
    assert [str(path) for path, text in texts.items() if "install k2d_hf" in text or "install 'k2d_hf" in text] == []


def _is_text(path):
    return path.suffix in (".py", ".md", ".yaml", ".toml", ".cfg", ".html", ".txt")
