"""The tokeniser of the error rates and its phonemes: any text has tokens, and every token can be read aloud."""

import functools
import random
import unicodedata
from collections import Counter

import pytest
from hypothesis import strategies as st

from k2d_hf.scoring.error_rates import count_errors, error_rate
from k2d_hf.scoring.phonemes import phone_codes, phonemes
from k2d_hf.scoring.text import drop_special_tokens, is_han, mixed_runs, mixed_tokens, split_runs, to_simplified
from k2d_hf.validation.distance import is_looping

from .mutations import NASTY_TEXTS, one_of_these
from .targets import bounded, fuzz

CHARACTERS = st.characters(exclude_categories=[])
PIECES = (
    *(
        "我們",
        "銀行",
        "乾",
        "，",
        "。",
        "GPU",
        "don't",
        "U.S.",
        "e.g.",
        "3.5",
        "1,000",
        "ﬁ",
        "Ａ",
        "İ",
        "ß",
        "'",
        "\u2019",
    ),
    *(
        ".",
        ",",
        " ",
        "\n",
        "<|",
        "|>",
        "|",
        "か",
        "が",
        "한",
        "\u1100\u1161",
        "\u0301",
        "\u0344\u0345",
        "क\u094d",
        "\u200d",
    ),
    *(
        "々",
        "〇",
        "𠮷",
        "\U0002ceb0",
        "²",
        "½",
        "Ⅷ",
        "１",
        "x" * 80,
        "zzz",
        "a\u0301b",
        "\ud800",
        "\U0001f468\u200d\U0001f469",
    ),
)
TEXTS = st.one_of(
    st.text(CHARACTERS, max_size=200),
    st.lists(one_of_these(PIECES), max_size=60).map("".join),
    st.lists(st.one_of(one_of_these(PIECES), one_of_these(NASTY_TEXTS), CHARACTERS), max_size=40).map("".join),
)
# What may take more than linear time does so on long repetitions.
LONG = st.builds(
    lambda parts, tail: ("".join(parts) * 60_000)[:60_000] + tail,
    st.lists(st.one_of(one_of_these(PIECES), CHARACTERS), min_size=1, max_size=4),
    st.text(CHARACTERS, max_size=4),
)


@functools.cache
def prepared() -> None:
    """Load dictionaries and converters before anything is timed."""
    phonemes("zyxwvu 銀行 hello")


@fuzz(examples=500, text=TEXTS)
def test_any_text_has_clean_tokens_and_each_is_spoken(text):
    prepared()
    with bounded():
        tokens, runs = mixed_tokens(text), mixed_runs(text)
        phones = phonemes(text)
    assert split_runs(runs) == tokens
    for token in tokens:
        assert token.split() == [token]
        # Cn: Python's tables may be older than those by which the text is cut, and call a new letter unassigned
        kinds = [unicodedata.category(character) for character in token]
        assert any(kind[0] in "LN" or kind == "Cn" or ord(c) > 0x2FFF for kind, c in zip(kinds, token, strict=True))
        if any(map(is_han, token)):
            assert len(token) == 1
        assert phone_codes([token]), f"no phone for {token!r}"
    assert len(tokens) <= 18 * max(len(text), 1)  # no character decomposes into more
    rest = [token for token in tokens if not is_han(token)]  # how Han is simplified depends on its neighbours
    assert mixed_tokens(" ".join(rest)) == rest
    assert phone_codes(tokens) == phone_codes(runs)
    assert all(phones)
    assert bool(phones) == bool(tokens)
    assert len(phone_codes(runs)) == len(phones)
    assert mixed_tokens(text + "\n" + text.lower())[: len(tokens)] == tokens or "|" in text
    "".join(tokens).encode("utf-8")


@pytest.mark.slow
@fuzz(examples=15, text=LONG)
def test_tokens_phonemes_and_loops_take_linear_time(text):
    prepared()
    with bounded(seconds=2.0, megabytes=256):
        tokens = mixed_tokens(text)
        looping = is_looping(text)
    assert isinstance(looping, bool)
    # The neural fallback is linear in letters, yet reads some thousand of them in a second.
    short = " ".join(tokens[:2000])[:4000]
    with bounded(seconds=4.0, megabytes=256):
        phonemes(short)


def loops(text: str, ngram: int, most: int) -> bool:
    text = " ".join(drop_special_tokens(text).split())
    counts = Counter(text[start : start + ngram] for start in range(len(text) - ngram + 1))
    return any(count > most for count in counts.values())


@fuzz(
    examples=250,
    text=st.one_of(TEXTS, st.text("ab ", max_size=80), st.builds(lambda a, b, n: b + a * n, TEXTS, TEXTS, st.integers(0, 12))),
    ngram=st.integers(1, 9),
    most=st.integers(0, 9),
)  # fmt: skip
def test_a_loop_is_what_counting_every_ngram_says(text, ngram, most):
    with bounded():
        assert is_looping(text, ngram, most) is loops(text, ngram, most)


def distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


@fuzz(examples=400, reference=TEXTS, hypothesis=st.one_of(TEXTS, st.integers()))
def test_error_counts_are_those_of_a_least_alignment(reference, hypothesis):
    if isinstance(hypothesis, int):  # the reference with a few edits
        chance = random.Random(hypothesis)
        hypothesis = "".join(c for c in reference if chance.random() > 0.1) + chance.choice(["", " so", "我"])
    a, b = mixed_tokens(reference), mixed_tokens(hypothesis)
    with bounded():
        counts = count_errors(a, b)
    assert min(counts.substitutions, counts.deletions, counts.insertions) >= 0
    assert counts.deletions - counts.insertions == len(a) - len(b)
    assert counts.reference_length == len(a)
    assert counts.errors == distance(a, b)
    assert counts.rate == error_rate(a, b)
    assert (counts.errors == 0) == (a == b)


@fuzz(examples=200, text=TEXTS)
def test_simplifying_twice_is_simplifying_once_for_what_is_no_han(text):
    with bounded():
        simple = to_simplified(text)
    assert len(simple) == len(text)
    for before, after in zip(text, simple, strict=True):
        assert before == after or is_han(before) or "\ud800" <= before <= "\udfff"
