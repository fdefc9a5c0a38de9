"""How a card has a student used: code as it was evaluated, figures of each way, and the name it goes up under."""

import re
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import pytest

from k2d_hf import load_recipe
from k2d_hf.evaluation.ways import FIGURES_OF_A_WAY
from k2d_hf.publishing.card_rendering import render_card
from k2d_hf.publishing.card_use import Place, turned_to
from k2d_hf.transcription.decoding import NOT_EVALUATED, arguments_of_pipeline
from k2d_hf.transcription.transcribers import DecodingOptions
from publishing.card_parts import FIGURES, code, evaluated, facts, headings

ROOT = Path(__file__).parents[2]
CONFIG = {"language": "zh", "num_beams": 3, "condition_on_prev_tokens": False}
HUB, BRANCH = Place("me/lectures"), Place("me/lectures", "v1/try", ctranslate2=True)
ONCE = DecodingOptions(beam_size=1, condition_on_previous_text=False, temperatures=(0.0,))
LOADED = re.compile(r'(?:model|from_pretrained|snapshot_download)[=(]("[^"]*"(?:, revision="[^"]*")?)')


def way(**changes):
    figures = {
        **dict.fromkeys(FIGURES_OF_A_WAY),
        **FIGURES,
        "dtype": "float32",
        "threads": 2,
        "temperature_fallback": True,
    }
    return {**figures, "differs": None, **changes}


def card(ways=None, **changes):
    measured = [evaluated(dtype="int8_float32", threads=1, temperature_fallback=False, ways=ways)] if ways else []
    return render_card(facts(**{"evaluations": measured, **changes})).content


def use(text):
    return text.partition("## Use\n")[2].partition("\n## ")[0]


def test_each_way_of_use_has_its_own_figure_or_says_that_there_is_none():
    pipeline = way(mer=0.25, looping_outputs=2, rtf=2.7, differs=0.031)
    text = card({"pipeline": pipeline}, ctranslate2=True, model_id="me/x")
    before, _, after = use(text).partition("### faster-whisper")
    assert (
        "Measured like this (beam 5, float32, windows that look wrong again by sampling, 2 threads; 1 recording, "
        "3.0 min): MER 25.0%, 2 loops, RTF 2.700. 3.1% of its tokens differ from the text that the table is about."
    ) in before
    assert "Measured like this" not in after
    assert "Not measured like this." in after
    assert "How fast that is was not measured." in before
    assert "long-form by transformers, beam 5, int8\\_float32, each window once, 1 thread." in text.replace(
        "int8_float32", "int8\\_float32"
    )


def test_where_the_table_is_of_faster_whisper_the_card_shows_how_that_is_used():
    text = card({"pipeline": way(), "faster-whisper": way(dtype="int8", rtf=0.077)}, decoding=NOT_EVALUATED)
    shown = use(text).partition("### faster-whisper")[2]
    assert 'WhisperModel(folder, compute_type="int8")' in shown
    assert 'transcribe("lecture.flac", language="zh", condition_on_previous_text=False)' in shown
    assert "k2d export . --to ctranslate2 --output student-ct2" in shown
    assert "int8, windows that look wrong again by sampling, 2 threads" in shown
    assert "RTF 0.077" in shown


def test_the_first_snippet_passes_what_the_generation_config_cannot_carry():
    block = code(card({"pipeline": way()}, decoding=replace(NOT_EVALUATED, beam_size=3)))[0]
    assert '"num_beams": 3' in block
    assert '"temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)' in block
    assert '"logprob_threshold": -1.0' in block
    assert '"temperature": 0.0,' in code(card({"pipeline": way()}, decoding=ONCE))[0]


def test_nothing_evaluated_nothing_claimed():
    text = card()
    assert "No recordings with references were evaluated" in use(text)
    assert "Measured like this" not in text
    assert "as the student was evaluated" not in text


@pytest.mark.parametrize("before", [{}, {"model_id": "other/name"}, {"model_id": "other/name", "revision": "old"}])
@pytest.mark.parametrize("place", [HUB, BRANCH], ids=["main", "branch"])
@pytest.mark.parametrize("export", [True, False])
def test_a_card_that_goes_up_loads_the_student_from_there_and_from_nowhere_else(before, place, export):
    text = card({"pipeline": way(), "faster-whisper": way(dtype="int8")}, ctranslate2=export, **before)
    turned = turned_to(text, place, CONFIG)
    loaded = set(LOADED.findall(use(turned))) - {'"openai/whisper-base"'}
    assert loaded == {place.source}
    assert "this folder" not in use(turned)
    assert (
        turned
        == render_card(
            facts(
                evaluations=[
                    evaluated(
                        dtype="int8_float32",
                        threads=1,
                        temperature_fallback=False,
                        ways={"pipeline": way(), "faster-whisper": way(dtype="int8")},
                    )
                ],
                model_id=place.repo_id,
                revision=place.revision,
                ctranslate2=place.ctranslate2,
            )
        ).content
    )
    assert turned_to(turned, place, CONFIG) == turned


