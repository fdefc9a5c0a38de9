import re
import threading
import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from many_scripts import MADE_UP_WORDS, TEXTS, WORDS

from k2d_hf.scoring.text import (
    CHARACTER_SCRIPTS,
    INVISIBLE,
    drop_special_tokens,
    is_han,
    is_unspaced,
    mixed_runs,
    mixed_tokens,
    split_runs,
    to_simplified,
)
from k2d_hf.scoring.writing import script_of

# Pieces of usual and unusual text, and what folds into either.
MIXED_TEXT = st.lists(
    st.sampled_from(
        [*"我們行銀，。？…「」—“” \u3000'’,.3aéК々ーか한", "don't", "1,000", "U.S.", "GPT-4", "ﬁ", "Ａ", "<|0.00|>"]
    )
).map("".join)
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=[]))


def words(text):
    return text.split()


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        (" \n\t", []),
        ("?!，。…", []),
        ("我們用 GPU 來 train 一個 model", words("我 们 用 gpu 来 train 一 个 model")),
        ("U.S. 的 GPT-4", words("us 的 gpt 4")),
        ("US的GPT4", words("us 的 gpt 4")),
        ("2023年有3個GPU", words("2023 年 有 3 个 gpu")),
        ("3.5 和 1,000 和 7.", words("3.5 和 1,000 和 7")),
        ("study.So we", words("study so we")),
        ("I.So", ["i", "so"]),
        ("a.b.cd", words("a b cd")),
        ("e.g., A.I. by U.S.A", words("eg ai by usa")),
        ("the U.S.'s and its.a.b", words("the us's and its a b")),
        ("用A.I.做", words("用 ai 做")),
        ("don’t ‘quote’ rock'n'roll dogs' 'em", words("don't quote rock'n'roll dogs em")),
        ("C++", ["c"]),
        ("<|zh|><|0.00|> 你好<|2.00|>ok<|endoftext|>", words("你 好 ok")),
        ("one<|2.00|>two", ["one", "two"]),
        ("a <| b", ["a", "b"]),
        ("ＡＢＣ １２３ ① ﬁne", words("abc 123 1 fine")),
        ("STRASSE straße", ["strasse", "straße"]),
        ("Ǆ J\u030c", ["dž", "ǰ"]),
        ("コーヒー々〇", words("コ ー ヒ ー 々 〇")),
        ("かが", ["か", "が"]),
        ("가나 한", words("가 나 한")),
        ("नमस्ते क्षेत्र में", words("नमस्ते क्षेत्र में")),
        ("தமிழ் বাংলা ไทยนี้", words("தமிழ் বাংলা ไ ท ย นี้")),
        ("ใช้ GPU train โมเดล", words("ใ ช้ gpu train โ ม เ ด ล")),
        ("ใช้GPU4ตัว", words("ใ ช้ gpu 4 ตั ว")),
        ("๓๖๐ องศา ๑๒.๕", words("360 อ ง ศ า 12.5")),
        ("น้ำ กำลัง", words("น้ำ กำ ลั ง")),
        ("คนๆ ก.พ. ฯลฯ", words("ค น ๆ ก พ ฯ ล ฯ")),
        ("ພາສາ ນ້ຳ", words("ພ າ ສ າ ນ້ຳ")),
        ("ខ្ញុំ\u200bភាសា។", words("ខ្ញុំ ភា សា")),
        ("ကျွန်တော် ၁၂ ခု၊", words("ကျွ န် တော် 12 ခု")),
        ("မြန်မာ ကျေးဇူး", words("မြ န် မာ ကျေး ဇူး")),
        ("ꦗꦮ ᦟᦹ", words("ꦗ ꦮ ᦟ ᦹ")),
        ("བོད་ཡིག", words("བོད ཡིག")),
        ("我用ไทย們", words("我 用 ไ ท ย 们")),
        ("مرحبا Привет γειά", words("مرحبا привет γειά")),
        ("می\u200cخواهم co\u00adop", ["میخواهم", "coop"]),
        ("१२ हिन्दी٣", words("12 हिन्दी 3")),
        ("\ud800我\udfff", ["我"]),
    ],
)
def test_mixed_tokens(text, tokens):
    assert mixed_tokens(text) == [unicodedata.normalize("NFKC", token) for token in tokens]


