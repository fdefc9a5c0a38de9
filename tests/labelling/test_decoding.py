"""How a student decodes is written once: the engines call with it, its generation config carries it, snippets pass it."""

import inspect
import json
import shutil

import numpy as np
import pytest

from k2d_hf.transcription.decoding import (
    CARRIED,
    FASTER_WHISPER_DEFAULTS,
    NOT_EVALUATED,
    arguments_of_faster_whisper,
    arguments_of_pipeline,
    carried_decoding,
    carry_decoding,
    transformers_arguments,
)
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions, temperatures

LADDER = temperatures(fallback=True)


@pytest.fixture
def student(tiny_whisper_dir, tmp_path):
    """A random Whisper that searches: with one beam and with three it writes other texts."""
    folder = shutil.copytree(tiny_whisper_dir, tmp_path / "student")
    change(folder, max_length=20, language="zh", task="transcribe", return_timestamps=None)
    return folder


def change(folder, **values):
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}), encoding="utf-8")


def config_of(folder):
    return json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))


def noise(seconds):
    return np.random.default_rng(0).normal(0, 0.05, seconds * 16000).astype(np.float32)


def tokens(text):
    return text.replace(" ", "")


def evaluated_text(folder, options):
    transcript = open_transcriber(folder, options, engine="transformers").transcribe([noise(31)])[0]
    return tokens("".join(segment.text for segment in transcript.segments))


def test_a_plain_pipeline_searches_with_as_many_beams_as_the_evaluation(student):
    from transformers import pipeline

    written = {}
    for beams in (1, 3):
        options = DecodingOptions(language="zh", beam_size=beams, condition_on_previous_text=False, temperatures=(0.0,))
        carry_decoding(student, options)
        asr = pipeline("automatic-speech-recognition", model=str(student), device="cpu")
        written[beams] = tokens(asr(noise(31))["text"])
        assert written[beams] == evaluated_text(student, options)
    assert written[1] != written[3]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_pipeline_with_the_arguments_that_are_left_writes_what_the_evaluation_did(student, earlier):
    """With fallback: a random model looks wrong in each window, so it is sampled, from the same seed."""
    import torch
    from transformers import pipeline

    options = DecodingOptions(language="zh", beam_size=2, condition_on_previous_text=earlier, temperatures=(0.0, 0.8))
    carry_decoding(student, options)
    asr = pipeline(
        "automatic-speech-recognition",
        model=str(student),
        device="cpu",
        return_timestamps=True,
        generate_kwargs=arguments_of_pipeline(options),
    )
    generate = asr.model.generate

    def seeded(**arguments):  # a pipeline draws from the generator itself before it comes to this
        torch.manual_seed(0)
        return generate(**arguments)

    asr.model.generate = seeded
    assert tokens(asr(noise(31))["text"]) == evaluated_text(student, options)


@pytest.mark.parametrize("name", sorted(transformers_arguments(NOT_EVALUATED).keys() - set(CARRIED) - {"temperature"}))
def test_a_threshold_that_is_not_carried_makes_transformers_fail(student, name):
    """Once it no longer does, the generation config should carry it."""
    from transformers import pipeline

    change(student, **{name: transformers_arguments(NOT_EVALUATED)[name]})
    asr = pipeline("automatic-speech-recognition", model=str(student), device="cpu")
    with pytest.raises((IndexError, UnboundLocalError, TypeError)):
        asr(noise(5))


def test_the_generation_config_changes_in_what_it_carries_alone(student):
    before = config_of(student)
    options = DecodingOptions(beam_size=3, condition_on_previous_text=True)
    assert carry_decoding(student, options)
    carried = {"num_beams": 3, "compression_ratio_threshold": 1.35, "condition_on_prev_tokens": True}
    assert config_of(student) == before | carried
    assert not carry_decoding(student, options)
    assert carried_decoding(config_of(student)) == options


def test_what_the_user_has_set_stays_where_it_is_only_completed(student):
    change(student, num_beams=1)
    carry_decoding(student, NOT_EVALUATED, replace=False)
    assert config_of(student)["num_beams"] == 1
    assert config_of(student)["compression_ratio_threshold"] == 1.35


def test_faster_whisper_gets_what_is_not_its_default():
    from faster_whisper import WhisperModel

    defaults = inspect.signature(WhisperModel.transcribe).parameters
    known = {name: defaults[name].default for name in FASTER_WHISPER_DEFAULTS}
    assert known == FASTER_WHISPER_DEFAULTS
    whole = DecodingOptions(beam_size=5, condition_on_previous_text=True, temperatures=LADDER)
    assert arguments_of_faster_whisper(whole, "zh") == {"language": "zh"}
    greedy = DecodingOptions(beam_size=1, condition_on_previous_text=False, temperatures=(0.0,))
    assert arguments_of_faster_whisper(greedy, None) == {
        "beam_size": 1,
        "temperature": [0.0],
        "condition_on_previous_text": False,
    }
