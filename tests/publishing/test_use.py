"""Whoever downloads a student: one line of code, an empty cache, and code-switched text, over HTTP."""

import pytest
from conftest import WRITTEN
from fresh_process import run_python
from hub_server import WRITER, LocalHub, serving

from k2d_hf import create_student

PUSH = """
from k2d_hf.cli import main
assert main(["push", {folder!r}, "--repo-id", "me/student"]) == 0
result = None
"""
USE = """
import numpy as np
from transformers import pipeline
asr = pipeline("automatic-speech-recognition", model="me/student")
noise = np.random.default_rng(0).normal(0, 0.05, 55 * 16000).astype(np.float32)
result = {}
for length, samples in (("short", noise[: 10 * 16000]), ("long", noise)):
    for stamps in (None, True):
        options = {} if stamps is None else {"return_timestamps": True}
        result[f"{length} {stamps}"] = asr({"raw": samples, "sampling_rate": 16000}, **options)
"""


@pytest.fixture(scope="module")
def answers(workplace, tmp_path_factory):
    """The output of a pipeline that a fresh process made by the student's name, right after the push."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    folder = tmp_path_factory.mktemp("use")
    student = create_student(WhisperForConditionalGeneration.from_pretrained(workplace / "teacher"), language="zh")
    student.save_pretrained(folder / "student")
    WhisperProcessor.from_pretrained(workplace / "teacher").save_pretrained(folder / "student")
    homes = folder / "author", folder / "user"
    for home in homes:
        home.mkdir()
    with serving(LocalHub()) as address:
        settings = {"HF_ENDPOINT": address, "HF_TOKEN": WRITER}
        run_python(PUSH.format(folder=str(folder / "student")), homes[0], **settings)
        return run_python(USE, homes[1], **settings)[0]


@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize("stamps", [None, True])
def test_a_pipeline_writes_code_switched_text_and_nobody_names_a_language(answers, length, stamps):
    found = answers[f"{length} {stamps}"]
    windows = {"short": 1, "long": 2}[length]
    assert found["text"].split(WRITTEN[0])[0].strip() == ""
    assert found["text"].count("machine learning") == windows
    assert WRITTEN[1] in found["text"]


@pytest.mark.parametrize("length", ["short", "long"])
def test_asked_for_timestamps_it_gives_them_in_order(answers, length):
    chunks = answers[f"{length} True"]["chunks"]
    assert chunks[0] == {"timestamp": [0.0, 8.0], "text": WRITTEN[0]}
    starts = [chunk["timestamp"][0] for chunk in chunks]
    assert starts == sorted(starts)
    assert "chunks" not in answers[f"{length} None"]
