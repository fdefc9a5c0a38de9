"""Parts of an error rate: Mandarin-English as in the paper, of other pairs by script, named by what they are."""

import pytest

from k2d_hf.scoring.error_rates import MixedErrors, mixed_errors
from k2d_hf.scoring.parts import is_paper_pair, part_rates


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "parts"),
    [
        ("hi", "आज machine learning है", "आज machine है", {"hi WER": 0.0, "Latin WER": 0.5}),
        ("ja", "今日は machine です", "今日 machine です", {"ja CER": 0.2, "Latin WER": 0.0}),
        ("ko", "한국 machine", "한 machine", {"ko CER": 0.5, "Latin WER": 0.0}),
        ("th", "สวย machine", "สวย", {"th CER": 0.0, "Latin WER": 1.0}),
        ("ar", "مرحبا machine 3", "مرحبا machine 4", {"ar WER": 0.0, "Latin WER": 0.0}),
        ("ms", "saya 今天", "saya 今", {"ms WER": 0.0, "Han CER": 0.5}),
        ("es", "hoy machine learning", "hoy machine", {}),  # two languages in one script
        ("es", "hoy", "今天", {}),  # what is inserted alone is no part
        ("hi", " ".join(["आज"] * 39 + ["machine"]), "आज", {}),  # a name is none
        (None, "привет machine", "привет", {"Cyrillic WER": 0.0, "Latin WER": 1.0}),
        ("hi", "", "आज", {}),
    ],
)
def test_parts(language, reference, hypothesis, parts):
    errors = mixed_errors(reference, hypothesis)
    assert not is_paper_pair(errors, language) or not parts
    assert part_rates(errors, language) == pytest.approx(parts)


@pytest.mark.parametrize(
    ("language", "reference", "paper"),
    [
        ("zh", "машина", True),
        ("en", "a", True),
        (None, "今天 machine 3", True),
        (None, "か", False),
        ("yue", "今", False),
    ],
)
def test_mandarin_and_english_are_what_they_were(language, reference, paper):
    assert is_paper_pair(mixed_errors(reference, ""), language) is paper


def test_counts_by_script_add_up_over_recordings():
    one, other = mixed_errors("आज machine", "आज"), mixed_errors("machine 今", "今 今")
    total = (one + other).by_script
    assert {script: (counts.errors, counts.reference_length) for script, counts in total.items()} == {
        "Devanagari": (0, 1), "Latin": (2, 2), "Han": (1, 1),
    }  # fmt: skip
    assert sum((one, other), MixedErrors()).insertions_by_script == {"Han": 1}
