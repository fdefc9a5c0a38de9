"""A language token that begins as a mix: its embedding, what is refused, and that students with it open everywhere."""

import copy
import math

import pytest
import torch

from k2d_hf import create_student, load_recipe
from k2d_hf.cli import main
from k2d_hf.distillation.models import with_adapters
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper
from k2d_hf.models.adapters import save_adapter
from k2d_hf.models.exports.ctranslate2_format import FORMAT as CTRANSLATE2
from k2d_hf.models.language_mix import check_mixable, checked_mix, mix_of
from k2d_hf.models.student_folder import save_student
from k2d_hf.pipeline.rounds import rounds_of

EN, ZH = 50259, 50260
MIX = {"zh": 0.75, "en": 0.25}


def rows_of(model):
    return model.model.decoder.embed_tokens.weight.detach()


def mixed(teacher):
    return 0.75 * rows_of(teacher)[ZH] + 0.25 * rows_of(teacher)[EN]


def test_the_token_of_the_language_is_the_mix_and_no_other_changes(tiny_whisper):
    student = create_student(tiny_whisper, language="zh", language_mix=MIX)
    assert torch.allclose(rows_of(student)[ZH], mixed(tiny_whisper))
    others = torch.arange(len(rows_of(student))) != ZH
    assert torch.equal(rows_of(student)[others], rows_of(tiny_whisper)[others])
    assert student.proj_out.weight is student.model.decoder.embed_tokens.weight
    assert mix_of(vars(student.config)) == MIX
    assert mix_of(vars(create_student(tiny_whisper, language="zh").config)) is None


def test_the_logit_of_the_language_is_the_mean_of_both(tiny_whisper):
    """What tied embeddings do to language detection, as the documentation says."""
    whole = create_student(tiny_whisper, 4, language="zh")
    student = create_student(tiny_whisper, 4, language="zh", language_mix=MIX)
    batch = {
        "input_features": torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)),
        "decoder_input_ids": torch.tensor([[50258]]),
    }
    with torch.no_grad():
        before, after = whole(**batch).logits[0, -1], student(**batch).logits[0, -1]
    assert after[ZH] == pytest.approx(0.75 * before[ZH].item() + 0.25 * before[EN].item(), abs=1e-4)
    assert after[EN] == pytest.approx(before[EN].item(), abs=1e-4)


def test_an_output_layer_of_its_own_is_left_alone(tiny_whisper):
    tiny_whisper.config.tie_word_embeddings = False
    tiny_whisper.proj_out.weight = torch.nn.Parameter(tiny_whisper.proj_out.weight.detach().clone())
    student = create_student(tiny_whisper, language="zh", language_mix=MIX)
    assert torch.allclose(rows_of(student)[ZH], mixed(tiny_whisper))
    assert torch.equal(student.proj_out.weight, tiny_whisper.proj_out.weight)


def test_shares_are_parts_of_their_sum_and_languages_have_many_names():
    assert checked_mix({"Chinese": 3, "<|en|>": 1}, "zh") == {"zh": 0.75, "en": 0.25}
    assert checked_mix({"zh": 1, "en": 1, "yue": 2}, "en") == {"zh": 0.25, "en": 0.25, "yue": 0.5}


