"""Figures of code-switching: in evaluations as they are kept, and which of them are shown."""

import json

import pytest

from k2d_hf.evaluation.evaluate import Evaluation
from k2d_hf.evaluation.switching import shown_rates, switching_of
from k2d_hf.evaluation.table import render_switching

REFERENCE = "我們開 meeting 談 budget 3 次"
PAIRS = [(REFERENCE, "我们开会谈 budget 3次"), ("好", "坏")]


def test_figures_are_ready_for_json():
    figures = switching_of(PAIRS)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["at"] == {"substitutions": 1, "deletions": 0, "insertions": 0, "reference_length": 5, "rate": 0.2}
    assert figures["away"]["rate"] == 1 / 4
    assert {name: one["rate"] for name, one in figures["directions"].items()} == {
        "Han to Latin": 1 / 4,
        "Latin to Han": 1 / 4,
    }
    assert figures["written_as"] == {
        "Han as Latin": {"tokens": 0, "of": 6, "rate": 0.0},
        "Latin as Han": {"tokens": 1, "of": 2, "rate": 0.5},
    }


@pytest.mark.parametrize("pairs", [[], [("hola my friend", "hello")], [("3 GPU", "三 GPU"), ("謝謝", "thank you")]])
def test_a_set_that_never_switches_has_none(pairs):
    assert switching_of(pairs) is None
    assert shown_rates({"student": {"switching": None}, "older": {}}) == ([], {})
    assert render_switching({"student": {"switching": None}}) == []


def test_all_tokens_at_a_switch_leave_no_rate_away():
    figures = switching_of([("用 GPU", "用 GPU")])
    assert (figures["at"]["rate"], figures["away"]["rate"]) == (0.0, None)
    assert shown_rates({"student": {"switching": figures}})[1] == {"student": [0.0, None, 0.0, None, 0.0, 0.0]}


def test_the_commonest_two_scripts_are_shown():
    figures = switching_of([("да GPU", "да GPU"), ("用 GPU 吧 GPU", "用 GPU 吧 GPU")])
    assert shown_rates({"student": {"switching": figures}})[0][2:] == [
        "Han to Latin",
        "Latin to Han",
        "Latin as Han",
        "Han as Latin",
    ]
    assert list(figures["directions"]) == ["Han to Latin", "Cyrillic to Latin", "Latin to Han"]


def test_one_that_an_earlier_version_kept_gets_them_too():
    known = {"recordings": 1, "audio_seconds": 1.0, "rtf": 0.1, "rtf_runs": [0.1], "parameters": 1, "engine": "none"}
    known |= {"language": None, "beam_size": 1, "condition_on_previous_text": False, "temperature_fallback": False}
    known |= {"mer": 1.0, "zh_cer": 1.0, "en_wer": 1.0, "substitutions": 1, "deletions": 1, "insertions": 1}
    rows = [{"reference": reference, "hypothesis": text} for reference, text in PAIRS]
    kept = Evaluation(model="student", reference_length=1, looping_outputs=0, transcripts=rows, **known)
    assert kept.switching is None
    scored = kept.scored_by("mixed")
    assert (scored.switching, scored.reference_length) == (switching_of(PAIRS), 9)
