"""Map steps: whichever way rows go through them, they are those of the three functions, and caches know what changed."""

import inspect
import logging
import os
import pickle
import shutil

import numpy as np
import pyarrow
import pytest
import soundfile
from datasets import Audio, Dataset
from datasets.fingerprint import Hasher
from distillation.tiny_training import trainer_for
from fresh_process import PythonProcess
from scripted_transcriber import ScriptedTranscriber
from scripted_whisper import write_scripted_whisper

from k2d_hf import (
    AuxiliaryHypotheses,
    K2DDataCollator,
    SoftTargets,
    TeacherHypotheses,
    create_student,
    label_recordings,
    load_recordings,
    validate_labels,
)
from k2d_hf.data.map_step import _device_of
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError
from k2d_hf.labelling.report import LabellingReport
from k2d_hf.validation.judges import JUDGES

LABEL = {"language": "zh", "engine": "transformers", "beam_size": 1, "condition_on_previous_text": False}
VALIDATE = {"engine": "transformers", "threshold": 0.5, "max_speaking_rate": 40.0}
STEPS = (TeacherHypotheses, AuxiliaryHypotheses, SoftTargets)


@pytest.fixture(scope="module")
def models(tmp_path_factory, processor):
    """A teacher that writes two segments in every window, and an auxiliary that agrees with the first."""
    folder = tmp_path_factory.mktemp("models")
    teacher = write_scripted_whisper(folder / "teacher", processor, (2.0, "今天講 machine learning"), (5.0, "很重要"))
    auxiliary = write_scripted_whisper(folder / "auxiliary", processor, (2.0, "今天講 machine learning"))
    return str(teacher), str(auxiliary)