@pytest.mark.parametrize(
    ("mix", "language", "message"),
    [
        ({}, "zh", "a mix of 0 languages is none; give two"),
        ({"zh": 1}, "zh", "a mix of 1 languages is none; give two"),
        ({"zh": 0.5, "Mandarin": 0.5}, "zh", "zh is there twice"),
        ({"zh": 0.5, "martian": 0.5}, "zh", "language 'martian' is unknown"),
        ({"zh": 0.5, "auto": 0.5}, "zh", "'auto' is no language"),
        ({"zh": 0.5, False: 0.5}, "zh", "False is no language"),
        ({"zh": 1, "en": 0}, "zh", "the share of en is 0; give a number above 0"),
        ({"zh": 1, "en": -0.5}, "zh", "the share of en is -0.5"),
        ({"zh": 1, "en": math.inf}, "zh", "the share of en is inf"),
        ({"zh": 1, "en": math.nan}, "zh", "the share of en is nan"),
        ({"zh": 1, "en": "half"}, "zh", "the share of en is 'half'"),
        ({"zh": 1, "en": True}, "zh", "the share of en is True"),
        ({"zh": 1, "en": 1}, "de", "the language is de, which has no share; set language to one of zh, en"),
        ({"zh": 1, "en": 1}, None, "no language is set; set language to one of zh, en"),
    ],
)
def test_what_is_no_mix_is_refused_in_one_line(tiny_whisper, mix, language, message):
    with pytest.raises(K2DError, match=f"^language_mix: {message}") as error:
        checked_mix(mix, language)
    assert "\n" not in str(error.value)
    with pytest.raises(K2DError, match=f"^language_mix: {message}"):
        create_student(tiny_whisper, language=language, language_mix=mix)


def test_models_without_these_tokens_are_refused(tiny_whisper, english_processor):
    with pytest.raises(K2DError, match="^language_mix: the student has no token of yue"):
        create_student(tiny_whisper, language="zh", language_mix={"zh": 1, "yue": 1})
    tiny_whisper.generation_config.is_multilingual = False
    with pytest.raises(K2DError, match="^language_mix: an English-only Whisper"):
        create_student(tiny_whisper, language="en", language_mix=MIX)
    with pytest.raises(K2DError, match="^language_mix: an English-only Whisper"):
        check_mixable(MIX, {}, english_processor.tokenizer)


def test_a_mix_is_not_mixed_again(tiny_whisper, processor):
    begun = create_student(tiny_whisper, 4, language="zh", language_mix=MIX)
    with pytest.raises(K2DError, match=r"has a mix already \(75% zh, 25% en\); leave it out"):
        create_student(begun, language="zh", language_mix=MIX)
    with pytest.raises(K2DError, match="has a mix already"):
        check_mixable(MIX, begun.config.to_dict(), processor.tokenizer)
    kept = create_student(begun, language="zh")
    assert torch.equal(rows_of(kept), rows_of(begun))
    assert mix_of(vars(kept.config)) == MIX


@pytest.mark.parametrize("noted", ["yes", 1, [], {}, {"shares": "half"}, {"shares": {"zh": "all"}}, None])
def test_a_config_of_another_may_hold_anything(noted):
    assert mix_of({"language_mix": noted}) is None


def test_its_own_language_comes_first():
    noted = {"language": "zh", "shares": {"en": 0.5, "fr": 0.2, "zh": 0.3}}  # as JSON sorts them
    assert list(mix_of({"language_mix": noted})) == ["zh", "en", "fr"]


def test_adapters_leave_the_mix_alone_and_are_not_saved_without_it(tiny_whisper, tmp_path):
    from peft import LoraConfig

    student = create_student(tiny_whisper, language="zh", language_mix=MIX)
    adapted = with_adapters(student, LoraConfig(r=2, target_modules=["q_proj"]), freeze_encoder=True)
    with pytest.raises(K2DError, match="^language_mix: an adapter does not hold the mixed embedding"):
        save_adapter(adapted, tmp_path / "adapter", sources="anywhere", encoder_layers=None, decoder_layers=2)
    merged = copy.deepcopy(adapted).merge_and_unload()
    assert torch.allclose(rows_of(merged)[ZH], mixed(tiny_whisper))
    assert mix_of(vars(merged.config)) == MIX


