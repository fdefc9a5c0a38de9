"""The recipes of other pairs: settings that fit their language, sentences in both, and speech with references."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from espeak_extra import needs_espeak

from k2d_hf import load_recipe, load_recordings
from k2d_hf.data.references import references_of
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.scoring.writing import script_of

FOLDER = Path(__file__).parents[1] / "recipes" / "pairs"
PAIRS = {"es_en": "es", "hi_en": "hi"}


@pytest.fixture(scope="module")
def speech():
    """The module that makes the speech."""
    spec = importlib.util.spec_from_file_location("pairs_speech", FOLDER / "make_speech.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("pair", PAIRS)
def test_a_recipe_compares_labels_in_the_language_of_its_speech(pair):
    recipe = load_recipe(FOLDER / f"{pair}.yaml", [f"name=planned-{pair}"], elsewhere=True)
    assert recipe.language == recipe.validate.espeak_language == PAIRS[pair]
    assert recipe.auxiliary == "teacher"


@needs_espeak
def test_both_have_a_plan_and_learn_alike():
    recipes = [load_recipe(FOLDER / f"{pair}.yaml", [f"name=planned-{pair}"], elsewhere=True) for pair in PAIRS]
    assert [plan_run(recipe).student.decoder_layers for recipe in recipes] == [6, 6]
    assert recipes[0].distil == recipes[1].distil
    assert recipes[0].student == recipes[1].student


@needs_espeak
@pytest.mark.parametrize("pair", PAIRS)
def test_sentences_of_training_and_of_the_measurement_are_others(speech, pair):
    parts = speech.sentences_of(FOLDER / f"{pair}.txt")
    train, dev = parts["train"], parts["dev"]
    assert len(set(train)) == len(train) >= 35
    assert len(set(dev)) == len(dev) >= 12
    assert not set(train) & set(dev)
    for sentences in parts.values():
        assert sum("[" in sentence for sentence in sentences) > len(sentences) / 2
        assert all(sentence.count("[") == sentence.count("]") for sentence in sentences)
    if pair == "hi_en":  # what is in Latin letters is English, and the other way round
        stretches = [one for sentence in train + dev for one in speech.stretches_of(sentence)]
        for stretch in stretches:
            scripts = {script_of(token) for token in mixed_tokens(stretch)}
            assert scripts == {"Latin" if stretch.startswith("[") else "Devanagari"}


@needs_espeak
def test_speech_is_written_with_references_and_lists_without(speech, tmp_path):
    sentences = ["Hoy vamos a hablar de [machine learning].", "El tren sale a las siete.", "Mirad este [dashboard]."]
    speaker = speech.Speaker()
    seconds = speech.write_part(speaker, tmp_path, "es_en", "train", sentences)
    recordings = load_recordings(tmp_path / "train.jsonl")
    assert len(recordings) == len(speech.VOICES["train"])
    assert set(recordings["reference"]) == {None}
    assert sum(soundfile.info(path).duration for path in recordings["recording"]) == pytest.approx(seconds, abs=0.5)
    spoken = references_of(tmp_path / "train_references.jsonl", recordings["recording"])
    assert len(spoken) == len(recordings)
    texts = [segment.text for one in spoken.values() for segment in one]
    assert sorted(texts) == sorted(2 * [sentence.replace("[", "").replace("]", "") for sentence in sentences])
    for one in spoken.values():
        assert all(before.end < after.start for before, after in zip(one, one[1:], strict=False))


@needs_espeak
def test_what_is_in_brackets_is_read_as_english(speech):
    speaker, voice = speech.Speaker(), speech.VOICES["dev"][0]
    english, spanish = (
        speech.read_sentence(speaker, text, ("es", "en-us"), voice) for text in ("[machine]", "machine")
    )
    assert min(len(english), len(spanish)) > 0.2 * speech.RATE
    assert len(english) != len(spanish)
    assert np.abs(english).max() <= 1.0
