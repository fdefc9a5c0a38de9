"""A student guesses, its teacher checks: greedy decoding gives the teacher's own tokens, whatever the student's guess."""

import numpy as np
import pytest
import torch
from tiny_whisper import make_tiny_whisper
from transformers import WhisperForCausalLM, WhisperForConditionalGeneration, pipeline

from k2d_hf import create_student
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding

LANGUAGE = {"language": "zh", "task": "transcribe"}


@pytest.fixture(scope="module")
def teacher():
    # In float64, so that many tokens at once and one after the other cannot round to different ones.
    return make_tiny_whisper(d_model=64).double()


@pytest.fixture(scope="module")
def assistant(teacher, tmp_path_factory):
    """The decoder of a student; its input is the output of its teacher's encoder, which is its own."""
    folder = tmp_path_factory.mktemp("student")
    student = create_student(teacher, decoder_layers=2, language="zh")
    with torch.no_grad():  # as training does: it no longer agrees with its teacher everywhere
        noise = torch.Generator().manual_seed(1)
        for parameter in student.model.decoder.layers.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    student.save_pretrained(folder)
    carry_decoding(folder, NOT_EVALUATED)  # as a trained student does; five beams are no way to draft
    return WhisperForCausalLM.from_pretrained(folder, dtype=torch.float64, use_safetensors=True)


def sound(frames):
    return torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        (3000, {**LANGUAGE}),
        (3000, {**LANGUAGE, "return_timestamps": True}),
        (3000, {"task": "transcribe"}),  # the teacher detects the language
        (3000, {**LANGUAGE, "prompt_ids": torch.tensor([50361, 100, 200, 300])}),
        (7000, {**LANGUAGE, "return_timestamps": True, "attention_mask": torch.ones(1, 7000, dtype=torch.long)}),
    ],
    ids=["text", "timestamps", "language unknown", "prompt", "long"],
)
def test_the_tokens_are_those_of_the_teacher_alone(teacher, assistant, frames, options):
    options = {**options, "max_new_tokens": 20}
    alone = teacher.generate(sound(frames), **options)
    assert alone.shape[1] > 8
    assert teacher.generate(sound(frames), assistant_model=assistant, **options).tolist() == alone.tolist()


def test_the_student_is_asked(teacher, assistant):
    asked = []
    with assistant.register_forward_hook(lambda *_: asked.append(1)):
        teacher.generate(sound(3000), assistant_model=assistant, max_new_tokens=20, **LANGUAGE)
    assert asked


def test_several_recordings_at_once_are_refused_and_not_mixed_up(teacher, assistant):
    with pytest.raises(ValueError, match="only supported for batch_size = 1"):
        teacher.generate(sound(3000).expand(2, -1, -1), assistant_model=assistant, max_new_tokens=4, **LANGUAGE)


def test_a_pipeline_with_an_assistant_writes_what_it_writes_without(workplace, tmp_path):
    create_student(WhisperForConditionalGeneration.from_pretrained(workplace / "teacher")).save_pretrained(tmp_path)
    carry_decoding(tmp_path, NOT_EVALUATED)
    assistant = WhisperForCausalLM.from_pretrained(tmp_path, use_safetensors=True)
    asr = pipeline("automatic-speech-recognition", model=str(workplace / "teacher"), device="cpu")
    noise = np.random.default_rng(0).normal(0, 0.05, 55 * 16000).astype(np.float32)
    # The pipeline searches with beams, with an assistant greedily.
    options = {"return_timestamps": True, "generate_kwargs": {"language": "zh", "num_beams": 1}}
    alone = asr(noise.copy(), **options)
    options["generate_kwargs"]["assistant_model"] = assistant
    assert asr(noise.copy(), **options) == alone
    assert "machine learning" in alone["text"]
