"""The teacher's pass: each recording becomes chunks, or is named with the reason why not; work done is never redone."""

import threading
from collections import Counter

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from pyarrow import parquet
from scripted_transcriber import ScriptedTranscriber
from scripted_whisper import write_scripted_whisper

from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.files.background import check_cancelled
from k2d_hf.labelling.teacher import LabellingReport, chunk_features, label_recordings
from k2d_hf.transcription import faster_whisper_engine

SCRIPT = {
    10.0: [(0.0, 4.0, " 今天講"), (4.5, 9.0, " machine learning")],
    40.0: [(0.5, 20.0, "一"), (20.0, 30.5, "二"), (31.0, 39.0, "三")],
    7.0: [(0.0, 7.0, "七")],
    5.0: [],
    35.0: [(0.0, 32.0, "loop loop"), (32.0, 34.0, "好"), (34.0, 35.5, "了"), (34.5, 34.6, " ")],
}


def make(folder, name, seconds, level=0.1, **kwargs):
    samples = level * np.random.default_rng(0).standard_normal(round(seconds * 16000))
    soundfile.write(folder / name, samples, 16000, **kwargs)
    return str(folder / name)


@pytest.fixture
def lectures(tmp_path):
    """Recordings of 10, 40, 7 and 10 s."""
    lengths = {"a.wav": 10, "b.flac": 40, "c.ogg": 7, "d.wav": 10}
    return Dataset.from_dict({"recording": [make(tmp_path, name, seconds) for name, seconds in lengths.items()]})


