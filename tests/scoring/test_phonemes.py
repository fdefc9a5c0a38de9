import string
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.scoring.error_rates import count_errors, error_rate
from k2d_hf.scoring.phonemes import phone_codes, phonemes
from k2d_hf.scoring.pinyin import pinyin_phones, pinyin_words
from k2d_hf.scoring.text import mixed_runs, mixed_tokens


def words(text):
    return text.split()


ARPABET = set(
    words("AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH")
)


def pinyin(parts):
    return [f"zh:{part}" for part in parts.split()]


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("", []),
        ("?!", []),
        ("machine learning", words("M AH SH IY N L ER N IH NG")),
        ("Attention!", words("AH T EH N SH AH N")),
        ("don’t", words("D OW N T")),
        ("teacher's", words("T IY CH ER Z")),
        ("GPT", words("JH IY P IY T IY")),
        ("LLM's", words("EH L EH L EH M Z")),
        ("CPU", words("S IY P IY Y UW")),
        ("café", words("K AH F EY")),
        ("銀行", pinyin("in h ang")),
        ("行不行", pinyin("x ing b u x ing")),
        ("音樂 快樂", pinyin("in ve k uai l e")),
        ("重慶 重要", pinyin("ch ong q ing zh ong iao")),
        ("雲 月 有", pinyin("vn ve iou")),
        ("嗯", pinyin("n")),
        ("𠮷々", pinyin("𠮷 々")),
        ("用 GPT", [*pinyin("iong"), *words("JH IY P IY T IY")]),
        ("2023 3.5 1,000", list("2023351000")),
        ("Москва", list("москва")),
        ("नमस्ते", words("न म स त े")),
        ("ใช้ GPU", [*"ใช", *words("JH UW")]),
        ("ครู คร", list("ครูคร")),
        ("ນຸ ນ", list("ນຸນ")),
        ("မြန်", list("မြန")),
        ("ខ្មែរ", list("ខមែរ")),
        ("한국", ["\u1112", "\u1161", "\u11ab", "\u1100", "\u116e", "\u11a8"]),
        ("か が", ["か", "か", "\u3099"]),
    ],
)
def test_phonemes(text, phones):
    assert phonemes(text) == phones


@pytest.mark.parametrize(
    ("same", "sound"), [("到/道", "zh"), ("their/there", "en"), ("樂/乐", "zh"), ("colour/color", "en")]
)
def test_spellings_of_one_sound_are_equal(same, sound):
    first, second = same.split("/")
    assert phonemes(first) == phonemes(second)
    assert phonemes(first)[0].startswith("zh:") is (sound == "zh")


@pytest.mark.parametrize(
    "word",
    [
        "kubernetes",
        "transformerized",
        "kubernetes's",
        "o'o'o'o",
        "smørrebrød",
        "naïveté",
        "pneumonoultramicroscopicsilicovolcanoconiosis",
        "a" * 500,
        "x" * 100,
        "ha" * 100,
        "o'" * 2000 + "o",
    ],
)
def test_an_unknown_word_yields_english_phones(word):
    phones = phonemes(word)
    assert phones
    assert set(phones) <= ARPABET


def test_a_wrong_unknown_word_is_an_error():
    reference, hypothesis = phonemes("我們用 kubernetes 來部署"), phonemes("我們用 來部署")
    assert count_errors(reference, hypothesis).deletions >= 5


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=string.ascii_lowercase + "'éß", min_size=1, max_size=80))
def test_any_latin_word_yields_english_phones(word):
    phones = phonemes(word)
    assert set(phones) <= ARPABET
    assert bool(phones) == bool(mixed_tokens(word))


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_every_token_of_any_text_yields_a_phone(text):
    assert all(phonemes(text))
    assert all(phone_codes([token]) for token in mixed_tokens(text))


SPOKEN = st.lists(
    st.sampled_from(
        [*"我們行銀長大，。 '3々한", "音樂", "machine ", "model ", "their ", "there ", "GPT-4", "Москва", "é"]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None)
@given(SPOKEN, SPOKEN)
def test_codes_differ_as_phones_do(first, second):
    phones, codes = [phonemes(text) for text in (first, second)], [phone_codes(mixed_runs(t)) for t in (first, second)]
    assert error_rate(*codes) == error_rate(*phones) == count_errors(*phones).rate
    assert [len(code) for code in codes] == [len(phone) for phone in phones]
    assert phone_codes(mixed_tokens(first)) == codes[0]


# Phrases of odd and of plain readings, their beginnings, which a longest match trips over, and characters without any.
PHRASES = words("银行 行不行 重庆 重要 音乐 快乐 长大 成长 了不起 一行 参差不齐 的士 目的地")
PIECES = [*PHRASES, *(phrase[:2] for phrase in PHRASES), *"行重乐长了的一々〇𠮷"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_run_is_read_as_a_whole(run):
    assert [phone for word in pinyin_words(run) for phone in pinyin_phones(word)] == pinyin_phones(run)


@settings(deadline=None)
@given(st.text(alphabet="銀行音樂重慶長大了得", max_size=12))
def test_pinyin_and_english_share_no_phone(text):
    assert ARPABET.isdisjoint(phonemes(text))


def test_words_without_a_vowel_are_spelled_by_letter_names():
    for letter in "bcdfghjklmnpqrstvwxz":
        phones = phonemes(f"zqx{letter}")
        assert phones[:8] == words("Z IY K Y UW EH K S")
        assert phones[8:]
        assert set(phones) <= ARPABET


def test_the_dictionary_carries_its_licence_and_no_time_stamp():
    data = files("k2d_hf.scoring").joinpath("data")
    assert "Carnegie Mellon University" in data.joinpath("LICENSE.cmudict").read_text(encoding="utf-8")
    assert data.joinpath("cmudict.txt.gz").read_bytes()[4:8] == bytes(4)


def test_an_unknown_alphabet_is_a_clear_error():
    with pytest.raises(K2DError, match="choose one of arpabet, ipa"):
        phonemes("a", alphabet="sampa")