def noise(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.05, int(seconds * 16000)).astype(np.float32)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Four recordings, the second of them of several chunks, and the last broken."""
    folder = tmp_path_factory.mktemp("recordings")
    for at, seconds in enumerate((8, 65, 6)):
        soundfile.write(folder / f"{at}.wav", noise(seconds, at), 16000)
    (folder / "broken.wav").write_text("not audio")
    return load_recordings(folder)


@pytest.fixture(scope="module")
def expected(models, recordings, processor):
    """The rows of the three functions, and what labelling reports."""
    teacher, auxiliary = models
    report = LabellingReport()
    chunks = label_recordings(recordings, teacher, report=report, **LABEL)
    validated = validate_labels(chunks, auxiliary, **VALIDATE)
    targets = add_soft_targets(validated, teacher, K2DDataCollator(processor))
    assert len(chunks) > len(recordings)
    assert any(validated["keep"])
    return chunks, validated, targets, report


@pytest.fixture
def steps(models):
    teacher, auxiliary = models
    return TeacherHypotheses(teacher, **LABEL), AuxiliaryHypotheses(auxiliary, **VALIDATE), SoftTargets(teacher)


def same(rows, expected):
    """Whether rows are equal to the last bit, and of the same types."""
    assert rows.features == expected.features
    assert rows[:] == expected[:]


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_rows_are_those_of_the_functions(steps, recordings, expected, caplog):
    teacher, auxiliary, targets = steps
    chunks = recordings.map(teacher, batched=True, batch_size=2, remove_columns=recordings.column_names)
    same(chunks, expected[0])
    assert vars(teacher.report) == vars(expected[3])
    (warning,) = warnings_in(caplog)  # batch by batch, with names
    assert warning.startswith("skipped 1 of 2 recordings of a batch: not audio: ")
    assert "broken.wav" in warning
    chunks = chunks.map(auxiliary, batched=True, batch_size=3)
    same(chunks, expected[1])
    chunks = chunks.map(targets, batched=True, batch_size=3)
    same(chunks, expected[2])
    same(chunks.map(targets, batched=True), expected[2])  # again, in the place of what is there


@pytest.mark.slow
def test_two_processes_give_the_same(steps, recordings, expected):
    rows, names = recordings, recordings.column_names
    for step, there in zip(steps, expected, strict=False):
        rows = rows.map(step, batched=True, batch_size=1, remove_columns=names, num_proc=2, with_rank=True)
        same(rows, there)
        names = None


def test_a_stream_gives_the_same(steps, recordings, expected):
    teacher, auxiliary, targets = steps
    rows = recordings.to_iterable_dataset()
    rows = rows.map(teacher, batched=True, batch_size=1, remove_columns=rows.column_names)
    rows = rows.map(auxiliary, batched=True, batch_size=2).map(targets, batched=True, batch_size=2)
    assert Dataset.from_list(list(rows), features=expected[2].features)[:] == expected[2][:]


@pytest.mark.parametrize("form", ["arrow", "numpy"])
def test_batches_of_ray_and_formatted_data_sets_give_the_same(steps, recordings, expected, form):
    teacher, auxiliary, targets = steps
    table = recordings.with_format("arrow")[:]
    given = (
        table if form == "arrow" else {name: np.array(table[name].to_pylist(), object) for name in table.schema.names}
    )
    chunks = teacher(given)
    assert isinstance(chunks, pyarrow.Table)  # whose types hold though a column is null in this batch
    assert chunks.schema == expected[0].features.arrow_schema.remove_metadata()
    assert targets(auxiliary(chunks)).to_pydict() == expected[2].with_format("arrow")[:].to_pydict()
    same(expected[0].with_format(form).map(auxiliary, batched=True).with_format(None), expected[1])


def test_utterances_of_the_hub_go_through_three_lines_to_a_student(models, processor, tmp_path, caplog):
    teacher, auxiliary = models
    for at in range(4):
        soundfile.write(tmp_path / f"{at}.wav", noise(6 + at, at), 24000 if at else 16000)
    sounds = [{"bytes": (tmp_path / f"{at}.wav").read_bytes(), "path": f"{at}.wav"} for at in range(4)]
    sounds[3]["bytes"] = np.zeros(9, np.int16).tobytes()  # no sound
    features = {"audio": sounds, "sentence": ["its own", "text", "is", "replaced"], "locale": ["zh-TW"] * 4}
    utterances = Dataset.from_dict(features).cast_column("audio", Audio(16000))

    chunks = utterances.map(
        TeacherHypotheses(teacher, **LABEL), batched=True, batch_size=2, remove_columns=utterances.column_names
    )
    chunks = chunks.map(AuxiliaryHypotheses(auxiliary, **VALIDATE), batched=True, batch_size=64)
    chunks = chunks.map(SoftTargets(teacher), batched=True)

    assert chunks.num_rows == 3  # one for each utterance but the one that cannot be decoded, which is named
    assert "3.wav" in "".join(warnings_in(caplog))
    same(
        chunks.select_columns("text"),
        label_recordings(load_recordings(utterances), teacher, **LABEL).select_columns("text"),
    )
    stream = utterances.to_iterable_dataset().cast_column("audio", Audio(decode=False))
    stream = stream.map(TeacherHypotheses(teacher, **LABEL), batched=True, remove_columns=utterances.column_names)
    assert [row["recording"] for row in stream] == chunks["recording"][:]

    student = create_student(teacher, decoder_layers=2, language="zh")
    trainer = trainer_for(student, chunks, processor, tmp_path / "student", max_steps=1, learning_rate=1e-3)
    trainer.train()
    assert trainer.stored == ["teacher"]
    assert trainer.state.global_step == 1


def test_soft_targets_take_labelled_utterances_as_they_are(models, processor, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(3, 0), 16000)
    rows = {
        "audio": [{"bytes": (tmp_path / "a.wav").read_bytes(), "path": "a.wav"}] * 2,
        "sentence": ["這個 model", "b"],
    }
    rows = Dataset.from_dict(rows).cast_column("audio", Audio())
    made = rows.map(SoftTargets(models[0], language="zh"), batched=True)
    expected = add_soft_targets(rows, models[0], K2DDataCollator(processor, language="zh"))
    assert made.features["audio"].pa_type == expected.features["audio"].pa_type
    assert made.column_names == expected.column_names
    same(made.remove_columns("audio"), expected.remove_columns("audio"))


MAPPED = """
from datasets import load_from_disk
from k2d_hf import TeacherHypotheses, AuxiliaryHypotheses, SoftTargets
LABEL, VALIDATE = {label!r}, {validate!r}
def three(data, teacher, auxiliary, threshold):
    rows = load_from_disk(data)
    steps = [TeacherHypotheses(teacher, **LABEL), AuxiliaryHypotheses(auxiliary, **dict(VALIDATE, threshold=threshold)),
             SoftTargets(teacher)]
    rows = rows.map(steps[0], batched=True, batch_size=4, remove_columns=rows.column_names)
    for step in steps[1:]:
        rows = rows.map(step, batched=True)
    return [step._loaded is not None for step in steps]
