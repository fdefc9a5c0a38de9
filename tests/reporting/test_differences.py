"""What a page marks between two transcripts: what the mixed error rate counts, and nothing else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from many_scripts import TEXTS as IN_ANY_SCRIPT

from k2d_hf.reporting.differences import cut_text, differences, script_runs
from k2d_hf.reporting.markup import Tinting
from k2d_hf.scoring.text import mixed_tokens

TEXTS = st.text(alphabet="abAB '.,0 1今天講讲課か한<|>&\n", max_size=40)


def changes_of(base, other):
    """Changes that are none of `equal`, as (kind, before, after)."""
    return [
        (change.kind, "".join(part.text for part in change.before), "".join(part.text for part in change.after))
        for change in differences(base, other)
        if change.kind != "equal"
    ]


@pytest.mark.parametrize(
    ("base", "other", "changes"),
    [
        ("我們用 GPU 來 train", "我们用gpu来train。", []),  # script variants, case, blanks and punctuation
        ("U.S. 的 GPT-4", "US的GPT4", []),
        ("don\u2019t <|en|>stop", "don't stop", []),
        ("今天講課", "今天課", [("deletion", "講", "")]),
        ("今天課", "今天講課", [("insertion", "", "講")]),
        ("今天講課", "今天上課", [("substitution", "講", "上")]),
        ("一個 model", "两個 models", [("substitution", "一", "两"), ("substitution", "model", "models")]),
        ("the project manager is", "the ProjectManager is", [("substitution", "project manager", "ProjectManager")]),
        ("a b c d e f g", "x g", [("substitution", "a", "x"), ("deletion", "b c d e f", "")]),
        ("謝謝 everyone", "", [("deletion", "謝謝 everyone", "")]),
        ("", "謝謝", [("insertion", "", "謝謝")]),
        ("。", "!", []),
    ],
)
def test_changes_are_those_that_the_error_rate_counts(base, other, changes):
    assert changes_of(base, other) == changes


def test_letters_that_differ_are_marked_within_words_that_are_alike():
    (change,) = differences("deadline", "deadlion")
    assert [(part.text, part.differs) for part in change.after if part.differs] == [("o", True)]
    (change,) = differences("cat", "network")
    assert [(part.text, part.differs) for part in change.after] == [("network", False)]


@given(TEXTS, TEXTS)
def test_what_is_shown_of_the_other_is_the_other(base, other):
    assert "".join(part.text for change in differences(base, other) for part in change.after) == other
    assert changes_of(other, other) == []


@given(IN_ANY_SCRIPT, IN_ANY_SCRIPT)
def test_what_is_marked_is_what_the_error_rate_counts_in_any_script(base, other):
    """And no element begins with a mark, whose letter would stand outside of it."""
    changes = differences(base, other)
    parts = [part for change in changes for part in (*change.before, *change.after)]
    assert "".join(part.text for change in changes for part in change.after) == other
    assert all(unicodedata.category(part.text[0])[0] != "M" for part in parts)
    assert (changes_of(base, other) == []) is (mixed_tokens(base) == mixed_tokens(other))


@given(st.one_of(TEXTS, IN_ANY_SCRIPT))
def test_runs_by_script_make_up_the_text(text):
    assert "".join(run for run, _ in script_runs(text)) == text


def test_scripts_are_distinguished():
    assert script_runs("今天 machine learning, 2か한") == [
        ("今天", "zh"), (" ", None), ("machine learning", "latin"), (", 2", None), ("か", "ja"), ("한", "ko"),
    ]  # fmt: skip


def test_a_long_transcript_is_cut_and_says_so():
    assert cut_text("今天", most=2) == ("今天", False)
    assert cut_text("今天講", most=2) == ("今天", True)
    assert cut_text("!" * 100, most=2) == ("!" * 40, True)
    assert "the rest is left out" in Tinting("zh").plain("今" * 5000)


@pytest.mark.parametrize(
    ("language", "html"),
    [
        ("zh", '<span class="han" lang="zh">今</span> &lt;<span class="latin">b</span>&gt;'),
        ("ja", '<span class="han" lang="ja">今</span> &lt;<span class="latin">b</span>&gt;'),
        ("de", '<span class="han" lang="zh">今</span> &lt;<span class="latin" lang="de">b</span>&gt;'),
        ("hi", '<span class="han" lang="zh">今</span> &lt;<span class="latin">b</span>&gt;'),
        (None, '<span class="han" lang="zh">今</span> &lt;<span class="latin">b</span>&gt;'),
    ],
)
def test_transcripts_are_escaped_and_declare_their_languages(language, html):
    assert Tinting(language).plain("今 <b>") == html


def test_scripts_have_the_language_of_the_recipe_or_none_and_a_legend():
    hindi = Tinting("hi")
    assert hindi.plain("आज machine है") == (
        '<span class="letters" lang="hi">आज</span> <span class="latin">machine</span> '
        '<span class="letters" lang="hi">है</span>'
    )
    assert hindi.plain("שלום דוד") == '<span class="letters">שלום דוד</span>'
    assert hindi.legend == [("Devanagari", "letters"), ("Hebrew", "letters"), ("Latin", "latin")]
    assert Tinting("es").plain("hoy") == '<span class="latin" lang="es">hoy</span>'


def test_each_operation_has_an_element_of_its_own():
    marked = Tinting("zh").compared("一 b c", "二 b d")
    assert marked.count('<span class="sub"><del>') == 2
    assert Tinting("zh").compared("1 2", "1").count("<del>") == 1
    assert Tinting("zh").compared("1", "1 2").count("<ins>") == 1
    assert "(nothing)" in Tinting("zh").compared("1", "")
