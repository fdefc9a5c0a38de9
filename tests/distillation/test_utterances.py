"""Labelled utterances, as tutorials of fine-tuning have them: they train as chunks do whose times nobody knows."""

import io
import logging

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, Value

from distillation.tiny_training import trainer_for
from k2d_hf import K2DDataCollator, create_student, load_recordings
from k2d_hf.cli import main
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError

TEXTS = ("今天我們來看 attention", "這個 model", "所以 loss function 要怎麼設計呢", "然後呢")
RATE = 24000


def sound(seconds, seed):
    return np.random.default_rng(seed).integers(-9000, 9000, int(seconds * RATE)).astype(np.int16)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four utterances of 2 to 3.5 s, a file each."""
    folder = tmp_path_factory.mktemp("utterances")
    paths = []
    for index in range(4):
        paths.append(str(folder / f"clip_{index}.wav"))
        soundfile.write(paths[-1], sound(2.0 + 0.5 * index, index), RATE)
    return paths


@pytest.fixture(scope="module")
def as_labelled(files):
    """The same as chunks of recordings, with one segment each."""
    rows = []
    for index, (path, text) in enumerate(zip(files, TEXTS, strict=True)):
        seconds = 2.0 + 0.5 * index
        segments = [{"start": 0.0, "end": seconds, "text": text}]
        rows.append({"recording": path, "start": 0.0, "duration": seconds, "text": text, "segments": segments})
    return Dataset.from_list(rows)


def content(path):
    with open(path, "rb") as file:
        return file.read()


def embedded(files, **columns):
    rows = [{"audio": {"bytes": content(path), "path": path.rpartition("/")[2]}} for path in files]
    rows = Dataset.from_list(rows).cast_column("audio", Audio())
    for name, values in columns.items():
        rows = rows.add_column(name, list(values))
    return rows


def samples(files, column="text"):
    return [
        {"audio": {"array": soundfile.read(path, dtype="float32")[0], "sampling_rate": RATE}, column: text}
        for path, text in zip(files, TEXTS, strict=True)
    ]


class Rows(torch.utils.data.Dataset):
    """A data set of torch's, whose rows are made when they are asked for."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


FORMS = {
    "audio column": lambda files: embedded(files, text=TEXTS),
    "sentence": lambda files: embedded(files, sentence=TEXTS, path=files, client_id=["a"] * 4, locale=["zh"] * 4),
    "torch format": lambda files: embedded(files, transcription=TEXTS).with_format("torch"),
    "other name": lambda files: embedded(files, text=TEXTS).rename_column("audio", "speech"),
    "shuffled": lambda files: embedded(files[::-1], text=TEXTS[::-1]).select([3, 2, 1, 0]),
    "paths": lambda files: Dataset.from_dict({"audio": files, "text": TEXTS}),
    "files": lambda files: Dataset.from_dict({"audio": files, "text": TEXTS}).cast_column("audio", Audio()),
    "bytes": lambda files: Dataset.from_dict({"audio": [content(file) for file in files], "text": TEXTS}),
    "samples": lambda files: Dataset.from_list(samples(files)),
    "torch": lambda files: Rows(samples(files)),
    "stream": lambda files: embedded(files, sentence=TEXTS).to_iterable_dataset(),
    "stream of samples": lambda files: Dataset.from_list(samples(files)).to_iterable_dataset(),
    "recordings": lambda files: load_recordings(Dataset.from_dict({"audio": files, "text": TEXTS})),
}


@pytest.fixture
def train(tiny_whisper, processor, tmp_path):
    def run(rows, **settings):
        student = create_student(tiny_whisper, language="zh")
        settings = {"train_sampling_strategy": "sequential", "group_by_label_length": False, **settings}
        settings = {"per_device_train_batch_size": 2, "max_steps": 2, "shuffle_buffer": 0, **settings}
        if "teacher_model" not in settings:
            settings["teacher_model"] = tiny_whisper
        trainer = trainer_for(student, rows, processor, tmp_path, learning_rate=1e-3, **settings)
        trainer.train()
        return trainer

    return run


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def expected():
    return {}


def compare(expected, what, value):
    assert value == expected.setdefault(what, value), what


@pytest.fixture
def reference(expected, train, as_labelled):
    """What the same sounds and texts give as chunks, without timestamps."""
    if not expected:
        trainer = train(as_labelled, timestamp_probability=0.0)
        expected["losses"] = losses(trainer)
        expected["evaluated"] = trainer.evaluate(as_labelled)["eval_loss"]
    return expected


@pytest.mark.parametrize("form", FORMS)
def test_they_train_as_chunks_do_without_timestamps(reference, train, files, form):
    rows = FORMS[form](files)
    trainer = train(rows)
    compare(reference, "losses", losses(trainer))
    compare(reference, "evaluated", trainer.evaluate(FORMS[form](files))["eval_loss"])


def test_they_are_grouped_by_length_evaluated_and_predicted(train, files, tmp_path):
    rows = embedded(files, sentence=TEXTS)
    trainer = train(
        rows, eval_dataset=rows, predict_with_generate=True, generation_max_length=8, train_sampling_strategy="random",
        group_by_label_length=True,
    )  # fmt: skip
    assert "eval_mer" in trainer.evaluate()
    assert len(trainer.predict(rows).predictions) == 4


