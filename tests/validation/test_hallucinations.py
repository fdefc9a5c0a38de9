"""Subtitle credits and the like: how they are found, where they are not, and what becomes of chunks that have them."""

import re
from importlib.resources import files

import pytest
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import validate_labels
from k2d_hf.cli import main
from k2d_hf.data.chunking import Segment, chunk_rows
from k2d_hf.errors import K2DError
from k2d_hf.publishing.card_facts import data_facts, settings_for_card
from k2d_hf.validation.auxiliary import drop_counts
from k2d_hf.validation.hallucinations import hallucinated_share
from k2d_hf.validation.settings import ValidateSettings

REASON = "known hallucination > 0.5"
LISTS = [one for one in files("k2d_hf.validation").joinpath("data").iterdir() if one.name.endswith(".txt")]


@pytest.mark.parametrize(
    "text",
    [
        "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目",
        "请不吝点赞、订阅、转发、打赏支持明镜与点点栏目。",
        "字幕由 Amara.org 社群提供",
        "字幕由Amara.org社区提供",
        "小編字幕由Amara.org社區提供",  # nearly nothing else
        "中文字幕志願者 李宗盛",
        "謝謝觀看！",
        "謝謝大家收看 我們下期再見",
        "Thanks for watching!",
        " THANK YOU FOR WATCHING.",
        "Subtitles by the Amara.org community",
        "ご視聴ありがとうございました。",
        "MBC 뉴스 이덕영입니다.",
        "Untertitel im Auftrag des ZDF für funk, 2017",
        "Sous-titrage ST' 501",
        "Субтитры сделал DimaTorzok",
    ],
)
def test_it_is_found_in_either_script_whatever_its_punctuation(text):
    assert hallucinated_share({"text": text}) > 0.8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "。",
        "謝謝大家",
        "Thank you.",
        "今天的字幕由我自己寫",
        "我們下週要訂閱新的雲端方案，還要評估成本",
        "在 pub/sub 裡 subscriber 要訂閱一個 topic",
        "the gene is transcribed by RNA polymerase and translated by ribosomes",
        "we thank you for watching this space for so many years, and we will go on with chapter five now",
        "See you next time.",
    ],
)
def test_what_a_lecturer_says_is_none(text):
    assert hallucinated_share({"text": text}) < 0.5


def row(*texts):
    segments = [Segment(4.0 * at, 4.0 * at + 3.0, text) for at, text in enumerate(texts)]
    return chunk_rows("a.wav", [segments], language="zh")[0]


def test_a_line_of_its_own_counts_and_within_a_longer_line_its_share():
    speech = "今天我們要講的是 attention 這個很重要的機制"
    assert hallucinated_share(row(speech, "謝謝觀看")) == 1.0
    assert hallucinated_share(row(speech, speech)) == 0.0
    assert 0 < hallucinated_share(row(f"{speech} 謝謝觀看")) < 0.25
    assert hallucinated_share({"text": f"{speech} 謝謝觀看"}) == hallucinated_share(row(f"{speech} 謝謝觀看"))
    assert hallucinated_share({"text": "謝謝觀看", "segments": None}) == 1.0
    halves = row("請不吝點贊 訂閱", "轉發 打賞支持明鏡與點點欄目")  # one phrase that Whisper wrote as two segments
    assert hallucinated_share(halves) == 1.0


def test_ones_own_phrases_count_beside_them():
    assert hallucinated_share({"text": "由台大語音實驗室製作"}) == 0.0
    own = ["由 * 製作", "[music]"]
    assert hallucinated_share({"text": "由台大語音實驗室製作"}, own) == 1.0
    assert hallucinated_share({"text": "♪ Music ♪"}, own) == 1.0
    assert hallucinated_share({"text": "謝謝觀看"}, own) == 1.0
    assert hallucinated_share({"text": "由 " + "很" * 13 + "製作"}, own) == 0.0  # no name is so long


def test_one_phrase_is_a_list_of_one():
    assert ValidateSettings(known_phrases="謝謝觀看") == ValidateSettings(known_phrases=["謝謝觀看"])


@pytest.mark.parametrize("phrase", ["", " * ", "...", "**", 7])
def test_a_phrase_without_a_word_is_one_line_before_any_work(phrase):
    with pytest.raises(
        K2DError, match=r"^known_phrases: .* has no word; write a phrase, in which \* stands for a name$"
    ):
        ValidateSettings(known_phrases=["謝謝觀看", phrase])


@pytest.fixture
def chunks(noise_file):
    labels = ["今天講機器學習", "謝謝觀看", "我們用 GPU 來 train 一個 model"]
    rows = [
        {**chunk_rows(str(noise_file), [[Segment(0.0, 4.0 + at, text)]], language="zh")[0]}
        for at, text in enumerate(labels)
    ]
    return Dataset.from_list(rows)


# An auxiliary makes it up as well: what both wrote is no evidence.
TRANSCRIPTS = {4.0: "今天講機器學習", 5.0: "谢谢观看", 6.0: "我們用 GPU 來 train 一個 model"}


def test_it_is_off_by_default_and_a_reason_to_drop_by_choice(chunks):
    papers = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))
    assert papers["keep"][:] == [True, True, True]
    assert papers["known_hallucination"][:] == [0.0, 1.0, 0.0]
    limited = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), max_known_hallucination=0.5)
    assert limited["drop_reason"][:] == [None, REASON, None]
    assert data_facts(limited).dropped == {REASON: 1}
    own = validate_labels(
        chunks, ScriptedTranscriber(TRANSCRIPTS), max_known_hallucination=0.5, known_phrases=["今天講*"]
    )
    assert drop_counts(own) == {REASON: 2}


def test_calibration_has_it_dropped_at_every_threshold(chunks, tmp_path, capsys):
    limited = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), max_known_hallucination=0.5)
    limited.save_to_disk(str(tmp_path / "limited"))
    assert main(["calibrate", str(tmp_path / "limited")]) == 0
    assert "known hallucination" in capsys.readouterr().out


def test_a_card_does_not_show_ones_own_phrases():
    settings = ValidateSettings(known_phrases=["secret"], max_known_hallucination=0.5)
    assert settings_for_card(settings) == {"known_phrases": "given", "max_known_hallucination": 0.5}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_each_list_names_its_sources_and_licence_and_finds_its_phrases(path):
    comments, phrases = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        (comments if line.startswith("#") else phrases).append(line)
    assert re.search(r"# Reported in: \S+", "\n".join(comments))
    assert "under its licence" in "\n".join(comments)
    phrases = [phrase for phrase in phrases if phrase]
    assert len(phrases) == len(set(phrases)) >= 3
    for phrase in phrases:
        assert hallucinated_share({"text": phrase.replace("*", "某某 Someone")}) == 1.0, phrase