def finished(folder):
    """What is in the files of a folder of shards, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def texts(chunks):
    return list(zip([name.rsplit("/", 1)[1] for name in chunks["recording"]], chunks["text"], strict=True))


LECTURES = [
    ("a.wav", "今天講machine learning"),
    ("b.flac", "一二"),
    ("b.flac", "三"),
    ("c.ogg", "七"),
    ("d.wav", "今天講machine learning"),
]


def test_recordings_become_chunks_in_order(lectures):
    report = LabellingReport()
    chunks = label_recordings(lectures, ScriptedTranscriber(SCRIPT, language="zh"), report=report)
    assert chunks.features == chunk_features()
    assert texts(chunks) == LECTURES
    assert [row["previous_text"] for row in chunks] == [None, None, "一二", None, None]  # never of another recording
    assert chunks["start"][:] == [0.0, 0.5, 31.0, 0.0, 0.0]
    assert chunks["duration"][:] == [9.0, 30.0, 8.0, 7.0, 9.0]
    assert set(chunks["language"]) == {"zh"}
    assert (report.recordings, report.seconds) == (4, 67.0)
    assert report.segment_seconds_in == report.segment_seconds_out == pytest.approx(2 * 8.5 + 38 + 7)
    assert report.skipped == report.left_out == []


def test_what_reaches_no_chunk_is_listed_and_seconds_add_up(tmp_path, caplog):
    recordings = Dataset.from_dict({"recording": [make(tmp_path, "a.wav", 35)]})
    report = LabellingReport()
    chunks = label_recordings(recordings, ScriptedTranscriber(SCRIPT), report=report)
    assert texts(chunks) == [("a.wav", "好了")]
    assert [(span["start"], span["end"], span["reason"]) for span in report.left_out] == [
        (0.0, 32.0, "longer than 30 s"),
        (35.0, 35.5, "past the end"),
        (34.5, 34.6, "no text"),
    ]
    assert {span["recording"] for span in report.left_out} == {str(tmp_path / "a.wav")}
    lost = sum(span["end"] - span["start"] for span in report.left_out)
    assert report.segment_seconds_in == pytest.approx(report.segment_seconds_out + lost)


@pytest.fixture
def mixed_bag(tmp_path):
    """One good recording and one of each kind that cannot be used."""
    (tmp_path / "not-audio.wav").write_text("not audio")
    (tmp_path / "empty.wav").touch()
    whole = make(tmp_path, "truncated.wav", 10)
    with open(whole, "r+b") as file:
        file.truncate(20000)
    soundfile.write(tmp_path / "nan.wav", np.full(16000, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "no-samples.wav", np.zeros(0), 16000)
    make(tmp_path, "silence.wav", 3, level=0.0)
    make(tmp_path, "no-words.wav", 5)
    make(tmp_path, "good.wav", 7)
    names = ["good", "not-audio", "empty", "truncated", "nan", "no-samples", "silence", "no-words", "missing"]
    return Dataset.from_dict({"recording": [str(tmp_path / f"{name}.wav") for name in names]})


REASONS = {
    "not-audio.wav": "not audio",
    "empty.wav": "empty file",
    "truncated.wav": "truncated",
    "nan.wav": "not finite",
    "no-samples.wav": "no samples",
    "silence.wav": "no speech found",
    "no-words.wav": "no speech found",
    "missing.wav": "no such file",
}


@pytest.mark.parametrize(("engine", "workers"), [("transformers", 1), ("faster-whisper", 1), ("faster-whisper", 3)])
@pytest.mark.parametrize("batch_size", [1, 4, 20])
def test_what_cannot_be_used_is_skipped_with_name_and_reason_in_order(mixed_bag, caplog, engine, workers, batch_size):
    report, done = LabellingReport(), []
    teacher = ScriptedTranscriber(SCRIPT, engine=engine, calls_at_once=workers)
    chunks = label_recordings(mixed_bag, teacher, batch_size=batch_size, report=report, on_progress=done.append)
    assert texts(chunks) == [("good.wav", "七")]
    assert [(entry["recording"].rsplit("/", 1)[1], entry["reason"]) for entry in report.skipped] == list(
        REASONS.items()
    )
    assert sum(done) == 9
    assert all(entry["recording"] in entry["detail"] for entry in report.skipped)
    assert report.skip_counts() == Counter(REASONS.values())
    assert (report.recordings, report.seconds) == (9, 15.0)
    assert "skipped 8 of 9 recordings: 2 no speech found, 1 not audio, 1 empty file" in caplog.text


def test_nothing_left_is_an_error_that_says_why(mixed_bag):
    bad = mixed_bag.select(range(1, len(mixed_bag)))
    report = LabellingReport()
    with pytest.raises(
        K2DError, match=r"none of 8 recordings could be labelled; the first: .*not-audio.wav: not audio"
    ):
        label_recordings(bad, ScriptedTranscriber(SCRIPT), report=report)
    assert len(report.skipped) == 8


def test_no_recordings_no_column_or_an_impossible_chunk_are_errors(lectures):
    for recordings, settings, message in [
        (Dataset.from_dict({"recording": []}), {}, "there are no recordings to label"),
        (lectures.rename_column("recording", "audio"), {}, "no column recording among audio"),
        (lectures, {"max_duration": 31.0}, "max_duration 31: Whisper takes at most 30 s"),
        (lectures, {"max_duration": 0.0}, "max_duration 0: Whisper"),
        (lectures, {"batch_size": 0}, "batch_size 0: at least 1"),
    ]:
        with pytest.raises(K2DError, match=message):
            label_recordings(recordings, ScriptedTranscriber(SCRIPT), **settings)


def test_a_recording_listed_twice_is_labelled_once(lectures):
    twice = Dataset.from_dict({"recording": lectures["recording"][:2] * 2})
    report = LabellingReport()
    chunks = label_recordings(twice, ScriptedTranscriber(SCRIPT), batch_size=3, report=report)
    assert texts(chunks) == LECTURES[:3]
    assert [entry["reason"] for entry in report.skipped] == ["listed twice"] * 2


def test_chunks_are_as_short_as_asked(lectures):
    chunks = label_recordings(lectures, ScriptedTranscriber(SCRIPT), max_duration=12.0)
    assert max(chunks["duration"]) <= 12.0


# Batches, languages, progress


@pytest.mark.parametrize(
    ("engine", "calls"),
    [("transformers", [[10.0, 40.0, 7.0], [10.0]]), ("faster-whisper", [[10.0], [40.0], [7.0], [10.0]])],
)
def test_recordings_go_to_the_engine_together_where_it_batches(lectures, engine, calls):
    teacher = ScriptedTranscriber(SCRIPT, engine=engine)
    done = []
    label_recordings(lectures, teacher, batch_size=3, on_progress=done.append)
    assert teacher.calls == calls
    assert done == [len(call) for call in calls]


@pytest.mark.parametrize("workers", [2, 3, 9])
def test_recordings_transcribed_at_once_give_what_they_give_one_by_one(lectures, tmp_path, workers):
    expected, reports = None, []
    for count in (1, workers):
        reports.append(LabellingReport())
        teacher = ScriptedTranscriber(SCRIPT, calls_at_once=count)
        chunks = label_recordings(lectures, teacher, batch_size=2, shards_dir=tmp_path / str(count), report=reports[-1])
        expected = expected or chunks[:]
        assert chunks[:] == expected
    assert reports[0] == reports[1]
    one, several = (finished(tmp_path / str(count)) for count in (1, workers))
    assert one == several
    assert len(one) == 5  # a file a recording, and the record


@pytest.mark.parametrize(
    ("column", "setting", "labels"),
    [
        (["zh", None, "ja", "zh"], None, ["zh", "en", "ja", "zh"]),
        (["zh", None, "ja", "zh"], "ko", ["ko"] * 4),
        (None, None, ["en"] * 4),
    ],
)
def test_the_language_is_the_one_given_or_known_or_detected(lectures, column, setting, labels):
    recordings = lectures if column is None else lectures.add_column("language", column)
    chunks = label_recordings(recordings, ScriptedTranscriber(SCRIPT, language=setting))
    assert list(dict(zip(chunks["recording"], chunks["language"], strict=True)).values()) == labels


# Resuming


class Unused(ScriptedTranscriber):
    def _take(self, audio, languages):
        raise AssertionError("everything was transcribed before")


@pytest.mark.parametrize("engine", ["transformers", "faster-whisper"])
@pytest.mark.parametrize("calls_before_interrupt", [0, 1, 2, 3])
def test_an_interrupted_run_resumes_where_it_stopped(lectures, tmp_path, engine, calls_before_interrupt):
    whole, report = ScriptedTranscriber(SCRIPT, engine=engine), LabellingReport()
    expected = label_recordings(lectures, whole, batch_size=2, report=report)
    shards = tmp_path / "shards"
    first = ScriptedTranscriber(SCRIPT, engine=engine, calls_before_interrupt=calls_before_interrupt)
    with pytest.raises(KeyboardInterrupt):
        label_recordings(lectures, first, batch_size=2, shards_dir=shards)
    second, resumed, done = ScriptedTranscriber(SCRIPT, engine=engine), LabellingReport(), []
    chunks = label_recordings(
        lectures, second, batch_size=2, shards_dir=shards, report=resumed, on_progress=done.append
    )
    assert first.calls + second.calls == whole.calls
    assert chunks[:] == expected[:]
    assert resumed == report
    assert sum(done) == 4
    third = label_recordings(lectures, Unused(SCRIPT, engine=engine), batch_size=3, shards_dir=shards)
    assert third[:] == expected[:]


class EndlessFirst(ScriptedTranscriber):
    """Is not done with the first recording, of 10 s, until it is stopped."""

    def transcribe(self, audio, languages=None):
        while self.calls_at_once > 1 and len(audio[0]) == 10 * 16000:
            check_cancelled()
        return super().transcribe(audio, languages)


def test_what_is_done_beside_a_long_recording_outlives_an_interruption(tmp_path):
    lengths = {"a.wav": 10, "b.wav": 40, "c.wav": 7, "d.wav": 5}
    lectures = Dataset.from_dict({"recording": [make(tmp_path, name, seconds) for name, seconds in lengths.items()]})
    shards, done = tmp_path / "shards", []

    def interrupt(count):
        done.append(count)
        if sum(done) == 3:
            raise KeyboardInterrupt

    teacher = EndlessFirst(SCRIPT, calls_at_once=2)
    with pytest.raises(KeyboardInterrupt):
        label_recordings(lectures, teacher, shards_dir=shards, on_progress=interrupt)
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]
    keys = [key for path in shards.glob("*.parquet") for key in parquet.read_table(path)["key"].to_pylist()]
    assert sorted(key.split(".wav ")[0][-1] for key in keys) == list("bcd")
    rest = EndlessFirst(SCRIPT)
    assert texts(label_recordings(lectures, rest, shards_dir=shards))[0] == LECTURES[0]
    assert rest.calls == [[10.0]]


def test_a_file_that_changed_or_was_repaired_is_labelled_anew(lectures, tmp_path):
    shards, broken = tmp_path / "shards", tmp_path / "c.ogg"
    broken.write_bytes(b"not audio")
    report = LabellingReport()
    label_recordings(lectures, ScriptedTranscriber(SCRIPT), shards_dir=shards, report=report)
    assert [entry["reason"] for entry in report.skipped] == ["not audio"]
    make(tmp_path, "c.ogg", 7)
    make(tmp_path, "d.wav", 40)
    teacher = ScriptedTranscriber(SCRIPT)
    chunks = label_recordings(lectures, teacher, shards_dir=shards)
    assert teacher.calls == [[7.0], [40.0]]
    assert texts(chunks) == [*LECTURES[:4], ("d.wav", "一二"), ("d.wav", "三")]


def test_another_packing_needs_no_teacher(lectures, tmp_path):
    label_recordings(lectures, ScriptedTranscriber(SCRIPT), shards_dir=tmp_path / "j")
    chunks = label_recordings(lectures, Unused(SCRIPT), shards_dir=tmp_path / "j", max_duration=15.0)
    assert max(chunks["duration"]) <= 15.0


def test_shards_of_other_settings_are_an_error(lectures, tmp_path):
    label_recordings(lectures, ScriptedTranscriber(SCRIPT), shards_dir=tmp_path / "j")
    with pytest.raises(K2DError, match=r"other settings \(language None, now 'zh'\): delete it to start anew"):
        label_recordings(lectures, ScriptedTranscriber(SCRIPT, language="zh"), shards_dir=tmp_path / "j")


def test_recordings_that_come_before_others_cost_nothing_but_themselves(lectures, tmp_path):
    shards = tmp_path / "shards"
    label_recordings(lectures.select([1, 3]), ScriptedTranscriber(SCRIPT), shards_dir=shards, shard_size=2)
    teacher = ScriptedTranscriber(SCRIPT)
    assert texts(label_recordings(lectures, teacher, shards_dir=shards, shard_size=3)) == LECTURES
    assert teacher.calls == [[10.0], [7.0]]


def test_a_damaged_shard_is_passed_over_and_done_again(lectures, tmp_path, caplog):
    label_recordings(lectures, ScriptedTranscriber(SCRIPT), shards_dir=tmp_path / "s", shard_size=4)
    (shard,) = (tmp_path / "s").glob("*.parquet")
    shard.write_bytes(shard.read_bytes()[:-100])
    teacher = ScriptedTranscriber(SCRIPT)
    assert texts(label_recordings(lectures, teacher, shards_dir=tmp_path / "s", shard_size=4)) == LECTURES
    assert len(teacher.calls) == 4
    assert f"{shard}: skipped a damaged shard" in caplog.text


# A real model


@pytest.mark.parametrize(("engine", "cores"), [("transformers", 1), ("faster-whisper", 1), ("faster-whisper", 2)])
def test_a_checkpoint_labels_a_folder(tmp_path, processor, engine, cores, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    teacher = write_scripted_whisper(
        tmp_path / "teacher", processor, (8.0, "今天講 machine learning"), (20.0, "很重要")
    )
    (tmp_path / "in").mkdir()
    for name, seconds in (("a.wav", 22), ("b.wav", 37)):
        make(tmp_path / "in", name, seconds)
    settings = {"engine": engine, "language": "zh", "beam_size": 1, "condition_on_previous_text": False}
    report = LabellingReport()
    chunks = label_recordings(
        load_recordings(tmp_path / "in"), teacher, **settings, shards_dir=tmp_path / "shards", report=report
    )
    both = "今天講 machine learning很重要"
    assert texts(chunks) == [("a.wav", both), ("b.wav", both), ("b.wav", "今天講 machine learning")]
    assert chunks["duration"][:] == [20.0, 20.0, 7.0]
    assert chunks["previous_text"][:] == [None, None, both]
    assert [(span["start"], span["reason"]) for span in report.left_out] == [
        (37.0, "past the end"),
        (38.0, "past the end"),
    ]
    (tmp_path / "teacher" / "model.safetensors").rename(tmp_path / "gone")
    with pytest.raises(K2DError):  # the shards are of a teacher that is no longer there
        label_recordings(load_recordings(tmp_path / "in"), teacher, **settings, shards_dir=tmp_path / "shards")


@pytest.mark.parametrize(("fallback", "decodings"), [(True, 6), (False, 1)])
def test_a_window_beyond_the_thresholds_is_decoded_again_by_default(
    tmp_path, processor, fallback, decodings, monkeypatch
):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    teacher = write_scripted_whisper(tmp_path / "teacher", processor, (8.0, "好" * 40))
    calls = []
    generate = faster_whisper_engine._Reproducible.generate

    def counted(*arguments, **options):
        calls.append(options)
        return generate(*arguments, **options)

    monkeypatch.setattr(faster_whisper_engine._Reproducible, "generate", counted)
    (tmp_path / "in").mkdir()
    make(tmp_path / "in", "a.wav", 20)
    settings = {"engine": "faster-whisper", "language": "zh", "temperature_fallback": fallback}
    chunks = label_recordings(load_recordings(tmp_path / "in"), teacher, **settings)
    assert chunks["text"][0].startswith("好好好好好好好")
    assert len(calls) == decodings
