"""Settings of distillation: the paper's by default, and a clear line for what cannot be."""

import math
import pickle
import re
from dataclasses import fields

import pytest
from transformers import Seq2SeqTrainingArguments

from k2d_hf import K2DTrainingArguments
from k2d_hf.errors import K2DError


def arguments(tmp_path, **settings):
    return K2DTrainingArguments(str(tmp_path), report_to="none", use_cpu=True, **settings)


def test_the_defaults_are_the_papers_loss(tmp_path):
    made = arguments(tmp_path)
    assert (made.ce_weight, made.kl_weight, made.auxiliary_weight, made.temperature) == (0.8, 1.0, 0.0, 2.0)
    assert (made.timestamp_probability, made.previous_text_probability) == (0.5, 0.2)
    assert (made.freeze_encoder, made.chunk_weighting, made.remove_unused_columns) == (True, "hard", False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ce_weight": -0.1}, "ce_weight -0.1: must not be negative"),
        ({"kl_weight": -1}, "kl_weight -1: must not be negative"),
        ({"auxiliary_weight": -1}, "auxiliary_weight -1"),
        ({"auxiliary_weight": math.nan}, "auxiliary_weight nan"),
        ({"ce_weight": 0, "kl_weight": 0}, "are all 0"),
        ({"temperature": 0}, "temperature 0: must be above 0"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"timestamp_probability": 1.5}, "timestamp_probability 1.5: must be between 0 and 1"),
        ({"previous_text_probability": -0.5}, "previous_text_probability -0.5"),
        ({"chunk_weighting": "firm"}, "chunk_weighting 'firm': choose one of hard, soft"),
        ({"task": "write"}, "task 'write': choose one of transcribe, translate"),
        ({"remove_unused_columns": True}, "remove_unused_columns must be False"),
        ({"learning_rate": -1.0}, "learning_rate -1.0: must be finite, and at least 0"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size 0: must be finite, and at least 1"),
        ({"adam_beta1": 1.0}, "adam_beta1 1.0: must be below 1"),
        ({"seed": 2**40}, "seed 1099511627776: must be at most 4294967295"),
        ({"max_steps": 0}, "max_steps 0: give at least 1 step, or -1"),
        ({"log_level": "loud"}, "log_level 'loud': choose one of"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor must be 0"),
    ],
)
def test_what_cannot_be_is_named(tmp_path, settings, message):
    with pytest.raises(K2DError, match=message):
        arguments(tmp_path, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"ce_weight": 0.0},
        {"kl_weight": 0.0},
        {"ce_weight": 0.0, "kl_weight": 0.0, "auxiliary_weight": 1.0},
        {"timestamp_probability": 0.0, "previous_text_probability": 1.0},
    ],
)
def test_what_can_be_is_taken(tmp_path, settings):
    made = arguments(tmp_path, **settings)
    assert {name: getattr(made, name) for name in settings} == settings


def test_the_trainers_own_settings_are_there(tmp_path):
    made = arguments(tmp_path, max_steps=7, gradient_accumulation_steps=4, predict_with_generate=True)
    assert (made.max_steps, made.gradient_accumulation_steps, made.predict_with_generate) == (7, 4, True)


def test_what_is_saved_holds_no_token(tmp_path):
    arguments = K2DTrainingArguments(str(tmp_path), hub_token="hf_secret", ce_weight=0.5)
    saved = pickle.dumps(arguments)
    assert b"hf_secret" not in saved
    assert pickle.loads(saved).ce_weight == 0.5
    assert arguments.hub_token == "hf_secret"


def test_every_field_of_ours_is_in_the_docstring():
    ours = {field.name for field in fields(K2DTrainingArguments)} - {f.name for f in fields(Seq2SeqTrainingArguments)}
    described = re.findall(r"^    (\w+): .+", K2DTrainingArguments.__doc__, re.MULTILINE)
    assert set(described) == ours
    assert len(described) == len(ours) > 15
