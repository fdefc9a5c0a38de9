"""A student as its model's assistant: the text is the model's own, and what does not go together is one line."""

import json
import shutil
from functools import wraps

import numpy as np
import pytest
import soundfile
import torch
from conftest import WRITTEN
from tiny_whisper import make_tiny_whisper
from transformers import WhisperForCausalLM

from k2d_hf import K2DError, create_student, transcribe
from k2d_hf.cli import main
from k2d_hf.pipeline.recipe import load_recipe
from k2d_hf.transcription.decoding import NOT_EVALUATED, carry_decoding
from k2d_hf.transcription.engines import check_options
from k2d_hf.transcription.transcribers import DecodingOptions

GREEDY = {"engine": "transformers", "beam_size": 1, "temperature_fallback": False, "on_progress": lambda count: None}


@pytest.fixture(scope="module")
def student(workplace, tmp_path_factory):
    """A student of the scripted teacher that no longer agrees with it, as one that was trained; five beams carried."""
    folder = tmp_path_factory.mktemp("run") / "student"
    made = create_student(workplace / "teacher", decoder_layers=1, language="zh")
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        for parameter in made.model.decoder.layers.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    shutil.copytree(workplace / "teacher", folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    made.save_pretrained(folder)
    carry_decoding(folder, NOT_EVALUATED)
    return folder


def test_the_text_is_the_models_own_and_the_assistant_is_asked(workplace, student, monkeypatch):
    asked = []
    forward = WhisperForCausalLM.forward

    @wraps(forward)
    def counted(*arguments, **options):
        asked.append(1)
        return forward(*arguments, **options)

    monkeypatch.setattr(WhisperForCausalLM, "forward", counted)
    recordings = [workplace / "recordings" / "one.flac", workplace / "recordings" / "two.flac"]
    alone = transcribe(recordings, workplace / "teacher", language="zh", **GREEDY).transcripts
    assert not asked
    assisted = transcribe(
        recordings, workplace / "teacher", language="zh", assistant=str(student), **GREEDY
    ).transcripts
    assert asked
    assert [one.segments for one in assisted] == [one.segments for one in alone]
    assert WRITTEN[0] in "".join(segment.text for segment in alone[1].segments)


def test_the_command_takes_the_run_whose_student_it_is(workplace, student, tmp_path, capsys):
    (student.parent / "stages.json").write_text("{}")
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.05, 25 * 16000), 16000)
    command = ["transcribe", str(tmp_path / "a.flac"), "--model", str(workplace / "teacher"), "--quiet"]
    command += ["--assistant", str(student.parent), "--engine", "transformers"]
    assert main(command) == 1
    assert capsys.readouterr().err == (
        "k2d: transcribe: assistant: for greedy decoding alone, as others would write another text with it; set "
        "beam_size to 1 and temperature_fallback to false\n"
    )
    assert main([*command, "--beam-size", "1", "--temperature-fallback", "false"]) == 0
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "".join(f"{text}\n" for text in WRITTEN)


def test_the_fast_engine_says_what_to_set():
    pytest.importorskip("faster_whisper")
    with pytest.raises(K2DError, match="faster-whisper takes none; set engine to transformers, beam_size to 1 and"):
        check_options(DecodingOptions(assistant="student"), "faster-whisper")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"vocab_size": 51866}, r"its vocabulary \(51866\) is not that of the model \(51865\)"),
        ({"d_model": 128}, r"its width \(128\) is not that of the model"),
        ({"encoder_layers": 1}, r"its encoder layers \(1\) is not that of the model"),
    ],
)
def test_a_model_of_another_family_is_refused_before_any_is_loaded(workplace, student, tmp_path, change, line):
    other = shutil.copytree(student, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, **change}))
    recordings = [workplace / "recordings" / "two.flac"]
    with pytest.raises(K2DError, match=line):
        transcribe(recordings, workplace / "teacher", assistant=str(other), **GREEDY)
    with pytest.raises(K2DError, match="^assistant: model .*nowhere: no such folder"):
        transcribe(recordings, workplace / "teacher", assistant=str(tmp_path / "nowhere"), **GREEDY)


def test_another_encoder_is_refused_when_both_are_loaded(workplace, student, tmp_path):
    other = shutil.copytree(student, tmp_path / "other")
    shape = json.loads((student / "config.json").read_text())
    make_tiny_whisper(
        seed=5, encoder_layers=shape["encoder_layers"], decoder_layers=1, d_model=shape["d_model"]
    ).save_pretrained(other)
    with pytest.raises(K2DError, match="its encoder is not that of the model; give a student that was distilled from"):
        transcribe([workplace / "recordings" / "two.flac"], workplace / "teacher", assistant=str(other), **GREEDY)


def test_a_recipe_names_it_beside_itself(workplace, student, tmp_path):
    recipe = workplace / "recipe.yaml"
    assert load_recipe(recipe, ["label.assistant=auxiliary"]).label.assistant == str(workplace / "auxiliary")
    assert load_recipe(recipe, ["label.assistant=owner/name"]).label.assistant == "owner/name"
    assert load_recipe(recipe).label.assistant is None
