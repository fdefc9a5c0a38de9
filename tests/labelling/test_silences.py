"""Windows without speech: where they are, how many are chosen, what rows they give."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import K2DDataCollator, label_recordings, load_recordings, validate_labels
from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.errors import K2DError
from k2d_hf.labelling.hypotheses import chunk_features
from k2d_hf.labelling.report import LabellingReport
from k2d_hf.labelling.silences import MARGIN, choose, silent_windows, with_silences
from k2d_hf.transcription.speech import speech_spans

LECTURE = Path(__file__).parents[2] / "recipes" / "quickstart" / "dev" / "dev_000.opus"


@pytest.mark.parametrize(
    ("spoken", "windows"),
    [
        ([], [(0.0, 30.0), (30.0, 60.0)]),
        ([(0.0, 60.0)], []),
        ([(0.0, 20.0), (21.9, 60.0)], []),  # too short
        ([(0.0, 20.0), (22.0, 60.0)], [(20.0, 22.0)]),
        ([(10.0, 70.0)], [(0.0, 10.0)]),  # past the end
        ([(0.0, 40.0), (5.0, 6.0)], [(40.0, 60.0)]),  # one within the other
        ([(0.0, 29.0)], [(29.0, 59.0)]),  # what is left is too short
    ],
)
def test_windows_touch_no_speech_and_are_neither_short_nor_long(spoken, windows):
    assert silent_windows(spoken, 60.0) == windows


def test_the_share_is_right_over_many_recordings_and_the_same_each_time():
    windows = [(float(at), at + 3.0) for at in range(0, 100, 10)]
    chosen = [choose(windows, 4, 0.1, seed=f"recording {n}") for n in range(500)]
    assert chosen == [choose(windows, 4, 0.1, seed=f"recording {n}") for n in range(500)]
    found = sum(map(len, chosen))
    assert found / (found + 4 * 500) == pytest.approx(0.1, abs=0.015)
    assert all(one == sorted(one) for one in chosen)
    assert choose(windows, 400, 0.5, seed="") == windows  # no more than there are


def test_rows_are_in_order_have_an_empty_label_and_the_text_before():
    chunks = [
        {"recording": "a.flac", "start": 3.0, "text": "first", "language": "zh"},
        {"recording": "a.flac", "start": 40.0, "text": "second", "language": "zh"},
    ]
    rows = with_silences(chunks, [(0.0, 2.5), (30.0, 33.5)])
    assert [row["text"] for row in rows] == ["", "first", "", "second"]
    silent = [row for row in rows if not row["text"]]
    assert [row["previous_text"] for row in silent] == [None, "first"]
    assert [(row["start"], row["duration"], row["segments"]) for row in silent] == [(0.0, 2.5, []), (30.0, 3.5, [])]
    assert all((row["recording"], row["language"], row["next_start"]) == ("a.flac", "zh", None) for row in silent)


def test_the_detector_finds_speech_and_leaves_noise_alone():
    quiet = 0.01 * np.random.default_rng(0).standard_normal(5 * SAMPLE_RATE).astype(np.float32)
    audio = np.concatenate([quiet, read_audio(LECTURE, 0.0, 5.0), quiet])
    spans = speech_spans(audio, margin=MARGIN)
    assert spans
    assert all(start > 4.0 and end < 11.0 for start, end in spans)


@pytest.fixture
def recording(tmp_path):
    """Three seconds of noise, five of a lecture, four of noise."""
    random = np.random.default_rng(0)
    noise = [0.01 * random.standard_normal(seconds * SAMPLE_RATE).astype(np.float32) for seconds in (3, 4)]
    soundfile.write(
        tmp_path / "a.flac", np.concatenate([noise[0], read_audio(LECTURE, 0.0, 5.0), noise[1]]), SAMPLE_RATE
    )
    return load_recordings(tmp_path)


def test_labelling_gives_silences_in_a_share_and_finds_them_again(recording, tmp_path):
    def label(share):
        teacher = ScriptedTranscriber({12.0: [(3.2, 7.9, "in this lecture")]}, language="zh")
        report = LabellingReport()
        chunks = label_recordings(recording, teacher, silence=share, shards_dir=tmp_path / "shards", report=report)
        return chunks, report, teacher.calls

    chunks, report, calls = label(0.5)
    silent = [row for row in chunks if not row["text"]]
    assert len(silent) == report.silences >= 1
    assert all(row["start"] + row["duration"] <= 3.2 or row["start"] >= 7.9 for row in silent)
    again, report, calls = label(0.5)
    assert (again.to_list(), calls) == (chunks.to_list(), [])
    assert [row["text"] for row in label(0.0)[0]] == ["in this lecture"]


def test_a_silence_becomes_an_empty_label_in_both_forms(processor):
    collator = K2DDataCollator(processor, language="zh", full_windows=True)
    chunk = {"recording": "a.flac", "start": 1.0, "duration": 2.5, "segments": [], "text": "", "next_start": None}
    special = collator.encoder.special
    forms = {timestamps: labels for (timestamps, _), (_, labels) in collator.forms(chunk).items()}
    assert forms[False][-2:] == [special.no_timestamps, special.end_of_text]
    assert forms[True][-2:] == [special.timestamp(0.0), special.end_of_text]
    assert all(span["duration"] == 2.5 for span in collator.spans(chunk))


def test_an_auxiliary_that_writes_something_drops_a_silence(recording):
    both = {"recording": recording[0]["recording"], "start": 0.0, "text": "", "segments": [], "language": "zh"}
    rows = [{**both, "duration": seconds, "previous_text": None, "next_start": None} for seconds in (2.0, 3.0)]
    chunks = Dataset.from_list(rows, features=chunk_features())
    validated = validate_labels(chunks, ScriptedTranscriber({2.0: "", 3.0: "謝謝觀看"}, language="zh"))
    assert validated["keep"] == [True, False]


def test_a_missing_detector_is_named_before_any_work(recording, monkeypatch):
    monkeypatch.setattr("k2d_hf.transcription.speech.missing", lambda module, extra=None: "pip install it")
    with pytest.raises(K2DError, match="label.silence asks for the voice detector of faster-whisper: pip install it"):
        label_recordings(recording, ScriptedTranscriber({}), silence=0.1)
