"""The formats of transcripts, byte by byte, and read back by other software."""

import json

import pytest

from k2d_hf import K2DError, Segment
from k2d_hf.transcription.settings import TranscribeSettings
from k2d_hf.transcription.transcribers import Word
from k2d_hf.transcription.transcript_files import FORMATS, Transcription, check_formats

SEGMENTS = [Segment(0.0, 2.5, " R&D <first> --> then."), Segment(3661.04, 3662.0, "今天講\tGPU")]
ONE = Transcription("a.flac", 3700.0, "zh", SEGMENTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("txt", "R&D <first> --> then.\n今天講 GPU\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:02,500\nR&D <first> -> then.\n\n2\n01:01:01,040 --> 01:01:02,000\n今天講 GPU\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nR&amp;D &lt;first&gt; --&gt; then.\n\n"
                "01:01:01.040 --> 01:01:02.000\n今天講 GPU\n"),
        ("tsv", "start\tend\ttext\n0\t2500\tR&D <first> --> then.\n3661040\t3662000\t今天講 GPU\n"),
    ],
)  # fmt: skip
def test_the_content_of_a_format(name, content):
    assert ONE.render(name) == content


def test_json_has_segments_language_and_duration_and_words_where_there_are_some():
    content = json.loads(ONE.render("json"))
    assert content.keys() == {"text", "segments", "language", "duration"}
    assert content["segments"][1] == {"id": 1, "start": 3661.04, "end": 3662.0, "text": "今天講\tGPU"}
    assert "words" not in content["segments"][0]
    timed = Transcription("a.flac", 2.5, "en", SEGMENTS[:1], [[Word(0.0, 1.0, " R&D")]])
    assert json.loads(timed.render("json"))["segments"][0]["words"] == [{"word": " R&D", "start": 0.0, "end": 1.0}]


@pytest.mark.parametrize("name", FORMATS)
def test_of_silence_each_format_is_empty_but_for_its_head(name):
    heads = {"txt": "", "srt": "", "vtt": "WEBVTT\n", "tsv": "start\tend\ttext\n"}
    content = Transcription("a.flac", 1.0, None, []).render(name)
    assert content == heads[name] if name in heads else json.loads(content)["segments"] == []


def test_settings_bound_the_lines():
    narrow = ONE.render("srt", TranscribeSettings(line_columns=8, lines=1))
    assert max(map(len, narrow.splitlines()[2::4])) <= 8


def test_formats_are_named_with_commas_and_an_unknown_one_is_an_error():
    assert check_formats("VTT, txt,vtt") == ["vtt", "txt"]
    with pytest.raises(K2DError, match=r"^format 'str': choose from txt, srt, vtt, tsv, json; did you mean srt\?$"):
        check_formats("txt,str")
    with pytest.raises(K2DError, match="choose from"):
        check_formats("txt,")
