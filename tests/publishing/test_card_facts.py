"""Facts from chunks and training arguments, and from nothing else."""

import math
from pathlib import Path

import pytest
from datasets import Dataset, load_from_disk

from k2d_hf import K2DTrainingArguments
from k2d_hf.distillation.card_callback import arguments_for_card
from k2d_hf.publishing import card_facts
from k2d_hf.publishing.card_facts import data_facts
from k2d_hf.publishing.model_card_data import DataFacts

CHUNKS = {
    "duration": [10.0, 20.0, 30.0, 5.0],
    "keep": [True, False, True, False],
    "drop_reason": [None, "distance > 0.40", None, "/home/me/talk.wav: 他說"],
    "language": ["zh", "xx/yy", "en", None],
    "mer": [0.1, 3.0, 0.3, math.nan],
    "per": [None, None, None, None],
    "distance": [0.0, 1.0, 0.2, 1.0],
    "text": ["a", "b", "c", "d"],
}


def test_chunks_are_counted_batch_by_batch_without_a_file(tmp_path, monkeypatch):
    Dataset.from_dict(CHUNKS).save_to_disk(str(tmp_path / "chunks"))
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(card_facts, "ROWS_AT_ONCE", 2)
    found = data_facts(load_from_disk(str(tmp_path / "chunks")))
    assert found == DataFacts(
        chunks=4,
        seconds=65.0,
        kept=2,
        kept_seconds=40.0,
        dropped={"distance > 0.40": 1, "other reasons": 1},
        languages=["en", "zh"],
        means={"mer": pytest.approx(0.2), "distance": pytest.approx(0.1)},
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        (Dataset.from_dict({"duration": [1.0, 2.0]}), DataFacts(2, 3.0)),
        (Dataset.from_dict({"text": ["a"]}), None),
        ([{"duration": 1.0}], None),
        (None, None),
    ],
)
def test_what_the_columns_do_not_have_is_unknown(rows, facts):
    assert data_facts(rows) == facts


@pytest.mark.parametrize(
    ("language", "texts", "mixed"),
    [
        ("zh", ["今天講 machine learning 的部分"], ["en"]),
        ("zh", ["今天天氣很好我們出去玩吧然後再一起去吃飯看電影", "好 OK"], []),  # fewer than a twentieth are names
        ("zh", ["今天", "dropped, as it is English"], []),
        ("yue", ["我哋用 GPU 嚟 train 呢個 model"], ["en"]),
        ("hi", ["यह machine learning है"], ["en"]),
        ("de", ["wir nehmen ein neural network"], []),  # by their script words of a Latin language are not told apart
        ("en", ["this is 機器學習"], ["zh"]),
        ("ja", ["今日は機械学習"], []),
        (None, ["今天講 machine learning"], []),
    ],
)
def test_a_second_language_is_one_that_the_kept_labels_hold(language, texts, mixed):
    rows = [{"duration": 1.0, "keep": "dropped" not in text, "language": language, "text": text} for text in texts]
    found = data_facts(Dataset.from_list(rows))
    assert (found.mixed_in, found.languages) == (mixed, [language] if language else [])


def test_default_arguments_are_left_out():
    assert arguments_for_card(K2DTrainingArguments("out", report_to="none")) == {}


def test_arguments_have_what_is_learned_and_no_path_token_or_name(tmp_path):
    secret = "hf_secret"
    args = K2DTrainingArguments(
        str(tmp_path / secret),
        learning_rate=1e-3,
        freeze_encoder=False,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        optim="sgd",
        hub_token=secret,
        hub_model_id=f"me/{secret}",
        run_name=secret,
        project=secret,
        encoder_states_dir=str(Path(secret)),
        report_to="none",
        save_steps=7,
    )
    args.language = "/home/me"  # which is refused when they are made
    assert arguments_for_card(args) == {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "freeze_encoder": False,
    }
