"""Two transcripts aligned by phonemes: what of one belongs to which part of the other, and which words both have."""

import pytest
from espeak_extra import needs_espeak

from k2d_hf.scoring.alignment import agreements, counterparts, pieces_of
from k2d_hf.scoring.phonemes import phone_codes, phones_by
from k2d_hf.scoring.text import mixed_runs


def parts_in(parts, other):
    return [other[start:end] for start, end in counterparts(parts, other)]


@pytest.mark.parametrize(
    "text",
    [
        "我們上個禮拜已經講過 virus 了，所以今天直接進到 enzyme。",
        "U.S. 的 GPT-4，don't",
        "銀行和音樂 行不行",
        "2023年有3.5個GPU",
        "한국어 テスト ทดสอบ ＡＢＣ",
        "<|zh|> 今天 <|endoftext|>",
        "",
    ],
)
def test_pieces_have_the_phones_of_the_whole_text(text):
    pieces = pieces_of(text)
    assert "".join(piece.codes for piece in pieces) == phone_codes(mixed_runs(text))
    assert [piece.start for piece in pieces] == sorted(piece.start for piece in pieces)
    assert all(text[piece.start : piece.end].strip() == text[piece.start : piece.end] for piece in pieces)


@pytest.mark.parametrize(
    ("parts", "other", "expected"),
    [
        (["今天講", "很重要"], "今天講很重要", ["今天講", "很重要"]),
        (["今天講 GPU", "很重要。"], "今天讲GPU，很重要", ["今天讲GPU，", "很重要"]),  # script, case, marks
        (
            ["天氣很好", "我們休息", "再見"],
            "天氣很好，完全不同的東西，再見",
            ["天氣很好，", "完全不同的東西，", "再見"],
        ),
        (
            ["今天講", "很重要"],
            "今天講大家請坐好很重要",
            ["今天講大家請坐好", "大家請坐好很重要"],
        ),  # of nobody, so of both
        (["今天講", "很重要"], "今天講", ["今天講", ""]),
        (["今天講", "很重要"], "很重要", ["", "很重要"]),
        (["今天講", "", "很重要"], "今天講很重要", ["今天講", "", "很重要"]),
        (["今天講"], "別的", ["別的"]),
        (["今天講", "很重要"], "", ["", ""]),
        ([], "今天講", []),
    ],
)
def test_what_of_another_transcript_belongs_to_each_part(parts, other, expected):
    assert parts_in(parts, other) == expected


def test_an_error_within_a_part_takes_nothing_of_its_neighbour_however_long_it_is():
    other = "天氣很好，" + "完全不同的東西說了很久" * 2 + "我們先休息十分鐘"
    assert parts_in(["天氣很好", "雨", "我們先休息十分鐘"], other)[2] == "我們先休息十分鐘"


def test_words_agree_where_all_their_phones_are_there():
    text = "我們用 GPU，來train models"
    found = [(text[slice(*span)], agrees) for span, agrees in agreements(text, "我門用 CPU 來 train model")]
    assert found == [
        ("我", True),
        ("們", True),
        ("用", True),
        ("GPU，", False),
        ("來", True),
        ("train", True),
        ("models", False),
    ]
    assert all(agrees for _, agrees in agreements("，。", ""))


@needs_espeak
def test_which_words_agree_by_the_phones_of_another_language():
    assert [agrees for _, agrees in agreements("una vaca", "una baca")] == [True, False]
    assert [agrees for _, agrees in agreements("una vaca", "una baca", phones_by("es"))] == [True, True]
