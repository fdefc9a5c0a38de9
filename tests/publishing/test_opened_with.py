"""README and cards name what a student was opened with, as the record of `make test-compat` has it."""

import json
import re
from importlib import resources
from pathlib import Path

from k2d_hf.publishing.card_rendering import render_card
from k2d_hf.publishing.card_use import RECORD, opened_with
from publishing.card_parts import facts

ROOT = Path(__file__).parents[2]


def test_readme_and_card_say_what_is_in_the_record():
    line = opened_with()
    record = json.loads((resources.files("k2d_hf.publishing") / RECORD).read_text(encoding="utf-8"))
    versions = [version for row in record["opened"] for version in row["versions"].values()]
    assert all(version in line for version in versions)
    assert record["date"] in line
    assert line in (ROOT / "README.md").read_text(encoding="utf-8")
    assert line in render_card(facts()).content
    assert line not in render_card(facts(adapters_alone=True)).content  # which open in fewer places


def test_what_was_asked_for_was_tried():
    line = opened_with()
    assert re.search(r"transformers 4\.49\.\d, 4\.57\.\d and 5\.\d+\.\d, faster-whisper", line)
    record = json.loads((resources.files("k2d_hf.publishing") / RECORD).read_text(encoding="utf-8"))
    rates = [
        (row["error_rate"], "transformers" in row["versions"] and len(row["versions"]) == 1) for row in record["opened"]
    ]
    assert all(rate == 0 if same else rate <= 0.05 for rate, same in rates)
