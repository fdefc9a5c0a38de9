import os
import socket

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.scoring.metrics import MixedErrorRate, PhonemeErrorRate

REFERENCES = ["今天講 machine learning", "謝謝 everyone", "U.S. 的 GPT-4"]
PREDICTIONS = ["今天講機器學習", "", "US的GPT4"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_mixed_error_rate():
    assert MixedErrorRate().compute(predictions=PREDICTIONS, references=REFERENCES) == {
        "mer": pytest.approx(7 / 12),
        "substitutions": 2,
        "deletions": 3,
        "insertions": 2,
        "reference_length": 12,
        "zh_cer": pytest.approx(6 / 6),
        "en_wer": pytest.approx(3 / 6),
    }


def test_insertions_by_script_are_given_on_request():
    metric, pair = MixedErrorRate(), {"predictions": ["we train 謝謝觀看" + "《" * 223], "references": ["we train"]}
    plain = metric.compute(**pair)
    assert (plain["mer"], plain["zh_cer"], plain["en_wer"]) == (2.0, None, 0.0)
    rates = metric.compute(**pair, insertions_by_script=True)
    assert rates == {**plain, "insertions_by_script": {"Han": 4, "marks": 223}}
    assert "insertions_by_script" not in plain


def test_phoneme_error_rate():
    assert PhonemeErrorRate().compute(predictions=["他用 there 到"], references=["她用 their 道路"]) == {
        "per": pytest.approx(2 / 10),
        "substitutions": 0,
        "deletions": 2,
        "insertions": 0,
        "reference_length": 10,
    }


@pytest.mark.parametrize(
    ("predictions", "references", "mer", "zh_cer", "en_wer"),
    [
        ([], [], 0.0, None, None),
        ([""], [""], 0.0, None, None),
        (["noise"], [""], 1.0, None, None),
        (["hi"], ["hi"], 0.0, None, 0.0),
        (["你"], ["你"], 0.0, 0.0, None),
    ],
)
def test_parts_without_reference_tokens_have_no_rate(predictions, references, mer, zh_cer, en_wer):
    result = MixedErrorRate().compute(predictions=predictions, references=references)
    assert (result["mer"], result["zh_cer"], result["en_wer"]) == (mer, zh_cer, en_wer)


def test_batches_add_up_and_the_next_run_starts_afresh():
    metric = MixedErrorRate()
    once = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
    for prediction, reference in zip(PREDICTIONS, REFERENCES):
        metric.add_batch(predictions=[prediction], references=[reference])
    assert metric.compute() == once
    assert metric.compute(predictions=["a"], references=["a"])["reference_length"] == 1
    metric.add(prediction="a", reference="b")
    assert metric.compute()["mer"] == 1.0


def test_nothing_is_written_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    MixedErrorRate().compute(predictions=["a"], references=["a"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metric", [MixedErrorRate, PhonemeErrorRate])
@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions for 1 references"),
        (["a"], ["a", "b"], "1 predictions for 2 references"),
        (["a", None], ["a", "b"], r"predictions\[1\] is None"),
        (["a"], [3], r"references\[0\] is 3"),
        ("abc", ["abc"], "predictions is 'abc': give a list"),
        (["abc"], None, "references is None: give a list"),
    ],
)
def test_bad_input_is_a_clear_error(metric, predictions, references, message):
    with pytest.raises(K2DError, match=message):
        metric().compute(predictions=predictions, references=references)
