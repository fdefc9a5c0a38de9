"""Recordings without their long pauses: the clips between them, and the times of the recording, in both engines."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripted_whisper import write_scripted_whisper

from k2d_hf import label_recordings, load_recordings, transcribe
from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.errors import K2DError
from k2d_hf.files.shards import NO_SPEECH
from k2d_hf.labelling.report import LabellingReport
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.speech import Clip, clips_of
from k2d_hf.transcription.transcribers import DecodingOptions

LECTURE = Path(__file__).parents[2] / "recipes" / "quickstart" / "dev" / "dev_000.opus"
ENGINES = ["transformers", "faster-whisper"]
GREEDY = {"beam_size": 1, "temperatures": (0.0,), "condition_on_previous_text": False, "dtype": "float32"}


def quiet(seconds, seed=0):
    noise = np.random.default_rng(seed).standard_normal(round(seconds * SAMPLE_RATE))
    return (0.001 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def audio():
    """11.37 s of nothing, 9 s of a lecture, 50.5 s of nothing, 8 s of a lecture, 20 s of nothing."""
    speech = read_audio(LECTURE, 0.0, 9.0), read_audio(LECTURE, 12.0, 8.0)
    return np.concatenate([quiet(11.37), speech[0], quiet(50.5, 1), speech[1], quiet(20, 2)])


@pytest.fixture(scope="module")
def scripted_dir(tmp_path_factory, processor):
    """A Whisper that writes a segment of 0 to 9 s and one of 9 to 19 s in each window."""
    script = (9.0, "今天講"), (19.0, "machine learning")
    return write_scripted_whisper(tmp_path_factory.mktemp("scripted"), processor, *script)


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


# Clips


def test_clips_lie_between_long_pauses_with_a_second_around_their_speech(audio):
    clips = clips_of(audio)
    for clip, (start, end) in zip(clips, [(11.37, 20.37), (70.87, 78.87)], strict=True):
        assert start - 1.6 < clip.start / SAMPLE_RATE < start - 0.4
        assert end + 0.4 < clip.end / SAMPLE_RATE < end + 1.6
        assert clip.start % 320 == 0  # a step of Whisper's timestamps, 0.02 s


def test_a_recording_without_long_pauses_is_one_clip_and_its_times_stay():
    audio = np.concatenate([read_audio(LECTURE, 0.0, 9.0), quiet(7), read_audio(LECTURE, 12.0, 8.0)])
    assert clips_of(audio) == [Clip(0, len(audio), whole=True)]
    assert clips_of(audio)[0].times(1.23, 45.6) == (1.23, 45.6)
    longer = np.concatenate([read_audio(LECTURE, 0.0, 9.0), quiet(13), read_audio(LECTURE, 12.0, 8.0)])
    assert len(clips_of(longer)) == 2
    assert clips_of(longer, vad=False) == [Clip(0, len(longer), whole=True)]


@pytest.mark.parametrize("silence", [quiet(30), np.zeros(100, np.float32), np.zeros(0, np.float32)])
def test_there_is_no_clip_where_nobody_speaks(silence):
    assert clips_of(silence) == []


@pytest.mark.parametrize(
    ("given", "expected"), [((0.0, 4.0), (100.0, 104.0)), ((8.0, 12.0), (108.0, 110.0)), ((11.0, 12.0), (110.0, 110.0))]
)
def test_times_are_those_of_the_recording_and_end_with_the_clip(given, expected):
    assert Clip(100 * SAMPLE_RATE, 110 * SAMPLE_RATE).times(*given) == expected


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_give_the_times_of_the_recording(audio, scripted_dir, engine):
    plain, cut = (
        open_transcriber(scripted_dir, DecodingOptions(**GREEDY, language="zh", vad=vad), engine=engine)
        for vad in (False, True)
    )
    clips = [(clip.start / SAMPLE_RATE, clip.end / SAMPLE_RATE) for clip in clips_of(audio)]
    segments = cut.transcribe([audio])[0].segments
    expected = [
        (start + at, min(start + to, end), text)
        for start, end in clips
        for at, to, text in ((0.0, 9.0, "今天講"), (9.0, 19.0, "machine learning"))
    ]
    assert [one.text for one in segments] == [text for *_, text in expected]
    times = [(one.start, one.end) for one in segments]
    assert times == [pytest.approx((start, end), abs=0.0051) for start, end, _ in expected]
    inside = [time for time in sum(times, ()) if time not in [round(end, 2) for _, end in clips]]
    assert all(abs(time / 0.02 - round(time / 0.02)) < 1e-6 for time in inside)
    everything = plain.transcribe([audio])[0].segments
    assert any(20.37 + 1 < (one.start + one.end) / 2 < 70.87 - 1 for one in everything)  # it writes into the silence


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clip_is_written_as_if_it_were_a_recording(audio, random_dir, engine):
    plain, cut = (
        open_transcriber(random_dir, DecodingOptions(**GREEDY, vad=vad), engine=engine) for vad in (False, True)
    )
    clips = clips_of(audio)
    alone = plain.transcribe([audio[clip.start : clip.end] for clip in clips], ["zh", "zh"])
    together = cut.transcribe([audio], ["zh"])[0]
    assert [one.text for one in together.segments] == [one.text for each in alone for one in each.segments]
    guessed = cut.transcribe([audio])[0]
    assert guessed.language == plain.transcribe([audio[clips[0].start : clips[0].end]])[0].language


@pytest.mark.parametrize("engine", ENGINES)
def test_no_speech_is_no_text_and_others_are_transcribed(audio, scripted_dir, engine):
    transcriber = open_transcriber(scripted_dir, DecodingOptions(**GREEDY, language="zh", vad=True), engine=engine)
    silent, spoken, empty = transcriber.transcribe([quiet(40), audio, quiet(1)], ["en", None, None])
    assert (silent.segments, silent.language) == ([], "en")
    assert (empty.segments, empty.language) == ([], "zh")
    assert spoken.segments


def test_words_and_progress_are_in_the_times_of_the_recording(audio, scripted_dir):
    transcriber = open_transcriber(
        scripted_dir, DecodingOptions(**GREEDY, language="zh", vad=True), engine="faster-whisper"
    )
    shown = []
    transcript = transcriber.transcribe_one(audio, word_times=True, on_segment=shown.append)
    assert shown == transcript.segments
    words = [word for words in transcript.words for word in words]
    assert words
    spans = [(clip.start / SAMPLE_RATE, clip.end / SAMPLE_RATE) for clip in clips_of(audio)]
    assert all(any(a <= word.start <= word.end <= b + 0.005 for a, b in spans) for word in words)


# At work


@pytest.fixture
def folder(audio, tmp_path):
    soundfile.write(tmp_path / "lecture.flac", audio, SAMPLE_RATE)
    soundfile.write(tmp_path / "silence.flac", quiet(35), SAMPLE_RATE)
    return tmp_path


def test_labels_have_the_times_of_the_recording_and_silence_is_skipped_by_name(folder, scripted_dir):
    report = LabellingReport()
    given = {"language": "zh", "engine": "faster-whisper", "beam_size": 1, "dtype": "float32"}
    chunks = label_recordings(load_recordings(folder), str(scripted_dir), vad=True, report=report, **given)
    assert chunks[0]["start"] == clips_of(read_audio(folder / "lecture.flac"))[0].start / SAMPLE_RATE
    assert [Path(entry["recording"]).name for entry in report.skipped] == ["silence.flac"]
    assert report.skipped[0]["reason"] == NO_SPEECH
    assert report.seconds == pytest.approx(report.seconds_in_chunks + report.seconds_listed + report.seconds_unlisted)


def test_transcribe_takes_it_too(folder, scripted_dir):
    given = {"language": "zh", "engine": "transformers", "beam_size": 1, "temperature_fallback": False}
    lecture, silence = transcribe(folder, scripted_dir, vad=True, **given).transcripts
    assert [one.text for one in lecture.segments] == ["今天講", "machine learning"] * 2
    assert silence.segments == []


def test_a_missing_detector_is_named_before_any_work(folder, scripted_dir, monkeypatch):
    monkeypatch.setattr("k2d_hf.transcription.speech.missing", lambda module, extra=None: "pip install it")
    with pytest.raises(K2DError, match=r"^vad asks for the voice detector of faster-whisper: pip install it$"):
        label_recordings(load_recordings(folder), str(scripted_dir), vad=True, engine="transformers")
    with pytest.raises(K2DError, match="^vad asks for the voice detector"):
        transcribe(folder, scripted_dir, vad=True, engine="transformers")
