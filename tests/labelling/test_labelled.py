"""Recordings whose text is known: subtitles, segments and utterances become chunks, and what cannot is named."""

import json
import logging

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from media_files import KINDS, several_tracks, sweep

from k2d_hf import K2DError, load_labelled
from k2d_hf.data.chunk_audio import read_chunk
from k2d_hf.data.chunking import Segment
from k2d_hf.data.labelled import LabelledReport
from k2d_hf.data.references import read_references
from k2d_hf.data.subtitle_files import read_subtitles, track_beside

SRT = """1
00:00:01,000 --> 00:00:04,000
<i>今天我們</i>
講 attention

2
00:00:04,500 --> 00:00:20,000
{\\an8}second one

with a blank line

3
00:00:30,000 --> 00:00:45,000
third
"""
VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE not spoken

intro
00:01.000 --> 00:03.500 align:start position:0%
<v Bob>Tom &amp; Jerry

2
00:03.000 --> 00:05.000
over <c.loud>it</c>
"""
CUES = [Segment(1.0, 4.0, "今天我們講 attention"), Segment(4.5, 20.0, "second one with a blank line"), Segment(30.0, 45.0, "third")]  # fmt: skip


def noise(path, seconds):
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, seconds * 8000), 8000)
    return str(path)


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_track_gives_its_cues(tmp_path, encoding, ends):
    assert read_subtitles(write(tmp_path / "a.srt", SRT.replace("\n", ends), encoding)) == CUES
    found = read_subtitles(write(tmp_path / "a.vtt", VTT.replace("\n", ends), encoding))
    assert found == [Segment(1.0, 3.0, "Tom & Jerry"), Segment(3.0, 5.0, "over it")]


def test_cues_that_begin_together_are_one_and_times_only_grow(tmp_path):
    cues = ["00:09,000 --> 00:10,000\nlast", "00:01,000 --> 00:05,000\n你好", "00:01,000 --> 00:04,000\nhello"]
    track = write(tmp_path / "a.srt", "\n\n".join(f"00:{cue.replace('> 00:', '> 00:00:')}" for cue in cues))
    assert read_subtitles(track) == [Segment(1.0, 5.0, "hello你好"), Segment(9.0, 10.0, "last")]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.srt", "", "a.srt: no cue in it; give a track of subtitles with times such as 00:01:02,500 --> 00:01:04,000"),
        ("a.srt", "1\n00:01 -> 00:02\nx\n", "a.srt: no cue in it"),
        ("a.srt", "1\n00:00:01,000 --> soon\nx\n", "a.srt, line 2: no times in '00:00:01,000 --> soon'; give START --> END"),
        ("a.vtt", "WEBVTT\n\n00:09.000 --> 00:02.000\nx\n", "a.vtt, line 3: it ends before it starts"),
        ("a.vtt", "WEBVTT\nX-TIMESTAMP-MAP=LOCAL:0,MPEGTS:9\n", "a.vtt: a piece of a broadcast, with times of its own"),
    ],
)  # fmt: skip
def test_a_track_that_is_none_is_one_line(tmp_path, name, text, line):
    with pytest.raises(K2DError) as raised:
        read_subtitles(write(tmp_path / name, text))
    assert f"{tmp_path}/{line}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_no_utf_8_and_what_is_not_there_are_one_line(tmp_path):
    with pytest.raises(K2DError, match=r"a.srt: subtitles that are not UTF-8; save them as UTF-8"):
        read_subtitles(write(tmp_path / "a.srt", SRT, "gb18030"))
    with pytest.raises(K2DError, match=r"b.srt: the subtitles cannot be read .No such file"):
        read_subtitles(str(tmp_path / "b.srt"))


@pytest.mark.parametrize(
    ("tracks", "language", "found"),
    [
        (["talk.srt", "talk.en.srt"], "en", "talk.srt"),
        (["talk.zh-TW.vtt", "talk.en.vtt"], "zh", "talk.zh-TW.vtt"),
        (["talk.zh-TW.vtt"], None, "talk.zh-TW.vtt"),
        (["talk.final.srt"], None, None),  # of talk.final
        ([], "zh", None),
    ],
)
def test_the_track_beside_a_recording_is_found(tmp_path, tracks, language, found):
    for name in tracks:
        write(tmp_path / name, SRT)
    assert track_beside(str(tmp_path / "talk.mp4"), language) == (str(tmp_path / found) if found else None)


def test_two_tracks_that_may_be_meant_are_named(tmp_path):
    for name in ("talk.zh.srt", "talk.en.srt"):
        write(tmp_path / name, SRT)
    with pytest.raises(K2DError, match=r"several tracks of subtitles .talk.en.srt, talk.zh.srt.; name one"):
        track_beside(str(tmp_path / "talk.mp4"), None)


def test_subtitles_beside_recordings_become_chunks_with_times(tmp_path, caplog):
    recording = noise(tmp_path / "talk.wav", 60)
    write(tmp_path / "talk.srt", SRT)
    noise(tmp_path / "other.wav", 5)
    rows = load_labelled(tmp_path, name="talks", language="Chinese").to_list()
    segments = [{"start": 0.0, "end": 3.0, "text": "今天我們講 attention"}, {"start": 3.5, "end": 19.0, "text": " second one with a blank line"}]  # fmt: skip
    first = {"recording": recording, "start": 1.0, "duration": 19.0, "segments": segments, "previous_text": None}
    text = "今天我們講 attention second one with a blank line"
    assert rows[0] == {**first, "text": text, "next_start": None, "language": "zh", "keep": True, "source": "talks"}
    # the ten seconds before it are nobody's: no chunk has them, and no window goes on into them
    assert [(row["start"], row["duration"], row["text"]) for row in rows[1:]] == [(30.0, 15.0, "third")]
    assert caplog.messages == ["talks: left out 1 recording without text: other.wav"]


def test_manifests_have_segments_tracks_spans_and_utterances(tmp_path):
    for name, seconds in (("a", 40), ("b", 60), ("c", 20), ("d", 8)):
        noise(tmp_path / f"{name}.wav", seconds)
    (tmp_path / "tracks").mkdir()
    write(tmp_path / "tracks" / "b.srt", SRT)
    rows = [
        {"audio": "a.wav", "segments": [{"start": 2, "end": 20, "text": "一"}, {"start": 21, "end": 39, "text": "二"}]},
        {"audio": "b.wav", "subtitles": "tracks/b.srt", "language": "en"},
        {"audio": "c.wav", "offset": 1, "duration": 4, "text": "first span"},
        {"audio": "d.wav", "text": " an utterance ", "language": "zh-TW"},
        {"audio": "c.wav", "offset": 5.5, "duration": 4, "text": "第二"},
    ]
    write(tmp_path / "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    found = load_labelled(tmp_path / "data.jsonl").to_list()
    shown = {(row["recording"][-5], row["start"], row["duration"], row["text"], row["language"]) for row in found}
    assert shown == {
        ("a", 2.0, 18.0, "一", None), ("a", 21.0, 18.0, "二", None),
        ("b", 1.0, 19.0, "今天我們講 attention second one with a blank line", "en"), ("b", 30.0, 15.0, "third", "en"),
        ("c", 1.0, 8.5, "first span第二", None), ("d", 0.0, 8.0, "an utterance", "zh"),
    }  # fmt: skip
    of_a = [row for row in found if row["recording"].endswith("a.wav")]
    assert (of_a[0]["next_start"], of_a[1]["previous_text"]) == (19.0, "一")
    assert [row["segments"] for row in found if row["start"] == 0.0] == [None]


def test_a_table_of_common_voice_and_a_data_set_are_utterances(tmp_path):
    (tmp_path / "clips").mkdir()
    clip = noise(tmp_path / "clips" / "one.wav", 4)
    write(tmp_path / "train.tsv", "client_id\tpath\tsentence\tlocale\nx\tone.wav\t你好\tzh-TW\n")
    of_table = load_labelled(tmp_path / "train.tsv").to_list()
    assert [(row["recording"], row["text"], row["language"]) for row in of_table] == [(clip, "你好", "zh")]
    content = {"bytes": (tmp_path / "clips" / "one.wav").read_bytes(), "path": "one.wav"}
    rows = Dataset.from_list([{"speech": content, "said": "你好"}]).cast_column("speech", Audio())
    of_set = load_labelled(rows, reference_column="said", language="zh").to_list()
    assert [(row["duration"], row["text"], row["segments"]) for row in of_set] == [(4.0, "你好", None)]


def test_a_column_of_tracks_may_have_any_name(tmp_path):
    noise(tmp_path / "b.wav", 60)
    write(tmp_path / "b.srt", SRT)
    write(tmp_path / "data.csv", "audio,captions\nb.wav,b.srt\n")
    assert len(load_labelled(tmp_path / "data.csv", reference_column="captions")) == 2


def test_what_cannot_be_used_is_counted_and_named_and_the_rest_goes_on(tmp_path):
    noise(tmp_path / "good.wav", 8)
    noise(tmp_path / "long.wav", 31)
    (tmp_path / "broken.wav").write_bytes(b"this is no sound")
    write(tmp_path / "odd.srt", SRT.replace("-->", "->"))
    rows = [
        *({"audio": f"{name}.wav", "text": "字"} for name in ("good", "long", "broken", "gone")),
        {"audio": "good.wav", "offset": 1, "duration": 2, "text": "x", "language": "klingon"},
        {"audio": "good.wav", "offset": 2, "duration": 2, "subtitles": "odd.srt"},
        {"audio": "good.wav", "offset": 3, "duration": 2, "text": " "},
        {"audio": "long.wav", "offset": 0, "duration": 30.5, "text": "too long"},
    ]
    write(tmp_path / "data.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    report = LabelledReport()
    assert load_labelled(tmp_path / "data.jsonl", report=report)["text"] == ["字"]
    reasons = [(entry["recording"].rpartition("/")[2], entry["reason"]) for entry in report.skipped]
    assert reasons == [
        ("long.wav", "longer than 30 s"), ("broken.wav", "not audio"), ("gone.wav", "no such file"),
        ("good.wav", "unknown language"), ("good.wav", "subtitles cannot be used"), ("good.wav", "without text"),
        ("long.wav", "without text"),
    ]  # fmt: skip
    assert [(entry["reason"], entry["end"]) for entry in report.left_out] == [("longer than 30 s", 30.5)]
    assert report.figures() == {"recordings": 1, "chunks": 1, "seconds": 8.0, "skipped": 7, "left_out": 1}
    assert "2 recordings without text: good.wav, long.wav" in report.warning("corpus")


def test_a_source_without_any_text_is_one_line(tmp_path):
    noise(tmp_path / "a.wav", 3)
    with pytest.raises(K2DError) as raised:
        load_labelled(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path}: no text to learn from (1 without text); the first: {tmp_path}/a")
    with pytest.raises(K2DError, match="language 'klingon' is unknown"):
        load_labelled(tmp_path, language="klingon")


def test_they_are_references_too(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    recording = noise(tmp_path / "talk.wav", 60)
    write(tmp_path / "talk.srt", SRT)
    assert read_references(tmp_path) == {recording: CUES}
    row = {"audio": "talk.wav", "subtitles": "talk.srt", "offset": 2, "duration": 20}
    write(tmp_path / "references.jsonl", json.dumps(row))
    assert read_references(tmp_path / "references.jsonl") == {recording: CUES[1:2]}
    (tmp_path / "talk.srt").unlink()
    with pytest.raises(K2DError, match="no subtitles .* beside its 1 recordings"):
        read_references(tmp_path)


def test_a_channel_that_is_named_goes_with_the_chunks(tmp_path):
    left, right = np.random.default_rng(0).normal(0, 0.05, (2, 2 * 16000)).astype(np.float32)
    soundfile.write(tmp_path / "talk.flac", np.stack([left, right], axis=1), 16000)
    (tmp_path / "talk.srt").write_text("1\n00:00:00,000 --> 00:00:02,000\n他說 hello\n", encoding="utf-8")

    usual = load_labelled(tmp_path)
    second = load_labelled(tmp_path, channel=1)

    assert "audio_channel" not in usual.column_names
    assert second["audio_channel"] == ["1"]
    assert np.abs(read_chunk(second[0]) - right).max() < 1e-3
    assert np.abs(read_chunk(usual[0]) - (left + right) / 2).max() < 1e-3


def test_a_track_is_as_long_as_itself_and_one_that_is_not_there_is_named(tmp_path):
    """Of a film whose second track is shorter, the text of what the track does not have is left out."""
    rate = KINDS["a.m4a"][2]
    sounds = [sweep(rate, 8.0), sweep(rate, 4.0)]
    (tmp_path / "film.m4a").write_bytes(several_tracks("a.m4a", sounds))
    write(
        tmp_path / "film.srt", "1\n00:00:00,000 --> 00:00:03,000\nfirst\n\n2\n00:00:05,000 --> 00:00:07,000\nsecond\n"
    )

    assert load_labelled(tmp_path, track=0)["text"] == ["first", "second"]
    report = LabelledReport()
    assert load_labelled(tmp_path, track=1, report=report)["text"] == ["first"]
    assert [one["start"] for one in report.left_out] == [5.0]
    with pytest.raises(
        K2DError, match=r"no text to learn from \(1 no such track\); the first: .*no such track \(2, of 2"
    ):
        load_labelled(tmp_path, track=2)
