"""Segments to subtitles: bounds hold, no character is lost, and lines end where sentences do."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_scripts import TEXTS

from k2d_hf import K2DError, Segment
from k2d_hf.terminal.screen import columns_of, is_mark
from k2d_hf.transcription.subtitles import subtitles
from k2d_hf.transcription.transcribers import Word

MIXED = (
    "In this lecture we talk about pricing and case study。這個結果跟我們 expect 的不太一樣,可能是 proposal 的問題。"
)


def texts(*segments, **limits):
    return [one.text for one in subtitles([Segment(*segment) for segment in segments], **limits)]


def without_spaces(text):
    return "".join(text.split())


@pytest.mark.parametrize(
    ("segments", "shown"),
    [
        ([], []),
        ([(0, 2, "  ")], []),
        ([(0, 2, " Hello there.")], ["Hello there."]),
        # two short sentences share a subtitle, two that half fill it do not
        ([(0, 2, " Yes. No.")], ["Yes. No."]),
        ([(0, 3, " This is the first of two sentences."), (3, 6, " And this is the second of the two.")],
         ["This is the first of two sentences.", "And this is the second of the two."]),
        # a sentence that is torn between segments is put together
        ([(0, 1, " Then we will"), (1, 3, " go on to the next slide.")], ["Then we will go on to the next slide."]),
        # but not over a pause
        ([(0, 1, " Then we will"), (4, 6, " go on.")], ["Then we will", "go on."]),
        # lines end at clauses, and are of similar width elsewhere
        ([(0, 4, " three things: pricing, cost and Dr. Smith. Please take notes.")],
         ["three things: pricing, cost and Dr. Smith.\nPlease take notes."]),
        ([(0, 5, "這個結果跟我們 expect 的不太一樣,可能是 proposal 的問題")],
         ["這個結果跟我們 expect 的不太一樣,\n可能是 proposal 的問題"]),
    ],
)  # fmt: skip
def test_lines_end_where_sentences_and_clauses_do(segments, shown):
    assert texts(*segments) == shown


def test_an_abbreviation_ends_no_sentence():
    pieces = texts(
        (0, 6, " Today we have a guest from the hospital, Dr. Smith, and he will speak."), columns=50, lines=1
    )
    assert not any(text.endswith("Dr.") for text in pieces)


def test_punctuation_begins_no_line_and_an_opening_bracket_ends_none():
    shown = texts((0, 30, "我們「今天」要介紹,這個很重要。" * 9), columns=4, lines=1)
    assert all(text[0] not in "」,。" and text[-1] != "「" for text in shown)


@pytest.mark.parametrize(
    ("columns", "lines", "seconds"), [(42, 2, 7.0), (42, 1, 7.0), (20, 3, 2.0), (2, 1, 0.5), (10, 1, 9.0)]
)
@pytest.mark.parametrize("timed", [False, True])
def test_bounds_hold_and_no_character_is_lost(columns, lines, seconds, timed):
    draw = random.Random(7)
    segments, words, at = [], [], 0.0
    for _ in range(60):
        length = draw.choice([0.0, 0.4, 3.0, 12.0, 30.0])
        picked = "".join(
            draw.choice(
                [" word", "今天", "。", ",", " A", "問", " 3.5", "!", "supercalifragilistic" * 3, "「", "é", "한국"]
            )
            for _ in range(draw.randrange(12))
        )
        segments.append(Segment(at, at + length, picked))
        parts = picked.replace(" ", "| ").split("|") if picked.strip() else []
        words.append(
            [
                Word(at + length * i / len(parts), at + length * (i + 1) / len(parts), part)
                for i, part in enumerate(parts)
            ]
        )
        at += length + draw.choice([0.0, 0.0, 2.5])
    shown = subtitles(segments, words if timed else None, columns=columns, lines=lines, seconds=seconds)
    assert without_spaces("".join(one.text for one in shown)) == without_spaces("".join(s.text for s in segments))
    for one, following in zip(shown, [*shown[1:], None], strict=True):
        assert one.end - one.start <= seconds + 1e-6
        assert following is None or one.start <= one.end <= following.start
        assert len(one.text.split("\n")) <= lines or columns_of(without_spaces(one.text)) <= columns
        assert all(columns_of(line) <= columns and line == line.strip() for line in one.text.split("\n"))


@given(TEXTS, st.integers(8, 42))
def test_no_letter_of_any_script_is_parted_from_its_marks(text, columns):
    lines = [line for one in texts((0, 30, text), columns=columns) for line in one.split("\n")]
    assert without_spaces("".join(lines)) == without_spaces(text)
    assert all(columns_of(line) <= columns and not (line and is_mark(line[0])) for line in lines)


def test_where_words_have_times_a_subtitle_has_theirs():
    words = [Word(1.0, 1.4, " We"), Word(1.4, 2.0, " stop."), Word(5.0, 5.5, " Then"), Word(5.5, 6.5, " we go.")]
    segment = Segment(0.0, 8.0, " We stop. Then we go.")
    assert subtitles([segment], [words]) == [Segment(1.0, 5.0, "We stop."), Segment(5.0, 8.0, "Then we go.")]
    assert [one.text for one in subtitles([segment], [words[:2]])] == ["We stop. Then we go."]  # words of another text


def test_a_long_silence_after_a_short_text_does_not_tear_it():
    assert subtitles([Segment(12.0, 40.0, " Good morning everyone.")]) == [
        Segment(12.0, 19.0, "Good morning everyone.")
    ]


def test_half_a_column_is_no_screen():
    with pytest.raises(K2DError, match="at least"):
        subtitles([Segment(0, 1, MIXED)], columns=1)