@pytest.mark.parametrize("form", ["audio column", "samples", "stream"])
def test_their_soft_targets_take_the_teachers_place(reference, train, files, tiny_whisper, processor, form, tmp_path):
    collator = K2DDataCollator(processor, language="zh")
    targets = add_soft_targets(FORMS[form](files), tiny_whisper, collator, encoder_states_dir=tmp_path / "states")
    assert all([f["timestamps"] for f in forms] == [False] for forms in targets["target_forms"])
    compare(reference, "hidden", targets["teacher_hidden"][:])
    settings = {"keep_encoder_states": True, "encoder_states_dir": str(tmp_path / "states"), "max_steps": 4}
    trainer = train(targets, teacher_model=None, **settings)
    assert trainer.stored == ["teacher"]
    assert trainer.data_collator.encoder_states is not None
    assert losses(trainer)[:2] == pytest.approx(reference["losses"], rel=2e-3)


def faulty(files):
    """Two that will do, and one of 31 s, one without text, one without sound, one that is none."""
    long = io.BytesIO()
    soundfile.write(long, np.zeros(31 * 8000, dtype=np.int16), 8000, format="WAV")
    sounds = [content(files[0]), content(files[1]), long.getvalue(), content(files[2]), None, b"this is no sound"]
    names = ["one.wav", "two.wav", "long.wav", "mute.wav", "gone.wav", "broken.wav"]
    texts = [*TEXTS[:2], "長", None, "無", "壞"]
    rows = [{"bytes": sound, "path": name} for sound, name in zip(sounds, names, strict=True)]
    kind = {"bytes": Value("binary"), "path": Value("string")}
    return Dataset.from_list([{"audio": row, "text": text} for row, text in zip(rows, texts, strict=True)]).cast_column(
        "audio", kind
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_what_cannot_be_learned_from_is_left_out_counted_and_named(train, files, caplog, streamed):
    rows = faulty(files)
    caplog.set_level(logging.INFO)
    trainer = train(rows.to_iterable_dataset() if streamed else rows)
    assert trainer.state.global_step == 2
    found = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    for name, reason in {
        "long.wav": "longer than 30 s",
        "mute.wav": "without text",
        "gone.wav": "whose audio cannot be read (no such file)",
        "broken.wav": "whose audio cannot be read (not audio)",
    }.items():
        message = f"a chunk {reason}: {name}" if streamed else f"1 chunks {reason}: {name}"
        assert f"training: left out {message}" in found or name == "broken.wav" and streamed, found
    if streamed:
        assert ", 4 have no text, no sound, or more than 30 s of it" in caplog.text
    else:
        assert len(trainer.train_dataset) == 2


def test_where_no_row_may_be_left_out_one_that_is_too_long_is_refused(train, files):
    trainer = train(faulty(files))
    with pytest.raises(K2DError, match="prediction: long.wav is an utterance longer than 30 s: leave it out") as caught:
        trainer.predict(faulty(files))
    assert "\n" not in str(caught.value)


def test_where_none_is_left_the_reasons_are_counted(train, files):
    with pytest.raises(K2DError, match=r"nothing to train on: of 2 chunks \(training\) 0 were .*, 1 longer than 30 s"):
        train(faulty(files).select([2, 3]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            {"input_features": [[0.0]], "labels": [[1]]},
            "the rows are made ready for another collator .input_features, labels.: give",
        ),
        ({"audio": ["a.wav"], "label": [1]}, "the rows have no column with text .audio, label.: rename it so"),
        ({"text": ["a"], "x": [1]}, "the rows have no column with audio .text, x.: rename it so"),
    ],
)
def test_what_is_no_utterance_is_refused_in_one_line(train, rows, message):
    for given in ({}, {"eval": True}):
        data = Dataset.from_dict(rows)
        with pytest.raises(K2DError, match=f"{'evaluation' if given else 'training'}: {message}") as caught:
            train(None if given else data, eval_dataset=data if given else None)
        assert "\n" not in str(caught.value)


def test_the_command_trains_on_them_though_nobody_validated_them(files, tiny_whisper_dir, tmp_path, capsys):
    rows = embedded(files, sentence=TEXTS)
    rows.save_to_disk(tmp_path / "data")
    rows.to_parquet(tmp_path / "data.parquet")
    for data in ("data", "data.parquet"):
        command = [
            "distil",
            str(tmp_path / data),
            "--student",
            str(tiny_whisper_dir),
            "--teacher",
            str(tiny_whisper_dir),
        ]
        options = ["--max_steps", "1", "--language", "zh", "--output", str(tmp_path / f"of {data}")]
        assert main([*command, *options]) == 0, capsys.readouterr().err
        assert (tmp_path / f"of {data}" / "model.safetensors").exists()


def test_a_row_of_ones_own_without_text_says_what_it_has(train, files):
    with pytest.raises(K2DError, match="an utterance without a name: a chunk without text .it has audio, sentence.*"):
        train(Rows(samples(files, "sentence")))