def test_a_saved_student_opens_with_pipeline_and_the_fast_engine(tiny_whisper, processor, tmp_path, monkeypatch):
    """Its weights are all that is special, so that a fast engine writes the same, which the mix has changed."""
    import numpy as np
    from ctranslate2 import StorageView
    from ctranslate2.models import Whisper
    from transformers import pipeline

    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    prompt = torch.tensor([[50258, ZH, 50359, 50363]])
    written = []
    for name, mix in (("mixed", MIX), ("plain", None)):
        student = create_student(tiny_whisper, language="zh", language_mix=mix)
        save_student(student, processor, tmp_path / name)
        loaded = load_whisper(tmp_path / name)
        assert torch.equal(rows_of(loaded), rows_of(student))
        assert mix_of(vars(loaded.config)) == mix
        with torch.no_grad():
            written.append(loaded(input_features=features, decoder_input_ids=prompt).logits[0, -1].log_softmax(-1))
        fast = Whisper(str(CTRANSLATE2.cached(tmp_path / name)), compute_type="float32", intra_threads=1)
        found = fast.generate(
            StorageView.from_array(np.ascontiguousarray(features)), prompt.tolist(), beam_size=1, max_length=5,
            suppress_blank=False, suppress_tokens=None, return_scores=True, length_penalty=0,
        )[0]  # fmt: skip
        assert found.sequences_ids[0][0] == written[-1].argmax()
    assert not torch.allclose(*written, atol=1e-3)
    recogniser = pipeline("automatic-speech-recognition", model=str(tmp_path / "mixed"))
    assert "text" in recogniser(
        np.zeros(16000, np.float32), return_timestamps=True, generate_kwargs={"max_new_tokens": 4}
    )


RECIPE = """
name: mine
language: Chinese
recordings: lectures
teacher: openai/whisper-base
auxiliary: openai/whisper-tiny
"""


@pytest.mark.parametrize("value", ["{Chinese: 3, en: 1}", "{zh: 0.75, en: 0.25}"])
def test_a_recipe_has_it_by_code(tmp_path, value):
    (tmp_path / "recipe.yaml").write_text(RECIPE + f"student: {{language_mix: {value}}}", encoding="utf-8")
    recipe = load_recipe(tmp_path / "recipe.yaml", elsewhere=True)
    assert recipe.student.language_mix == MIX
    assert recipe.student.has_teachers_embedding is False
    assert (
        load_recipe(tmp_path / "recipe.yaml", ["student.language_mix=null"], elsewhere=True).student.language_mix
        is None
    )
    first, last = rounds_of(load_recipe(tmp_path / "recipe.yaml", ["rounds=2"], elsewhere=True))
    assert (first.student.language_mix, last.student.language_mix) == (None, MIX)  # mixed once


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["student.language_mix={zh: 1}"], "student.language_mix: a mix of 1 languages is none"),
        (["student.language_mix=zh"], "student.language_mix: 'zh' is not a mapping or null"),
        (["student.language_mix={zh: 1, en: 1}", "language=null"], "student.language_mix: no language is set"),
    ],
)
def test_a_recipe_is_refused_before_any_work(tmp_path, sets, message):
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    with pytest.raises(K2DError, match=message) as error:
        load_recipe(tmp_path / "recipe.yaml", sets, elsewhere=True)
    assert str(error.value).startswith(f"{tmp_path / 'recipe.yaml'}: student.language_mix: ")


def test_the_command_line_has_it(tiny_whisper_dir, tmp_path, capsys):
    command = ["student", str(tiny_whisper_dir), "--language", "zh", "--output"]
    assert main([*command, str(tmp_path / "student"), "--language-mix", "{zh: 0.75, en: 0.25}"]) == 0
    assert "; language token 75% zh, 25% en" in capsys.readouterr().out
    student, teacher = load_whisper(tmp_path / "student"), load_whisper(tiny_whisper_dir)
    assert torch.allclose(rows_of(student)[ZH], mixed(teacher))
    for given, message in (("{zh: 1}", "a mix of 1 languages is none"), ("{zh: 1, en: -1}", "the share of en is -1")):
        assert main([*command, str(tmp_path / "other"), "--language-mix", given]) != 0
        assert capsys.readouterr().err.startswith(f"k2d: student: language_mix: {message}")
    assert not (tmp_path / "other").exists()
