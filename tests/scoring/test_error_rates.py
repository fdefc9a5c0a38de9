import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.scoring.error_rates import ErrorCounts, MixedErrors, count_errors, error_rate, mixed_errors
from k2d_hf.scoring.text import mixed_tokens

TOKENS = st.lists(st.sampled_from(["我", "们", "a", "model", "3"]), max_size=8)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts"),
    [
        ("我們用 GPU 來 train 一個 model", "我们用GPU来train一个model", ErrorCounts(0, 0, 0, 9)),
        ("這個 attention 很重要", "這個 attention attention 很重要", ErrorCounts(0, 0, 1, 6)),
        ("今天講 machine learning", "今天講機器學習", ErrorCounts(2, 0, 2, 5)),
        ("U.S. 的 GPT-4", "US的GPT4", ErrorCounts(0, 0, 0, 4)),
        ("謝謝 everyone", "", ErrorCounts(0, 3, 0, 3)),
        ("2023年有3個GPU", "二零二三年有三個GPU", ErrorCounts(2, 0, 3, 6)),
        ("ใช้ GPU เทรน", "ใช GPU เทรนด์", ErrorCounts(1, 0, 1, 7)),
        ("ภาษาไทย", "ภาษา ไทย", ErrorCounts(0, 0, 0, 7)),
        ("", "", ErrorCounts(0, 0, 0, 0)),
        ("", "hello 你好", ErrorCounts(0, 0, 3, 0)),
    ],
)
def test_mixed_error_counts(reference, hypothesis, counts):
    assert count_errors(mixed_tokens(reference), mixed_tokens(hypothesis)) == counts
    assert mixed_errors(reference, hypothesis).mixed == counts


@pytest.mark.parametrize(
    ("counts", "rate"),
    [
        (ErrorCounts(0, 0, 0, 0), 0.0),
        (ErrorCounts(0, 0, 7, 0), 1.0),
        (ErrorCounts(0, 3, 0, 3), 1.0),
        (ErrorCounts(1, 1, 6, 4), 2.0),
        (ErrorCounts(2, 0, 2, 5), 0.8),
    ],
)
def test_rate(counts, rate):
    assert counts.rate == rate


def test_one_wrong_character_is_not_a_wholly_wrong_sentence():
    errors = mixed_errors("今天天氣很好", "今天天汽很好")
    assert errors.mer == errors.zh_cer == pytest.approx(1 / 6)
    assert errors.en_wer is None


@pytest.mark.parametrize(
    ("reference", "hypothesis", "zh_cer", "en_wer"),
    [
        ("我用 GPU train model", "我用 GPU trained model", 0.0, 1 / 3),
        ("我用 GPU", "他用 GPU", 1 / 2, 0.0),
        ("今天講 machine learning", "今天講機器學習", 4 / 3, 1.0),
        ("hello there", "你好", None, 1.0),
        ("你好", "hello", 1.0, None),
        ("ใช้ GPU", "ใช้ CPU", None, 1 / 3),
        ("我ใช้", "我ใช", 0.0, 1 / 2),
        ("", "", None, None),
    ],
)
def test_mandarin_and_english_are_counted_apart(reference, hypothesis, zh_cer, en_wer):
    errors = mixed_errors(reference, hypothesis)
    assert (errors.zh_cer, errors.en_wer) == (pytest.approx(zh_cer), pytest.approx(en_wer))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "insertions"),
    [
        ("we train a model", "we train a model 謝謝觀看", {"Han": 4}),
        ("we use machine learning", "we use 機器學習", {"Han": 4}),  # all of it, whichever of it replaced a word
        ("今天講 machine learning", "今天講 machine learning 3 times", {"digits": 1, "Latin": 1}),
        ("ใช้ GPU", "ใช้ GPU มาก спасибо ありがと 감", {"Thai": 3, "Cyrillic": 1, "kana": 4, "Hangul": 1}),
        ("我們用 GPU", "我们用 GPU，《好》……", {"Han": 1}),
        ("我們", "《" * 223 + "我們", {"marks": 223}),
        ("我們", "我們" + " 《 》" * 20, {"marks": 40}),
        ("......! ... --- ***", "我", {"Han": 1}),
        ("-" * 20, "-" * 25, {"marks": 5}),
        ("<|0.00|>" * 9, "<|0.02|>" * 20, {}),
        ("a b", "a", {}),
        ("", "", {}),
    ],
)
def test_insertions_are_counted_by_script(reference, hypothesis, insertions):
    assert mixed_errors(reference, hypothesis).insertions_by_script == insertions


def test_insertions_by_script_add_up():
    total = mixed_errors("a", "a 我") + mixed_errors("b", "b 我 c") + MixedErrors()
    assert total.insertions_by_script == {"Han": 2, "Latin": 1}


def test_a_corpus_is_the_sum_of_its_examples_and_not_the_mean_of_their_rates():
    pairs = [("a b c d", "a b c d"), ("我", "他"), ("x", "x y z")]
    total = sum((mixed_errors(*pair) for pair in pairs), MixedErrors())
    assert total.mixed == ErrorCounts(1, 0, 2, 6)
    assert (total.mer, total.zh_cer, total.en_wer) == (0.5, 1.0, 2 / 5)


def test_tokens_are_compared_by_value_and_not_by_hash():
    class SameHash(str):
        def __hash__(self):
            return 1

    assert count_errors([SameHash("first")], [SameHash("second")]).substitutions == 1
    assert error_rate([SameHash("first")], [SameHash("second")]) == 1.0


@given(TOKENS, TOKENS)
def test_a_rate_alone_is_that_of_the_counts(reference, hypothesis):
    assert error_rate(reference, hypothesis) == count_errors(reference, hypothesis).rate


@given(st.text("ab我\ud800😀", max_size=80), st.text("ab我\ud800😀", max_size=80))
def test_the_rate_of_two_strings_is_that_of_their_characters(reference, hypothesis):
    assert error_rate(reference, hypothesis) == count_errors(list(reference), list(hypothesis)).rate


@given(TOKENS, TOKENS)
def test_counts_are_those_of_a_minimal_alignment(reference, hypothesis):
    counts = count_errors(reference, hypothesis)
    assert counts.errors == plain_distance(reference, hypothesis)
    assert counts.reference_length == len(reference)
    assert counts.deletions - counts.insertions == len(reference) - len(hypothesis)
    assert counts.substitutions + counts.deletions <= len(reference)
    assert counts.substitutions + counts.insertions <= len(hypothesis)


@given(TOKENS, TOKENS)
def test_the_number_of_errors_is_symmetric_and_zero_only_for_equal_tokens(reference, hypothesis):
    errors = count_errors(reference, hypothesis).errors
    assert errors == count_errors(hypothesis, reference).errors
    assert (errors == 0) == (reference == hypothesis)


@given(TOKENS, TOKENS, TOKENS, TOKENS)
def test_joined_texts_have_at_most_the_errors_of_their_parts(a, b, c, d):
    parts = count_errors(a, b) + count_errors(c, d)
    assert parts.reference_length == len(a) + len(c)
    assert count_errors(a + c, b + d).errors <= parts.errors


@given(st.text(), st.text())
def test_parts_cover_the_reference(reference, hypothesis):
    errors = mixed_errors(reference, hypothesis)
    assert errors.mandarin.reference_length + errors.english.reference_length == errors.mixed.reference_length
    assert errors.mandarin.errors + errors.english.errors >= 0
    assert mixed_errors(reference, reference).mer == 0.0


def plain_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
