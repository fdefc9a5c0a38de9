"""How a long report looks in windows from a phone's to a desk's: tables that can be read, parts that are folded."""

from dataclasses import replace

import numpy as np
import pytest
from chromium import Chromium
from PIL import Image

from k2d_hf.reporting.facts import ChunkFact, RecordingFact, RunFacts, SetFacts, Share, StageFact
from k2d_hf.reporting.page import Page, render_page
from k2d_hf.reporting.plots import draw_plots
from k2d_hf.scoring.error_rates import ErrorCounts

SENTENCE = "我們上個禮拜已經講過 marketing 了，所以今天直接進到 business model 的基本概念。"
OVERFLOWING = "one => one.scrollWidth > one.clientWidth"


def figures(name, model):
    counts = {"substitutions": 12345, "deletions": 2345, "insertions": 1234, "looping_outputs": 17}
    rates = {"mer": 0.2171, "zh_cer": 0.218, "en_wer": 0.336, "rtf": 0.0771, "parameters": 64_184_320}
    how = {
        "engine": "faster-whisper",
        "beam_size": 5,
        "recordings": 120,
        "audio_seconds": 400_000.0,
        "measurement": {"id": "one"},
    }
    return {name: {"model": model, **rates, **counts, **how}}


def chunk(index, keep):
    return ChunkFact(
        recording=f"semester-of-last-winter/lecture_{index:03d}.flac", start=30.0 * index, duration=29.0,
        text=SENTENCE * 5, auxiliary_text=SENTENCE * 4, reference=SENTENCE * 5, true_mer=0.2, distance=0.9 - index / 99,
        mer=0.5, per=0.4, keep=keep, drop_reason=None if keep else "distance > 0.40", teacher_loops=False,
        auxiliary_loops=True, source={}, student_text=SENTENCE * 5,
    )  # fmt: skip


def crowded():
    """Everything that a page can show, and as much of it as it does."""
    texts = {"teacher": SENTENCE * 80, "student": SENTENCE * 79}
    errors = dict.fromkeys(texts, ErrorCounts(400, 12, 3, 1))
    names = ("label", "validate", "student", "targets", "distil", "evaluate", "card", "push")
    line = "loss 20.73 -> 0.33 (ce 0.07, kl 0.07)  agreement with teacher 89%  soft targets, no teacher in memory"
    return RunFacts(
        name="lectures-of-last-winter", directory="runs/lectures", language="zh", metric="composite", threshold=0.4,
        stages=[StageFact(name, "1,234 recordings, 1,031 h", "60,321 chunks; 512 h dropped", 86_400.0, line) for name in names],
        shares=[Share(verdict, 12_345, 3.6e5) for verdict in ("kept", "distance > 0.40", "the teacher loops", "fewer than 3 tokens a second")],
        worst=[chunk(index, False) for index in range(20)],
        sample=[chunk(index, True) for index in range(10)],
        sets=[
            SetFacts(
                "", figures("teacher", "openai/whisper-large-v2") | figures("student", "/home/somebody/" + 6 * "a-long-way/" + "student"),
                intervals={"teacher": (0.21, 0.24), "student": (0.2, 0.23)},
                recordings=[RecordingFact(f"dev_{index}.flac", "", SENTENCE * 80, texts, errors) for index in range(10)],
            )
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(render_page(Page(crowded())), encoding="utf-8")
    with Chromium() as browser:
        browser.ask("Emulation.setScrollbarsHidden", hidden=True)  # as they are in a picture
        browser.open(page)
        yield browser


@pytest.mark.parametrize("width", [360, 390])
def test_on_a_phone_all_cells_are_in_sight_and_name_their_column(browser, width):
    browser.resize(width, 844)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(f"[...document.querySelectorAll('.scroll')].filter({OVERFLOWING}).length") == 0
    cells = """[...document.querySelectorAll("td")].filter(one => one.textContent).map(one => {
        const box = one.getBoundingClientRect();
        return [box.left >= 0 && box.right <= innerWidth && box.height > 0, getComputedStyle(one, "::before").content]; })"""
    shown = browser.evaluate(cells)
    assert all(inside for inside, _ in shown)
    columns = {"MER %", "95% interval", "zh CER", "S/D/I", "params", "in", "out", "time", "result", "chunks", "speech"}
    assert columns <= {name.strip('"') for _, name in shown}


@pytest.mark.parametrize(("width", "most"), [(390, 15_000), (1280, 8_000)])
def test_long_parts_are_folded_and_nothing_is_lost_in_them(browser, width, most):
    browser.resize(width, 844)
    assert browser.evaluate("document.documentElement.scrollHeight") < most
    assert browser.evaluate("document.querySelectorAll('details').length") == 20 + 10 + 10
    titles = "[...document.querySelectorAll('summary h3')].every(one => one.getBoundingClientRect().height > 0)"
    assert browser.evaluate(titles)
    seen = "[...document.querySelectorAll('.texts dd')].filter(one => one.checkVisibility({contentVisibilityAuto: true})).length"
    folded = browser.evaluate(seen)
    assert 0 < folded < 20  # the first ones show what is in the others
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    assert browser.evaluate(seen) == 30 * 4 + 10 * 3
    browser.evaluate("document.querySelectorAll('details').forEach((one, index) => { one.open = index < 2 })")


@pytest.mark.parametrize("dark", [False, True])
def test_a_table_that_is_cut_shows_that_there_is_more(browser, tmp_path, dark):
    """A shadow at the edge behind which it goes on, and none at the other."""
    browser.resize(700, 900, dark=dark)
    assert browser.evaluate(f"[...document.querySelectorAll('.scroll')].filter({OVERFLOWING}).length") >= 1
    for index in range(browser.evaluate("document.querySelectorAll('.scroll').length")):
        for end in (False, True):
            one = f"document.querySelectorAll('.scroll')[{index}]"
            cut = browser.evaluate(f"({OVERFLOWING})({one})")
            left, right, top, height = browser.evaluate(
                f"(() => {{ const one = {one}; one.scrollLeft = {9999 if end else 0}; const box = one.getBoundingClientRect();"
                "return [box.left, box.right, box.top + scrollY, box.height]; })()"
            )
            browser.screenshot(tmp_path / "shot.png", top=top, height=height)
            pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("L"), float)[2:12]  # above the head's letters
            paper = np.median(pixels)
            darker = [paper - pixels[:, round(x)].mean() for x in (left + 1, right - 2)]
            shadows = [bool(amount > 10) for amount in darker]
            assert shadows == ([cut and end, cut and not end]), (index, end, darker)


def test_at_a_desk_tables_are_tables(browser):
    browser.resize(1280, 900)
    assert browser.evaluate(f"[...document.querySelectorAll('.scroll')].filter({OVERFLOWING}).length") == 0
    assert browser.evaluate(
        "[...document.querySelectorAll('table')].every(one => getComputedStyle(one).display == 'table')"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('td')].every(one => getComputedStyle(one, '::before').content == 'none')"
    )


