"""A warning of a student that writes Chinese in another script than its labels."""

import logging

import pytest

from k2d_hf.scoring.scripts import to_script
from tests.distillation.tiny_training import another, trainer_for

MODULE = "k2d_hf.distillation.label_script"
ALONE = {"kl_weight": 0.0, "timestamp_probability": 0.0, "previous_text_probability": 0.0}


def in_script(chunks, script):
    """The chunks with all their texts in one script."""

    def convert(chunk):
        text = to_script([chunk["text"]], script)[0]
        return {
            "text": text,
            "segments": [{**one, "text": to_script([one["text"]], script)[0]} for one in chunk["segments"]],
        }

    return chunks.map(convert)


@pytest.fixture(scope="module")
def traditional(chunks):
    """Four chunks whose labels are traditional."""
    return in_script(chunks.select([0, 2, 4, 6]), "traditional")


@pytest.fixture(scope="module")
def writes_traditional(loaded_tiny_whisper, traditional, processor, tmp_path_factory):
    """A student that has begun to learn these chunks by heart."""
    student = another(loaded_tiny_whisper)
    settings = {**ALONE, "max_steps": 25, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    trainer_for(student, traditional, processor, tmp_path_factory.mktemp("learning"), **settings).train()
    return student


@pytest.fixture
def warnings_of(writes_traditional, processor, tmp_path, caplog):
    """What a step of training with some chunks warns of."""

    def step(chunks, student=writes_traditional, **settings):
        trainer = trainer_for(student, chunks, processor, tmp_path, **{**ALONE, "max_steps": 1, **settings})
        with caplog.at_level(logging.WARNING, MODULE):
            trainer.train()
        assert (trainer.data_collator.encoder_states is not None) == settings.get("keep_encoder_states", False)
        return [record.message for record in caplog.records if record.name == MODULE]

    return step


@pytest.mark.parametrize("on_disk", [False, True])
def test_labels_in_the_other_script_are_warned_of(warnings_of, traditional, on_disk):
    (line,) = warnings_of(in_script(traditional, "simplified"), keep_encoder_states=on_disk, max_steps=4)
    assert line.startswith("the student writes traditional characters and its labels are simplified (cross-entropy ")
    assert line.endswith("its first steps go into the script; set label.script: traditional")


def test_labels_in_its_own_script_are_not(warnings_of, traditional):
    assert warnings_of(traditional) == []


def test_a_student_that_writes_nothing_yet_has_no_script(warnings_of, traditional, tiny_whisper):
    assert warnings_of(in_script(traditional, "simplified"), student=another(tiny_whisper, seed=3)) == []


def test_labels_without_chinese_have_no_script(warnings_of, traditional):
    plain = {"text": "Let us look", "segments": [{"start": 0.0, "end": 1.0, "text": "Let us look"}]}
    assert warnings_of(traditional.map(lambda chunk: plain)) == []


def test_a_stream_is_read_once(warnings_of, traditional):
    assert warnings_of(in_script(traditional, "simplified").to_iterable_dataset()) == []
