"""Normalisers of test sets: the words of Whisper's English one, as transformers and openai/whisper count them."""

import pytest

from k2d_hf.errors import K2DError
from k2d_hf.scoring.error_rates import ErrorCounts
from k2d_hf.scoring.normalisers import check_normaliser, english_word_errors, english_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Mr. Brown's colour isn't £20,000.", "mister brown is color is not £20000"),
        ("Uh, hmm, twenty-one (laughs) [noise] percent", "21%"),
        ("<|en|> Ok", "ok"),
        ("uh", ""),
    ],
)
def test_words_are_those_of_the_normaliser(text, words):
    assert english_words(text) == words.split()


def test_a_tokenizer_with_openai_s_table_gives_the_same(processor):
    text = "The grey theatre's programme wasn't organised; we've travelled two hundred and one miles, don't you know?"
    assert processor.tokenizer.normalize(text).split() == english_words(text)


def test_errors_add_up_and_what_has_no_reference_is_left_out():
    pairs = [("I'm here", "i am there"), ("um", "hello"), ("two hundred", "200")]
    assert english_word_errors(pairs) == ErrorCounts(1, 0, 0, 4)
    assert english_word_errors(pairs).rate == 0.25


def test_a_normaliser_that_there_is_not():
    with pytest.raises(
        K2DError, match=r"^normaliser 'basic': there is none of that name; give mixed or whisper-english$"
    ):
        check_normaliser("basic")
