import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.scoring.error_rates import count_errors
from k2d_hf.scoring.phonemes import phonemes
from k2d_hf.validation.distance import (
    METRICS,
    LabelComparison,
    compare_labels,
    drop_reason,
    is_looping,
    keeps,
    label_distance,
)

LOOP = "謝謝大家收看" * 6
LABEL = "我們用 GPU 來 train 一個 model"
# Few letters make loops likely, blanks and words make tokens.
TEXTS = st.one_of(st.text(alphabet="ab 我", max_size=40), st.text(max_size=40), st.sampled_from([LOOP, LABEL, ""]))


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("", False),
        (LABEL, False),
        ("謝謝大家收看" * 5, False),
        ("謝謝大家收看" * 6, True),
        ("謝謝大家收看。" * 6, True),
        ("a" * 10, False),
        ("a" * 11, True),
        ("ha ha " * 3, False),
        ("ha ha " * 4, True),
        ("ok<|2.00|><|2.00|>" * 10, True),
        ("<|0.00|>one<|2.00|><|2.00|>two<|4.00|>" + "<|endoftext|>" * 20, False),
        ("one" + " " * 50 + "two", False),
        ("\n\n".join(["一二三四五六"] * 6), True),
        ("一二三四五" * 5, False),
    ],
)
def test_is_looping(text, looping):
    assert is_looping(text) is looping


@pytest.mark.parametrize(
    ("text", "ngram", "max_count", "looping"),
    [
        ("aaaa", 1, 3, True),
        ("aaaa", 1, 4, False),
        ("abab", 2, 1, True),
        ("abc", 3, 0, True),
        ("ab", 3, 0, False),
    ],
)
def test_loop_settings(text, ngram, max_count, looping):
    assert is_looping(text, ngram, max_count) is looping


@pytest.mark.parametrize(("ngram", "max_count"), [(0, 5), (6, -1)])
def test_impossible_loop_settings_are_an_error(ngram, max_count):
    with pytest.raises(K2DError, match="give an n-gram of at least 1"):
        is_looping("text", ngram, max_count)


@given(st.text(alphabet="ab我 ", max_size=60), st.integers(1, 4), st.integers(0, 4))
def test_a_loop_is_an_ngram_that_occurs_too_often(text, ngram, max_count):
    squeezed = " ".join(text.split())
    grams = [squeezed[i : i + ngram] for i in range(len(squeezed) - ngram + 1)]
    assert is_looping(text, ngram, max_count) is any(grams.count(gram) > max_count for gram in grams)


@given(
    st.lists(st.sampled_from(["ab", "aba", "aaaaaaa", "machine ", "謝謝大家", "c", "d我"]), max_size=40).map("".join),
    st.integers(3, 8),
    st.integers(4, 7),
)
def test_a_loop_is_found_however_it_overlaps(text, ngram, max_count):
    squeezed = text.strip()
    grams = [squeezed[i : i + ngram] for i in range(len(squeezed) - ngram + 1)]
    assert is_looping(text, ngram, max_count) is any(grams.count(gram) > max_count for gram in set(grams))


def test_a_loop_is_found_in_texts_of_any_length():
    apart = "".join(chr(0x4E00 + at) for at in range(3000))
    for text in (LOOP, LOOP + apart, apart + LOOP, LOOP + apart + apart[::-1]):
        assert is_looping(text)
    assert not is_looping(apart + apart[::-1])


@pytest.mark.parametrize(
    ("teacher", "auxiliary", "metric", "distance"),
    [
        (LABEL, "", "full", 0.0),
        (LOOP, "", "full", 0.0),
        (LABEL, "", "trivial", 0.0),
        (LOOP, LABEL, "trivial", 1.0),
        (LABEL, LOOP, "trivial", 0.0),
        (LABEL, LABEL, "mer", 0.0),
        ("a b c", "a b c d", "mer", 1 / 4),
        ("a b c d", "a b c", "mer", 1 / 3),
        ("a b c d e", "a", "mer", 4.0),
        ("", "", "mer", 0.0),
        ("a b", "", "mer", 1.0),
        ("", "a b", "mer", 1.0),
        ("?!", "…", "mer", 0.0),
        ("到 there", "道 their", "per", 0.0),
        ("到 there", "道 their", "mer", 1.0),
        ("", "", "per", 0.0),
        ("a b", "", "per", 1.0),
        ("", "a b", "per", 1.0),
        (LABEL, LABEL, "composite", 0.0),
        (LOOP, LOOP, "composite", 1.0),
        (LOOP, LABEL, "composite", 1.0),
        (LABEL, LOOP, "composite", 0.0),
        ("", LOOP, "composite", 0.0),
        ("a b c d e", "a", "composite", 1.0),
        ("", "", "composite", 0.0),
        ("a b", "", "composite", 1.0),
        ("", "a b", "composite", 1.0),
    ],
)
def test_label_distance(teacher, auxiliary, metric, distance):
    assert label_distance(teacher, auxiliary, metric) == pytest.approx(distance)


