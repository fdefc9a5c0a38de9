"""The trainer's frozen encoder, run once: the same loss, no second pass, and off where it does not pay."""

import logging

import pytest
import torch

from distillation.tiny_training import another, trainer_for
from k2d_hf import create_student
from k2d_hf.distillation.targets import encoder_states


@pytest.fixture
def train(tiny_whisper, chunks, processor, tmp_path):
    """Train a fresh student with its encoder states kept."""

    def run(**settings):
        student = settings.pop("student", None) or create_student(tiny_whisper, language="zh")
        settings = {"keep_encoder_states": True, "num_train_epochs": 2, "per_device_train_batch_size": 4, **settings}
        trainer = trainer_for(student, chunks, processor, tmp_path, teacher_model=tiny_whisper, **settings)
        trainer.train()
        return trainer

    return run


@pytest.fixture
def encoded(monkeypatch):
    """Sizes of the batches that the trainer runs through an encoder by itself."""
    sizes, encode = [], encoder_states.encode

    def counting(model, features):
        sizes.append(len(features))
        return encode(model, features)

    monkeypatch.setattr(encoder_states, "encode", counting)
    return sizes


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_states_on_disk_give_the_same_loss_within_half_precision(train):
    kept, fresh = train(), train(keep_encoder_states=False)
    assert kept.data_collator.encoder_states is not None
    assert fresh.data_collator.encoder_states is None
    assert losses(kept) == pytest.approx(losses(fresh), rel=2e-3)
    assert losses(kept) != losses(fresh)


def test_states_are_counted_as_they_are_written_and_a_bar_shows_them_to_who_asks_for_none(
    tiny_whisper, chunks, processor, tmp_path, capsys, bars
):
    settings = {"keep_encoder_states": True, "per_device_train_batch_size": 4, "num_train_epochs": 2}

    def train_once(name, told, **more):
        student = create_student(tiny_whisper, language="zh")
        settings["encoder_states_dir"] = str(tmp_path / name)
        trainer = trainer_for(student, chunks, processor, tmp_path, teacher_model=tiny_whisper, **settings, **more)
        trainer.on_encoder_states = told
        trainer.train()
        return "Encoder states" in capsys.readouterr().err

    counts = []
    assert not train_once("told", counts.append, disable_tqdm=False)
    assert counts == [4, 4]
    assert train_once("bar", None, disable_tqdm=False)
    assert not train_once("quiet", None, disable_tqdm=True)


def test_each_chunk_is_encoded_once_and_found_again_by_the_next_run(train, encoded, tmp_path):
    train()
    assert encoded == [4, 4]
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(files) == 8
    encoded.clear()
    train(num_train_epochs=3)
    assert encoded == []
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")} == files


def test_what_an_interrupted_run_left_is_not_encoded_again(train, encoded, tmp_path):
    train()
    for path in sorted(tmp_path.rglob("*.npy"))[:3]:
        path.unlink()
    encoded.clear()
    train()
    assert encoded == [3]


def test_another_student_of_the_same_teacher_finds_them(train, encoded, tiny_whisper):
    train()
    encoded.clear()
    train(student=create_student(tiny_whisper, decoder_layers=3))
    assert encoded == []


def test_they_lie_where_a_push_leaves_them_out(train, tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    train()
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.npy")]
    assert paths
    assert list(filter_repo_objects(paths, ignore_patterns=["_*"])) == []


def test_they_may_lie_elsewhere(train, tmp_path):
    train(encoder_states_dir=str(tmp_path / "states"))
    assert len(list((tmp_path / "states").rglob("*.npy"))) == 8
    assert not (tmp_path / "_encoder_states").exists()


def test_evaluation_and_prediction_read_audio(train, chunks):
    trainer = train(eval_dataset=chunks, eval_strategy="epoch")
    other = chunks.map(lambda chunk: {"start": chunk["start"] + 0.25})
    assert trainer.predict(other).metrics["test_loss"] > 0
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"num_train_epochs": 1}, "no chunk is seen twice"),
        ({"max_steps": 2}, "no chunk is seen twice"),
        ({"freeze_encoder": False}, "the student's encoder is trained"),
        ({"auxiliary_weight": 0.5}, "the auxiliary's encoder runs in every epoch anyway"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_where_they_do_not_pay_they_are_off_and_a_line_says_so(train, tiny_whisper, tmp_path, caplog, settings, why):
    caplog.set_level(logging.INFO)
    if "auxiliary_weight" in settings:
        settings = {**settings, "auxiliary_model": another(tiny_whisper), "max_steps": 4}
    train(**settings)
    assert f"encoder states are not kept: {why}" in caplog.text
    assert list(tmp_path.rglob("*.npy")) == []


def test_more_steps_than_an_epoch_has_are_several_epochs(train, encoded):
    train(max_steps=3)
    assert encoded == [4, 4]


def test_where_the_disk_is_too_small_they_are_off_and_a_warning_says_so(train, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("k2d_hf.distillation.targets.encoder_states.SHARE_OF_DISK", 0.0)
    train()
    assert "so the encoder runs in every epoch: 8 chunks need 0.0 GB" in caplog.text
    assert list(tmp_path.rglob("*.npy")) == []


def test_states_that_are_there_need_no_room(train, encoded, monkeypatch):
    train()
    encoded.clear()
    monkeypatch.setattr("k2d_hf.distillation.targets.encoder_states.SHARE_OF_DISK", 0.0)
    trainer = train()
    assert encoded == []
    assert trainer.data_collator.encoder_states is not None


def test_under_bfloat16_they_are_kept_too(train, tmp_path):
    trainer = train(bf16=True, max_steps=3)
    assert len(list(tmp_path.rglob("*.npy"))) == 8
    assert all(torch.isfinite(torch.tensor(losses(trainer))))