"""


@pytest.mark.slow
def test_the_cache_hits_in_another_process_until_something_changes(models, recordings, tmp_path):
    teacher, auxiliary = (shutil.copytree(model, tmp_path / f"model_{at}") for at, model in enumerate(models))
    recordings.select([0, 2]).save_to_disk(tmp_path / "data")
    run = f"result = three({str(tmp_path / 'data')!r}, {str(teacher)!r}, {str(auxiliary)!r}, {{threshold}})"
    begin = MAPPED.format(label=LABEL, validate=VALIDATE)
    here = {}
    for done in (True, False):
        exec(begin + run.format(threshold=0.5), here)
        assert here["result"] == [done] * 3
    with PythonProcess(tmp_path, OMP_NUM_THREADS="1") as second:
        second.run(begin)
        assert second.run(run.format(threshold=0.5)).result == [False, False, False]
        assert second.run(run.format(threshold=0.25)).result == [False, True, True]
        weights = auxiliary / "model.safetensors"
        state = weights.stat()
        changed = bytearray(weights.read_bytes())
        changed[-1] ^= 1  # of the last weight, in place
        weights.write_bytes(changed)
        os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert second.run(run.format(threshold=0.5)).result == [False, True, True]


OTHERS = {
    "teacher": None, "auxiliary": None, "language": "en", "engine": "faster-whisper", "beam_size": 3,
    "condition_on_previous_text": True, "temperature_fallback": False, "batch_size": 5, "device": "cuda:7",
    "dtype": "float64", "max_duration": 20.0, "silence": 0.25, "time_limit": 5.0, "metric": "mer", "threshold": 0.125,
    "normalise_by": "teacher", "unit": "segment", "keep": "mask", "no_repeat_ngram_size": 4, "kind": "top", "temperature": 3.0,
    "vad": True, "prompt": "今天講機器學習", "hotwords": "Whisper", "script": "simplified", "known_phrases": ["今天"],
    "assistant": None, "espeak_language": "es", "measures": True, "combine": "all", "weights": {"distance": 2.0},
    "more_auxiliaries": [None], "auxiliaries_by": "vote",
    "k": 7, "task": "translate", "timestamp_probability": 0.25, "previous_text_probability": 0.75, "full_windows": True,
    **{judge.setting: judge.example for judge in JUDGES},
}  # fmt: skip


NEEDS = {  # what goes with some of them
    "prompt": {"engine": "faster-whisper"},  # which gives one without the text before
    "assistant": {"engine": "transformers", "beam_size": 1, "temperature_fallback": False},
    "weights": {"combine": "sum"},
}


@pytest.mark.parametrize("step", STEPS)
def test_a_fingerprint_knows_every_setting_and_travels_without_the_model(step, models, tmp_path):
    given = {TeacherHypotheses: LABEL, AuxiliaryHypotheses: VALIDATE, SoftTargets: {}}[step]
    names = list(inspect.signature(step).parameters)
    hashes = {Hasher.hash(step(models[0], **given))}
    for name in names:
        other = [models[1]] if OTHERS[name] == [None] else OTHERS[name] or models[1]
        needs = NEEDS.get(name, {})
        settings = {**dict(zip(names[:1], models)), **given, **needs, name: other}
        hashes.add(Hasher.hash(step(**settings)))
    assert len(hashes) == 1 + len(names)
    made = step(models[0], **given)
    made.ready(None)
    if step is not SoftTargets:
        made.model.load()
    assert len(pickle.dumps(made)) < 2000
    again = pickle.loads(pickle.dumps(made))
    assert again._loaded is None
    assert Hasher.hash(again) == Hasher.hash(made)


def test_weights_that_change_under_a_loaded_model_are_read_again(models, recordings, tmp_path, processor):
    teacher = shutil.copytree(models[0], tmp_path / "teacher")
    step = TeacherHypotheses(teacher, **LABEL)
    first = recordings.select([0]).map(step, batched=True)
    write_scripted_whisper(teacher, processor, (3.0, "別的"))
    second = recordings.select([0]).map(step, batched=True)
    assert first["text"][:] == ["今天講 machine learning很重要"]
    assert second["text"][:] == ["別的"]


def test_a_segment_that_reaches_no_chunk_is_named(recordings, caplog):
    step = TeacherHypotheses(ScriptedTranscriber({6.0: [(0.0, 2.0, "a"), (3.0, 3.0, "b")]}))
    chunks = recordings.select([2]).map(step, batched=True)  # a loaded model: in this process, and without a cache
    assert chunks["text"][:] == ["a"]
    (warning,) = [line for line in warnings_in(caplog) if line.startswith("left out")]
    assert warning.endswith("2.wav 3.00 to 3.00 s, no duration")
    assert [span["reason"] for span in step.report.left_out] == ["no duration"]
    with pytest.raises(K2DError, match="a loaded model stays in its process"):
        pickle.dumps(step)


def test_an_engine_that_always_fails_stops_the_map(recordings):
    class Broken(ScriptedTranscriber):
        def transcribe(self, audio, languages=None):
            raise RuntimeError("no memory")

    many = Dataset.from_list([recordings[0]] * 12)
    with pytest.raises(K2DError, match="8 in a row could not be transcribed, the last one because: RuntimeError"):
        many.map(TeacherHypotheses(Broken({})), batched=True, batch_size=2)


def test_a_row_that_comes_twice_is_labelled_twice(steps, recordings, expected, models, tmp_path):
    twice = recordings.select([0, 0]).map(steps[0], batched=True)
    assert twice["text"][:] == [expected[0]["text"][0]] * 2
    chunks = expected[0].select([0, 0, 1])
    judged = chunks.map(steps[1], batched=True)
    assert judged[0] == judged[1] == expected[1][0]
    same(validate_labels(chunks, models[1], shards_dir=tmp_path, **VALIDATE), judged)
    same(validate_labels(chunks, models[1], shards_dir=tmp_path, **VALIDATE), judged)  # of the shard that is there


def test_what_is_no_batch_is_refused_in_one_line(steps, recordings, models):
    for rows in (recordings, recordings.to_iterable_dataset()):
        with pytest.raises(K2DError, match="a map step takes a batch of rows, not .*: give map batched=True"):
            list(rows.map(steps[0]))
    with pytest.raises(K2DError, match="the batch: no column with audio; it has text"):
        steps[0]({"text": ["a"]})
    with pytest.raises(K2DError, match="the chunks have no column recording, start, duration"):
        steps[1]({"text": ["a"]})
    with pytest.raises(K2DError, match="max_duration 40: Whisper takes at most 30 s"):
        TeacherHypotheses(models[0], max_duration=40)
    with pytest.raises(K2DError, match="kind 'all': choose one of"):
        SoftTargets(models[0], kind="all")


def test_each_process_has_the_gpu_of_its_rank(monkeypatch):
    assert _device_of("auto", 3) == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [_device_of("auto", rank) for rank in (None, 0, 1, 2)] == ["auto", "cuda:0", "cuda:1", "cuda:0"]
    assert _device_of("cpu", 1) == "cpu"