def test_a_chinese_sentence_is_not_one_word():
    assert label_distance("今天天氣很好", "今天天汽很好", "mer") == pytest.approx(1 / 6)


@pytest.mark.parametrize(("normalise_by", "distance"), [("auxiliary", 1 / 4), ("teacher", 1 / 3)])
def test_error_rates_are_divided_by_the_chosen_length(normalise_by, distance):
    assert label_distance("a b c", "a b c d", "mer", normalise_by=normalise_by) == pytest.approx(distance)


def test_the_alphabet_reaches_the_phonemes():
    arpabet, ipa = (
        label_distance("मशीन", "machine", "per", alphabet=alphabet, language="hi") for alphabet in ("arpabet", "ipa")
    )
    assert (arpabet >= 1.0, ipa) == (True, 0.0)


@pytest.mark.parametrize("function", [label_distance, compare_labels])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "compsite"}, "metric 'compsite' is unknown: choose one of full, .* did you mean composite?"),
        ({"metric": "zzz"}, "choose one of full, trivial, mer, per, composite$"),
        ({"normalise_by": "techer"}, "did you mean teacher?"),
        ({"metric": "per", "alphabet": "sampa"}, "alphabet 'sampa' is unknown"),
    ],
)
def test_an_unknown_choice_names_the_choices(function, arguments, message):
    with pytest.raises(K2DError, match=message):
        function("a", "b", **arguments)


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(["auxiliary", "teacher"]))
def test_compare_labels_has_the_columns_of_label_distance(teacher, auxiliary, normalise_by):
    for metric in METRICS:
        comparison = compare_labels(teacher, auxiliary, metric, normalise_by=normalise_by)
        assert comparison == LabelComparison(
            teacher_loops=is_looping(teacher),
            auxiliary_loops=is_looping(auxiliary),
            mer=label_distance(teacher, auxiliary, "mer", normalise_by=normalise_by),
            per=label_distance(teacher, auxiliary, "per", normalise_by=normalise_by),
            distance=label_distance(teacher, auxiliary, metric, normalise_by=normalise_by),
        )


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_composite_is_equation_5(teacher, auxiliary):
    per = count_errors(phonemes(auxiliary), phonemes(teacher)).rate
    expected = max(is_looping(teacher), min(1 - is_looping(auxiliary), per))
    assert label_distance(teacher, auxiliary) == expected
    assert 0.0 <= expected <= 1.0


@settings(deadline=None)
@given(TEXTS)
def test_a_text_agrees_with_itself(text):
    for metric in ("full", "mer", "per"):
        assert label_distance(text, text, metric) == 0.0
    assert label_distance(text, text) == float(is_looping(text))


@settings(deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(["mer", "per"]))
def test_error_rates_are_symmetric_once_the_length_is_swapped_too(first, second, metric):
    assert label_distance(first, second, metric, normalise_by="auxiliary") == label_distance(
        second, first, metric, normalise_by="teacher"
    )


@pytest.mark.parametrize(
    ("distance", "threshold", "kept"),
    [(0.4, 0.4, True), (0.41, 0.4, False), (0.0, 0.0, True), (1.0, 1.0, True), (1.5, 1.0, False)],
)
def test_a_label_at_the_threshold_is_kept(distance, threshold, kept):
    assert keeps(distance, threshold) is kept


@pytest.mark.parametrize("threshold", [-0.1, 1.1, 40, float("nan")])
def test_a_threshold_outside_zero_to_one_is_an_error(threshold):
    with pytest.raises(K2DError, match=r"outside \[0, 1\]"):
        keeps(0.5, threshold)


@pytest.mark.parametrize(
    ("teacher", "auxiliary", "metric", "threshold", "reason"),
    [
        (LABEL, LABEL, "composite", 0.4, None),
        (LABEL, LOOP, "composite", 0.4, None),
        (LOOP, LOOP, "composite", 0.4, "teacher loops"),
        (LOOP, LABEL, "trivial", 0.4, "teacher loops"),
        (LOOP, LABEL, "full", 0.4, None),
        (LOOP, LABEL, "mer", 0.4, "distance > 0.40"),
        (LABEL, "", "composite", 0.4, "distance > 0.40"),
        ("", LABEL, "composite", 0.05, "distance > 0.05"),
        ("", "", "composite", 0.0, None),
    ],
)
def test_drop_reason(teacher, auxiliary, metric, threshold, reason):
    comparison = compare_labels(teacher, auxiliary, metric)
    assert drop_reason(comparison, metric, threshold) == reason
    assert (reason is None) == keeps(comparison.distance, threshold)
