"""One sentence in two scripts is one sentence: what Taiwan and Hong Kong write scores as what the mainland does."""

import re
from importlib.resources import files

import opencc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf import label_distance, mixed_tokens
from k2d_hf.scoring.error_rates import mixed_errors
from k2d_hf.scoring.phonemes import phonemes
from k2d_hf.scoring.text import is_han, to_simplified
from k2d_hf.scoring.variants import fold_variants

SAME = [
    # 著 as a particle, and in words where it is read zháo or zhuó
    ("妳看著我，我跟著妳", "你看着我，我跟着你"),
    ("他沿著河走著走著就睡著了", "他沿着河走着走着就睡着了"),
    ("藉著這個 model 憑藉著經驗", "借着这个 model 凭借着经验"),
    ("別著急，著手做，著重在 training", "别着急，着手做，着重在 training"),
    ("穿著很執著，沉著應對，附著在表面", "穿着很执着，沉着应对，附着在表面"),
    ("沈著、衣著、著涼、著陸、著火、著色", "沉着、衣着、着凉、着陆、着火、着色"),
    # 著 that stays, beside 著 that does not
    ("這本著作很著名，成效顯著", "这本著作很著名，成效显著"),
    ("原著的作者看著譯著", "原著的作者看着译著"),
    ("黑板上寫著名字，桌上放著作業", "黑板上写着名字，桌上放着作业"),
    ("隨著著作權法，著稱的名著、巨著、編著", "随着著作权法，著称的名著、巨著、编著"),
    # characters of Taiwan
    ("為甚麼牠們怕妳？祂知道", "为什么它们怕你？他知道"),
    ("甚麽是 attention", "什么是 attention"),
    ("姊姊的姪子揹著書包", "姐姐的侄子背着书包"),
    ("裡面、裏面、台灣、臺灣、颱風", "里面、里面、台湾、台湾、台风"),
    ("喫飯纔知道，衹有一隻，嚐一口", "吃饭才知道，只有一只，尝一口"),
    ("週末公佈，瞭解暸解一目瞭然", "周末公布，了解了解一目了然"),
    ("乾淨的後面，皇后，乾隆", "干净的后面，皇后，乾隆"),
    ("砲彈、手鎗、嘴脣、焊銲、痲痺、火燄", "炮弹、手枪、嘴唇、焊焊、麻痹、火焰"),
    ("甦醒、昇華、徬徨、糢糊、碰踫、賸餘、剩馀", "苏醒、升华、彷徨、模糊、碰碰、剩余、剩余"),
    # characters of Hong Kong
    ("衞生署敍述枱燈", "卫生署叙述台灯"),
    # words that are spelt in two ways
    ("登入帳號，轉帳到帳戶", "登入账号，转账到账户"),
    ("身分證、大部份、成份、過份、充份", "身份证、大部分、成分、过分、充分"),
    ("計畫、企畫、座標、想像、澈底", "计划、企划、坐标、想象、彻底"),
]  # fmt: skip
APART = [
    ("他", "她"),
    ("妳", "您"),
    ("妳", "她"),
    ("著作", "住作"),
    ("帳篷", "账篷"),
    ("股份", "股分"),
    ("乾隆", "干隆"),
    ("甚至", "什至"),
    ("神祇", "神只"),
    ("姓沈", "姓沉"),
    ("月份", "月分"),
    ("原著", "原住"),
]


@pytest.mark.parametrize(("taiwan", "mainland"), SAME)
def test_a_sentence_is_the_same_in_either_script(taiwan, mainland):
    assert mixed_errors(mainland, taiwan).mixed.errors == 0
    assert mixed_errors(taiwan, mainland).mer == 0.0
    assert phonemes(taiwan) == phonemes(mainland)
    for metric in ("mer", "per", "composite"):
        assert label_distance(taiwan, mainland, metric) == 0.0


@pytest.mark.parametrize(("one", "other"), APART)
def test_what_is_another_word_stays_one(one, other):
    assert mixed_errors(one, other).mixed.substitutions == 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("看著 跟著 睡著", "看 着 跟 着 睡 着"),
        ("著作 著名 顯著 原著 土著", "著 作 著 名 显 著 原 著 土 著"),
        ("寫著名字 看著作業", "写 着 名 字 看 着 作 业"),
        ("配合著 比較著", "配 合 着 比 较 着"),
        ("妳 甚麼 祂 牠", "你 什 么 他 它"),
        ("慰藉 瞭望 乾坤", "慰 藉 瞭 望 乾 坤"),
    ],
)
def test_the_tokens_are_those_of_the_mainland(text, tokens):
    assert mixed_tokens(text) == tokens.split()


def test_how_a_character_is_read_follows_from_the_folded_one():
    assert phonemes("看著")[-2:] == ["zh:zh", "zh:e"]
    assert phonemes("著作")[:2] == ["zh:zh", "zh:u"]


@given(st.text(alphabet="著着作名原看寫写藉沈顯合比較字業者書，a "))
def test_it_does_not_matter_which_of_the_two_was_written(text):
    assert mixed_tokens(text) == mixed_tokens(text.replace("著", "着")) == mixed_tokens(text.replace("着", "著"))


@given(st.text(alphabet="妳甚麼么著作名帳號份部乾a,3"))
def test_folding_changes_no_number_of_characters_and_is_done_once(text):
    folded = fold_variants(text)
    assert len(folded) == len(text)
    assert fold_variants(folded) == folded


def entries():
    table = files("k2d_hf.scoring").joinpath("data", "han_variants.txt").read_text(encoding="utf-8")
    lines = (line for line in table.splitlines() if not line.startswith("#"))
    return dict.fromkeys(
        (variant, target)
        for target, variants in re.findall(r"([^][\s]+)\[([^]]+)\]", "\n".join(lines))
        for variant in (variants if len(target) == 1 else variants.split())
    )


def test_every_entry_of_the_table_folds_to_a_han_text_that_stays():
    table = list(entries())
    assert len(table) > 600
    assert len({variant for variant, _ in table}) == len(table), "a variant of two"
    for variant, target in table:
        assert to_simplified(variant) == target, variant
        assert to_simplified(target) == target, target
        assert all(map(is_han, target))


def test_what_opencc_makes_of_everyday_words_comes_back():
    """Of 47,000 words, Simplified, as Taiwan and Hong Kong would write them. What is left is names and the classics."""
    from pypinyin.constants import PHRASES_DICT

    words = "\n".join(PHRASES_DICT)
    once = to_simplified(words).split("\n")
    for script in ("s2tw", "s2hk", "s2t"):
        back = to_simplified(opencc.OpenCC(script).convert(words)).split("\n")
        assert len(back) == len(once)
        differ = [one for one, other in zip(once, back) if one != other]
        assert len(differ) < 60, differ


def test_a_long_text_takes_linear_time():
    for text in ("著" * 100_000, "看著名" * 30_000, "帳妳" * 50_000, "合" * 100_000):
        assert len(to_simplified(text)) == len(text)