def test_faster_whisper_comes_with_its_folder_and_claims_nothing():
    turned = turned_to(card({"pipeline": way()}), BRANCH, CONFIG)
    assert headings(turned)[:3] == ["## Use", "### As its teacher's assistant", "### faster-whisper"]
    block = code(turned)[2]
    compile(block, "card", "exec")
    assert 'snapshot_download("me/lectures", revision="v1/try", allow_patterns="ctranslate2/*")' in block
    assert (
        'transcribe("lecture.flac", language="zh", beam_size=3, best_of=3, condition_on_previous_text=False)' in block
    )
    assert "Not measured like this." in use(turned).partition("### faster-whisper")[2]
    assert turned_to(turned, BRANCH, CONFIG) == turned
    once = turned_to(card({"pipeline": way()}, decoding=ONCE), BRANCH, CONFIG | {"num_beams": 1})
    assert "beam_size=1, temperature=[0.0], condition_on_previous_text=False)" in code(once)[2]


def test_whisper_cpp_comes_with_its_folder_and_claims_nothing():
    place = replace(BRANCH, ggml=True)
    turned = turned_to(card({"pipeline": way()}), place, CONFIG)
    assert headings(turned)[:4] == ["## Use", "### As its teacher's assistant", "### faster-whisper", "### whisper.cpp"]
    block = code(turned)[3]
    compile(block, "card", "exec")
    assert 'file = hf_hub_download("me/lectures", "ggml/ggml-model.bin", revision="v1/try")' in block
    assert 'Model(file, params_sampling_strategy=1, beam_search={"beam_size": 3, "patience": -1.0})' in block
    assert 'transcribe("lecture.wav", language="zh", no_context=True)' in block
    assert "Not measured like this." in use(turned).partition("### whisper.cpp")[2]
    assert turned_to(turned, place, CONFIG) == turned
    once = turned_to(card({"pipeline": way()}, decoding=ONCE), place, CONFIG | {"num_beams": 1})
    assert "Model(file)\n" in code(once)[3]
    assert 'language="zh", no_context=True, temperature_inc=0.0)' in code(once)[3]


@pytest.mark.parametrize("place", [HUB, replace(BRANCH, ggml=True)], ids=["gone", "there"])
def test_a_card_with_whisper_cpp_is_turned_to_its_place(place):
    own = card({"pipeline": way()}, ggml=True)
    assert 'file = "ggml/ggml-model.bin"  # in this folder' in own
    shown = code(turned_to(own, place, CONFIG))[2]
    made = '"student-ggml/ggml-model.bin"  # as `k2d export me/lectures --to ggml --output student-ggml` writes it'
    there = 'hf_hub_download("me/lectures", "ggml/ggml-model.bin", revision="v1/try")'
    assert f"file = {there if place.ggml else made}\n" in shown
    assert "whisper.cpp" not in card({"pipeline": way()}, ggml=True, adapters_alone=True)


def test_what_people_wrote_into_a_card_stays():
    text = (
        card()
        .replace("## Use\n", "## Use\n\nRead this first.\n")
        .replace("## Limits", "## Thanks\n\nTo all.\n\n## Limits")
    )
    turned = turned_to(text, HUB, CONFIG)
    assert "Read this first." in turned
    assert "## Thanks\n\nTo all." in turned
    own = '# My own card\n\nmodel="."\n'
    assert turned_to(own, BRANCH, CONFIG) == own


def test_cards_of_earlier_versions_are_turned_too():
    old = (
        '# x\n\n## Use\n\n```python\nasr = pipeline("automatic-speech-recognition", model=".")'
        "  # this folder, or the model's id on the Hub\n```\n\n## Limits\n"
    )
    assert turned_to(old, HUB, {}) == (
        '# x\n\n## Use\n\n```python\nasr = pipeline("automatic-speech-recognition", model="me/lectures")\n```\n\n## Limits\n'
    )


@pytest.mark.parametrize("revision", ['x"); import os; os.system("id") #', "a`b", "ä\nb"])
def test_a_branch_s_name_stays_a_name(revision):
    for block in code(turned_to(card({"pipeline": way()}), Place("me/x", revision, ctranslate2=True), CONFIG)):
        calls = compile(block, "card", "exec")
        assert "system" not in calls.co_names
        assert "os" not in calls.co_names


def test_readme_and_docs_decode_as_the_quickstart_is_evaluated():
    texts = [(ROOT / name).read_text("utf-8") for name in ("README.md", "docs/publishing.md")]
    given = [found for text in texts for found in re.findall(r"^whole = (\{.*?\})$", text, re.MULTILINE | re.DOTALL)]
    options = load_recipe(ROOT / "recipes" / "quickstart" / "quickstart.yaml").decoding
    assert [literal_eval(one) for one in given] == [arguments_of_pipeline(options)] * 2