@pytest.mark.parametrize(
    ("traditional", "simplified"),
    [
        ("頭髮 發展 後來 皇后", "头发 发展 后来 皇后"),
        ("乾燥 乾隆", "干燥 乾隆"),
        ("軟體 網路", "软体 网路"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_to_simplified_changes_characters_and_no_vocabulary(traditional, simplified):
    assert to_simplified(traditional) == simplified


@pytest.mark.parametrize(
    ("token", "han"),
    [("我", True), ("𠮷", True), ("々", True), ("か", False), ("한", False), ("gpu", False), ("3", False)],
)
def test_is_han(token, han):
    assert is_han(token) is han


UNSPACED = st.text(alphabet="กนชใัี้ำิุๆ๑ພານ້ໍຳកខ្ញុំាမြန်ာေး္ကa3我 .")


@given(UNSPACED)
def test_scripts_without_blanks_come_by_character_and_no_mark_alone(text):
    for token in filter(is_unspaced, mixed_tokens(text)):
        assert unicodedata.category(token[0])[0] == "L"
        assert regex.fullmatch(r"\X(?:\p{M}|(?<=\u0e4d)\u0e32|(?<=\u0ecd)\u0eb2)*", token), token


@given(UNSPACED)
def test_blanks_between_their_words_do_not_matter(text):
    letters = mixed_tokens("".join(token for token in mixed_tokens(text) if is_unspaced(token)))
    assert mixed_tokens(" ".join(letters)) == letters


def test_sara_am_is_one_character_however_it_was_typed():
    assert mixed_tokens("น้ำ") == mixed_tokens("นํ้า") == mixed_tokens("น้ํา")
    assert len(mixed_tokens("ນ້ຳ")) == len(mixed_tokens("ນໍ້າ")) == 1


@settings(max_examples=300)
@given(MADE_UP_WORDS)
def test_no_letter_and_no_mark_of_any_script_is_dropped_or_parted(word):
    """Of a word that has blanks around it one token, of scripts without blanks one for each letter with its marks."""
    tokens = mixed_tokens(word)
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).lower())
    written = [one for one in folded if unicodedata.category(one)[0] in "LMN" and one not in INVISIBLE]
    lone = "".join(tokens).count("\u0e32") + "".join(tokens).count("\u0eb2")  # SARA AM without a letter to sit on
    assert sorted("".join(tokens)) == sorted(written) or lone
    assert all(unicodedata.category(token[0])[0] != "M" for token in tokens)
    if not any(map(is_unspaced, tokens)) and len(tokens) > 1:
        assert any(unicodedata.category(one)[0] not in "LM" for one in folded)  # NFKC took a letter apart at a blank


@given(TEXTS, TEXTS)
def test_words_of_any_scripts_are_found_wherever_they_stand(first, second):
    assert mixed_tokens(f"{first} {second}") == mixed_tokens(first) + mixed_tokens(second)


@pytest.mark.parametrize("script", WORDS)
def test_a_script_has_characters_or_words_for_tokens(script):
    tokens = mixed_tokens(WORDS[script])
    assert {script_of(token) for token in tokens} == {script}
    by_word = len(tokens) == 2 + WORDS[script].count("\u0f0b")
    assert by_word is (script not in CHARACTER_SCRIPTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("२०२३", "2023"), ("٢٠٢٣ ١,٥", "2023 1,5"), ("צה״ל", 'צה"ל'), ("צה״ל", "צהל"), ("צ׳ק", "צ'ק"), ("محـــمد", "محمد"),
        ("क्\u200dष", "क्ष"), ("می\u200cخواهم", "میخواهم"), ("col·lecció", "collecció"), ("\u202bשלום\u200f", "שלום"),
    ],
)  # fmt: skip
def test_one_word_that_is_drawn_or_typed_in_two_ways_is_one(one, other):
    assert mixed_tokens(one) == mixed_tokens(other)


def test_quotation_marks_part_words_all_the_same():
    assert mixed_tokens('אמר "שלום" ו"להתראות"') == words("אמר שלום ולהתראות")
    assert mixed_tokens('say"hello"·now') == words("say hello now")


def test_special_tokens_leave_what_they_part_apart():
    assert drop_special_tokens("a<|0.02|><|en|>b").split() == ["a", "b"]


@given(ANY_TEXT)
def test_any_text_has_tokens_without_blanks_and_characters_stand_alone(text):
    for token in mixed_tokens(text):
        assert token.split() == [token]
        if any(is_han(character) or "\u3041" <= character <= "\u30fa" for character in token):
            assert len(token) == 1


@given(ANY_TEXT)
def test_tokens_of_tokens_are_the_same_tokens(text):
    # Han is left out: how 乾 is simplified depends on its neighbours.
    tokens = [token for token in mixed_tokens(text) if not is_han(token)]
    assert mixed_tokens(" ".join(tokens)) == tokens


@given(MIXED_TEXT)
def test_unusual_characters_do_not_change_how_the_others_are_read(text):
    assert mixed_tokens(f"{text}\nЖ") == [*mixed_tokens(text), "ж"]


@given(MIXED_TEXT)
def test_runs_are_tokens_of_which_only_han_characters_are_left_together(text):
    runs = mixed_runs(text)
    assert split_runs(runs) == mixed_tokens(text)
    assert all(len(run) == 1 or all(map(is_han, run)) or not any(map(is_han, run)) for run in runs)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("我們用 GPU 來，train", ["我们用", "gpu", "来", "train"]),
        ("3个人 个人", ["3", "个人", "个人"]),
        ("人々はЖ", ["人", "々", "は", "ж"]),
    ],
)
def test_mixed_runs(text, runs):
    assert mixed_runs(text) == runs


@given(st.text(), st.text())
def test_lines_are_tokenised_apart(first, second):
    first, second = first.replace("|", ""), second.replace("|", "")
    assert mixed_tokens(f"{first}\n{second}") == mixed_tokens(first) + mixed_tokens(second)


@given(st.text(alphabet="ab我們3.,' -"))
def test_every_letter_and_digit_is_in_exactly_one_token(text):
    kept = re.sub("[^ab我们3]", "", to_simplified(text))
    assert re.sub("[.,']", "", "".join(mixed_tokens(text))) == kept


def test_long_runs_of_marks_and_dots_take_linear_time():
    for text in (
        "<|" * 50_000,
        "a." * 50_000 + "bc",
        "a'" * 50_000,
        "1," * 50_000,
        "क\u094d" * 50_000,
        "\u0344\u0345" * 50_000,
    ):
        assert mixed_tokens(text) is not None


def test_threads_share_one_converter():
    results = []
    threads = [
        threading.Thread(target=lambda: results.append([to_simplified("銀行音樂") for _ in range(200)]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [["银行音乐"] * 200] * 8