@pytest.mark.parametrize("width", [390, 1280])
def test_each_test_set_has_its_heading_table_and_chart(tmp_path, width):
    facts = crowded()
    (one,) = facts.sets
    words = {name: {**models, "wer": 0.1, "normaliser": "whisper-english"} for name, models in one.figures.items()}
    sets = [
        replace(one, name=name, figures=words if name == "english" else one.figures)
        for name in ("dev", "far", "english")
    ]
    facts = replace(facts, sets=[replace(each, recordings=each.recordings[:2], left_out=8) for each in sets])
    page = tmp_path / "sets.html"
    page.write_text(render_page(Page(facts, draw_plots(facts))), encoding="utf-8")
    with Chromium() as other:
        other.ask("Emulation.setScrollbarsHidden", hidden=True)
        other.open(page)
        other.resize(width, 844)
        assert other.evaluate("document.documentElement.scrollWidth") <= width
        heads = other.evaluate("[...document.querySelectorAll('section:first-of-type h3')].map(one => one.textContent)")
        assert heads == ["dev", "far", "english", "Macro average of dev and far, each set counted once"]
        charts = (
            "[...document.querySelectorAll('section:first-of-type svg')].map(one => one.getAttribute('aria-label'))"
        )
        assert other.evaluate(charts) == [
            "MER on dev: teacher 21.7%, student 21.7%",
            "MER on far: teacher 21.7%, student 21.7%",
            "WER on english: teacher 10.0%, student 10.0%",
        ]
        titles = other.evaluate("[...document.querySelectorAll('section:last-of-type h3')].map(one => one.textContent)")
        assert titles == [f"{name}: dev_{index}.flac" for name in ("dev", "far", "english") for index in range(2)]
        ids = other.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("language", "text", "other", "direction", "legend"),
    [
        ("ar", "مرحبا بكم في machine learning اليوم", "مرحبا بك في machine learning", "rtl", ["Arabic", "Latin"]),
        ("he", "שלום, היום נדבר על machine learning", "שלום היום machine", "rtl", ["Hebrew", "Latin"]),
        ("hi", "नमस्ते, आज machine learning पर बात करेंगे", "नमस्ते आज मशीन", "ltr", ["Devanagari", "Latin"]),
        ("es", "hoy hablamos de machine learning", "hoy", "ltr", ["Latin"]),
    ],
)
def test_a_transcript_has_its_own_direction_and_scripts(tmp_path, language, text, other, direction, legend):
    one = replace(chunk(0, False), text=text, auxiliary_text=other, reference=None, student_text=None)
    page = tmp_path / "report.html"
    page.write_text(render_page(Page(replace(crowded(), language=language, worst=[one], sample=[], sets=[]))), "utf-8")
    with Chromium() as browser:
        browser.open(page)
        shown = (
            "[...document.querySelectorAll('.texts dd')].map(one => [getComputedStyle(one).direction, one.innerText])"
        )
        (teacher, written), (auxiliary, _) = browser.evaluate(shown)
        assert (teacher, auxiliary, written) == (direction, direction, text)
        names = "[...document.querySelectorAll('.legend > span:last-child span')].map(one => one.innerText)"
        assert browser.evaluate(names) == legend
        declared = f"[...document.querySelectorAll('.texts [lang={language}]')].map(one => one.innerText).join(' ')"
        assert browser.evaluate(declared).split()[0] == written.split()[0].strip(",")
        assert ("Traditional" in browser.evaluate("document.body.innerText")) is False
