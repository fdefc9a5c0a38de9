"""Errors at switch points and words in the other script: by hand, and against a slow, plain way to count them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from k2d_hf.scoring.error_rates import ErrorCounts, count_errors
from k2d_hf.scoring.switching import SwitchingErrors, language_script, switching_errors
from k2d_hf.scoring.text import mixed_tokens

HAN, LATIN = "Han", "Latin"
IN, OUT = (HAN, LATIN), (LATIN, HAN)
WORDS = st.lists(st.sampled_from(["我", "们", "开", "a", "model", "3", "ใ", "か"]), max_size=9).map(" ".join)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "at", "away", "directions", "crossed"),
    [
        # nothing wrong: 用|GPU and GPU|来 are two changes of three tokens; 我 们 and 训练 are away
        ("我們用 GPU 來訓練", "我们用GPU来训练", (0, 0, 0, 3), (0, 0, 0, 4), {IN: (0, 0, 0, 2), OUT: (0, 0, 0, 2)}, {}),
        # the word itself is wrong, which both of its changes see
        ("我用 GPU 吧", "我用 CPU 吧", (1, 0, 0, 3), (0, 0, 0, 1), {IN: (1, 0, 0, 2), OUT: (1, 0, 0, 2)}, {}),
        # the character before the word, and the last one, which is away
        ("我用 big model 吧好", "我在 big model 吧号", (1, 0, 0, 4), (1, 0, 0, 2), {IN: (1, 0, 0, 2), OUT: (0, 0, 0, 2)}, {}),
        ("我用 big new model", "我用 big model", (0, 0, 0, 2), (0, 1, 0, 3), {IN: (0, 0, 0, 2)}, {}),
        # an insertion is where the token behind it is, at the end where the last is
        ("我用 GPU", "我用 the GPU", (0, 0, 1, 2), (0, 0, 0, 1), {IN: (0, 0, 1, 2)}, {}),
        ("我用 GPU", "我用 GPU GPU", (0, 0, 1, 2), (0, 0, 0, 1), {IN: (0, 0, 1, 2)}, {}),
        ("我们 go", "啊我们 go", (0, 0, 0, 2), (0, 0, 1, 1), {IN: (0, 0, 0, 2)}, {}),
        # silent translation, and the reverse: as many tokens as the alignment substitutes
        ("我開 meeting 吧", "我开会吧", (1, 0, 0, 3), (0, 0, 0, 1), {IN: (1, 0, 0, 2), OUT: (1, 0, 0, 2)}, {OUT: 1}),
        ("今天 go 開會", "今天 go meeting", (1, 0, 0, 3), (0, 1, 0, 2), {IN: (0, 0, 0, 2), OUT: (1, 0, 0, 2)}, {IN: 1}),
        # digits are of no language: passed over, away, and never translated
        ("用 GPU 3 次", "用 GPU 三次", (0, 0, 0, 3), (1, 0, 0, 1), {IN: (0, 0, 0, 2), OUT: (0, 0, 0, 2)}, {}),
        ("3 用 4 GPU", "3 用 4 GPU", (0, 0, 0, 2), (0, 0, 0, 2), {IN: (0, 0, 0, 2)}, {}),
        # Japanese writes kana and Han in one word; other scripts have directions of their own
        ("食べる GPU", "食べた GPU", (1, 0, 0, 2), (0, 0, 0, 2), {IN: (1, 0, 0, 2)}, {}),
        ("да GPU", "да гпу", (1, 0, 0, 2), (0, 0, 0, 0), {("Cyrillic", LATIN): (1, 0, 0, 2)}, {(LATIN, "Cyrillic"): 1}),
        # one script, or nothing: no switch point
        ("hola my friend", "hello my friend", (0, 0, 0, 0), (1, 0, 0, 3), {}, {}),
        ("謝謝大家", "thank you", (0, 0, 0, 0), (2, 2, 0, 4), {}, {IN: 2}),
        ("", "謝謝", (0, 0, 0, 0), (0, 0, 2, 0), {}, {}),
        ("", "", (0, 0, 0, 0), (0, 0, 0, 0), {}, {}),
    ],
)  # fmt: skip
def test_errors_are_counted_where_they_are(reference, hypothesis, at, away, directions, crossed):
    errors = switching_errors(reference, hypothesis)
    assert (errors.at, errors.away) == (ErrorCounts(*at), ErrorCounts(*away))
    assert errors.directions == {one: ErrorCounts(*counts) for one, counts in directions.items()}
    assert errors.crossed == crossed


def test_what_was_translated_is_held_against_all_tokens_of_its_script():
    errors = switching_errors("我開 meeting 談 budget", "我开会谈 budget") + switching_errors("hello", "hello")
    assert errors.translated(OUT).rate == 1 / 3
    assert errors.translated(IN).rate == 0.0
    assert errors.translated(("Thai", LATIN)).reference_length == 0


def test_a_corpus_is_the_sum_of_its_examples():
    pairs = [("用 GPU", "用 CPU"), ("GPU 吧", "GPU"), ("好", "坏")]
    total = sum((switching_errors(*pair) for pair in pairs), SwitchingErrors())
    assert (total.at, total.away) == (ErrorCounts(1, 1, 0, 4), ErrorCounts(1, 0, 0, 1))
    assert total.directions == {IN: ErrorCounts(1, 0, 0, 2), OUT: ErrorCounts(0, 1, 0, 2)}
    assert total.tokens == {HAN: 3, LATIN: 2}


def plain(reference, hypothesis):
    """The same counts, token by token: each looks for its own neighbours, and errors are laid on tokens one by one."""
    tokens, written = mixed_tokens(reference), mixed_tokens(hypothesis)
    known = [index for index, token in enumerate(tokens) if language_script(token) is not None]
    changes = [
        (one, two, (language_script(tokens[one]), language_script(tokens[two])))
        for one in known
        for two in known
        if one < two and not any(one < between < two for between in known)
    ]
    changes = [(one, two, pair) for one, two, pair in changes if pair[0] != pair[1]]
    errors = {index: Fraction(0) for index in range(-1, len(tokens))}  # -1: of an empty reference
    crossed = {}
    for step in Levenshtein.opcodes(tokens, written):
        if step.tag == "insert":
            where = step.src_start if step.src_start < len(tokens) else len(tokens) - 1
            errors[where] += step.dest_end - step.dest_start
        for offset in range(step.src_end - step.src_start) if step.tag in ("replace", "delete") else ():
            errors[step.src_start + offset] += 1
            if step.tag == "replace":
                pair = tuple(map(language_script, (tokens[step.src_start + offset], written[step.dest_start + offset])))
                if None not in pair and pair[0] != pair[1]:
                    crossed[pair] = crossed.get(pair, 0) + 1
    beside = {index for one, two, _ in changes for index in (one, two)}
    directions = {}
    for pair in {pair for *_, pair in changes}:
        of_pair = {index for one, two, found in changes if found == pair for index in (one, two)}
        twice = [index for one, two, found in changes if found == pair for index in (one, two)]
        assert len(twice) == len(of_pair)  # no token begins and ends changes of one direction
        directions[pair] = (sum(errors[index] for index in of_pair), len(of_pair))
    at = sum(errors[index] for index in beside), len(beside)
    away = sum(errors[index] for index in errors if index not in beside), len(tokens) - len(beside)
    return at, away, directions, crossed


@given(WORDS, WORDS)
def test_counts_are_those_of_a_plain_way(reference, hypothesis):
    errors = switching_errors(reference, hypothesis)
    summed = [(one.errors, one.reference_length) for one in (errors.at, errors.away)]
    directions = {pair: (one.errors, one.reference_length) for pair, one in errors.directions.items()}
    assert (*summed, directions, errors.crossed) == plain(reference, hypothesis)


@given(WORDS, WORDS)
def test_at_and_away_make_up_the_mixed_errors(reference, hypothesis):
    errors = switching_errors(reference, hypothesis)
    assert errors.at + errors.away == count_errors(mixed_tokens(reference), mixed_tokens(hypothesis))
    assert (errors.at.reference_length == 0) == (not errors.directions)
    assert sum(errors.crossed.values()) <= errors.at.substitutions + errors.away.substitutions
