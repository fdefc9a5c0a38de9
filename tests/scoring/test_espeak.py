"""Phones by espeak-ng: nothing is silent, nothing is read as the name of a letter, in any script and at any length."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from many_scripts import WORDS

from k2d_hf.errors import K2DError
from k2d_hf.scoring.error_rates import count_errors
from k2d_hf.scoring.phonemes import phone_codes, phonemes, phones_by
from k2d_hf.scoring.text import mixed_tokens
from k2d_hf.scoring.writing import script_of, scripts_of

pytest.importorskip("espeakng_loader", reason="espeak-ng (extra espeak) is not installed")

from k2d_hf.scoring import espeak  # noqa: E402

LANGUAGES = ["ar", "cmn", "en-us", "es", "fa", "fr-fr", "he", "hi", "ja", "ko", "my", "ru", "ta", "th", "vi", "yue"]


def ipa(text, language):
    return phonemes(text, alphabet="ipa", language=language)


@pytest.mark.parametrize("script", WORDS)
@settings(deadline=None, max_examples=16)
@given(language=st.sampled_from(LANGUAGES))
def test_words_of_any_script_differ_whatever_the_language(script, language):
    one, other = WORDS[script].split()
    assert {script_of(token) for token in mixed_tokens(one + other)} == {script}
    assert ipa(one, language) != ipa(other, language)
    if script not in scripts_of(language):
        another = "am" if script == "Latin" else "qu"
        assert ipa(one, language) == ipa(one, another)  # read by a voice of the script, if there is one, in any run


@pytest.mark.parametrize("script", WORDS)
def test_a_long_run_loses_nothing(script):
    """espeak-ng drops what is beyond 160 bytes of a word, and scripts without blanks are one word to it."""
    word = WORDS[script].split()[0]
    once, often = len(ipa(word, "es")), len(ipa(word * 100, "es"))
    assert often >= 80 * once


SENTENCES = {
    "th": "วันนี้เราจะพูดเรื่องการเรียนรู้ของเครื่องและการใช้งานในบริษัทเพราะว่าข้อมูลมีความสำคัญมากสำหรับทุกคนในห้องเรียนนี้" * 2,
    "cmn": "今天我們要介紹機器學習的基本概念因為這個結果跟我們想的不太一樣所以請大家先看一下上個禮拜的銀行資料再開始討論"
    * 2,
    "ja": "きょうはきかいがくしゅうについてはなしますラーメンとカメラのデータをつかってモデルをつくりましょう" * 2,
}


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(SENTENCES)), st.integers(0, 200), st.sampled_from(["ก", "行", "メ", "中心", "กข"]))
def test_a_run_that_differs_in_one_place_is_read_alike_elsewhere(language, at, inserted):
    run = SENTENCES[language]
    changed = run[:at] + inserted + run[at:]
    counts = count_errors(ipa(run, language), ipa(changed, language))
    assert counts.errors <= 16


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=20), st.sampled_from(LANGUAGES))
def test_every_token_of_any_text_yields_a_phone(text, language):
    assert all(ipa(text, language))
    assert all(phone_codes([token], alphabet="ipa", language=language) for token in mixed_tokens(text))


@pytest.mark.parametrize(
    ("text", "language", "phones"),
    [
        ("machine", "en-us", "m ə ʃ iː n"),
        ("मशीन machine", "hi", "m ə ʃ iː n m ə ʃ iː n"),
        ("學習", "en-us", "ɕ yɛ ɕ i"),
        ("မြန်မာ GPU", "my", "m r n m t s dʒ iː p iː j uː"),  # as one word: alone each is told by its letter's name
        ("GPT", "en-us", "dʒ iː p iː t iː"),
        ("ラーメン", "ja", "ɽ ää m e̞ ɴ"),  # the lengthening mark alone would be named
        ("เรียน", "th", "e r s j a n"),  # without the digits of its tones
        ("xin chào các bạn", "vi", "s i n tʃ aː w k aː c b aː n"),
    ],
)
def test_ipa(text, language, phones):
    assert ipa(text, language) == phones.split()


def test_codes_may_be_of_any_alphabet():
    assert phone_codes(["machine"], alphabet="ipa") == phone_codes(["मशीन"], alphabet="ipa", language="hi")


def test_an_unknown_language_is_a_clear_error():
    with pytest.raises(K2DError, match=r"espeak-ng has no language 'zz': give one such as es, hi or en-us$"):
        ipa("", "zz")
    with pytest.raises(
        K2DError, match=r"^espeak_language: espeak-ng has no language 'en-uk': .*; did you mean en-us\?"
    ):
        phones_by("en-uk")


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    espeak._languages.cache_clear()
    with pytest.raises(K2DError, match=r"pip install 'phonemizer>=3.3' 'espeakng-loader>=0.2.4'"):
        phones_by("es")
