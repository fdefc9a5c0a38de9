"""Disturbed audio for the student: deterministic, of the clean audio's label, and never the teacher's."""

import copy

import numpy as np
import pytest
import torch

from distillation.tiny_training import another, trainer_for
from k2d_hf import K2DDataCollator
from k2d_hf.distillation.batches import augmentation
from k2d_hf.distillation.batches.augmentation import DISTURBED, disturb, mask
from k2d_hf.distillation.targets.targets import add_soft_targets


def tone(seconds=2.0, frequency=1000.0, amplitude=0.1):
    times = np.arange(int(seconds * 16000)) / 16000
    return (amplitude * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


@pytest.fixture
def alone(monkeypatch):
    """One kind of disturbance, by its place among them, and no other."""

    class Draws:
        def __init__(self, place, generator):
            self.place, self.generator = place, generator

        def random(self, size=None):
            if size == 5:
                return np.array([0.0 if at == self.place else 1.0 for at in range(5)])
            return self.generator.random(size)

        def __getattr__(self, name):
            return getattr(self.generator, name)

    def choose(place):
        own = augmentation._generator
        monkeypatch.setattr(augmentation, "_generator", lambda seed: Draws(place, own(seed)))

    return choose


def decibel(audio):
    return 20 * np.log10(np.sqrt(np.mean(np.square(audio))))


def test_a_seed_gives_the_same_and_another_seed_another():
    audio = tone()
    outcomes = {disturb(audio, str(seed), keep_times=False).tobytes() for seed in range(20)}
    assert len(outcomes) > 15
    assert disturb(audio, "7", keep_times=False).tobytes() == disturb(audio, "7", keep_times=False).tobytes()
    assert np.array_equal(audio, tone())


@pytest.mark.parametrize("keep_times", [False, True])
def test_disturbed_audio_is_audio_of_at_most_a_window(keep_times):
    for audio in (tone(30.0, amplitude=0.9), tone(0.01), np.zeros(16000, np.float32), np.zeros(0, np.float32)):
        for seed in map(str, range(12)):
            disturbed = disturb(audio, seed, keep_times=keep_times)
            assert disturbed.dtype == np.float32
            assert np.isfinite(disturbed).all()
            assert np.abs(disturbed).max(initial=0) <= 1
            assert len(disturbed) <= 30 * 16000
            if keep_times:
                assert len(disturbed) == len(audio)


def test_speed_moves_the_pitch_and_only_where_times_may_change(alone):
    alone(0)
    audio = tone()
    disturbed = disturb(audio, "a", keep_times=False)
    ratio = len(audio) / len(disturbed)
    assert 0.9 <= ratio <= 1.1
    assert ratio != 1
    peak = np.abs(np.fft.rfft(disturbed)).argmax() * 16000 / len(disturbed)
    assert peak == pytest.approx(1000 * ratio, abs=2)
    assert np.array_equal(disturb(audio, "a", keep_times=True), audio)


def test_a_room_goes_on_after_the_sound_and_is_as_loud(alone):
    alone(1)
    audio = np.concatenate([tone(1.0), np.zeros(16000, np.float32)])
    disturbed = disturb(audio, "a", keep_times=True)
    assert decibel(disturbed) == pytest.approx(decibel(audio), abs=0.1)
    assert np.abs(disturbed[16010:16400]).max() > 1e-3
    assert np.abs(disturbed[-3000:]).max() < 1e-4


def test_noise_lies_within_its_ratio(alone):
    alone(2)
    for seed in "abcdef":
        noise = disturb(tone(), seed, keep_times=True) - tone()
        assert 5 <= decibel(tone()) - decibel(noise) <= 30.1


def test_a_telephone_lets_its_band_through(alone):
    alone(3)
    both = tone(frequency=1000.0) + tone(frequency=5000.0)
    np.testing.assert_allclose(disturb(both, "a", keep_times=True), tone(frequency=1000.0), atol=1e-4)


def test_gain_changes_the_loudness_alone(alone):
    alone(4)
    disturbed = disturb(tone(), "a", keep_times=True)
    change = decibel(disturbed) - decibel(tone())
    assert -12 <= change <= 6
    np.testing.assert_allclose(disturbed, tone() * 10 ** (change / 20), rtol=1e-3, atol=1e-6)


def test_masks_are_whole_frames_and_whole_bins_at_the_mean():
    features = np.random.default_rng(0).normal(size=(80, 3000)).astype(np.float32)
    before, seen = features.copy(), 0
    for seed in map(str, range(20)):
        changed = mask(features, seed) != before
        frames, bins = changed.all(axis=0), changed.all(axis=1)
        assert np.array_equal(changed, frames[None, :] | bins[:, None])
        assert frames.sum() <= 2 * augmentation.MASKED_FRAMES
        assert bins.sum() <= 2 * augmentation.MASKED_BINS * 80
        seen += bool(changed.any())
    assert seen > 10
    assert np.array_equal(features, before)


def test_draws_go_round_the_copies_and_depend_on_chunk_and_seed_alone(chunks, processor):
    rows = list(chunks)
    collator = K2DDataCollator(processor, language="zh", augment=0.6, augment_copies=2, timestamp_probability=0.0)

    def features(rows, epoch):
        collator.epoch = epoch
        return collator(rows)["input_features"]

    assert torch.equal(features(rows, 0), features(rows, 2))
    assert not torch.equal(features(rows, 0), features(rows, 1))
    assert torch.equal(features(rows, 1)[3:4], features(rows[3:4], 1))
    clean = K2DDataCollator(processor, language="zh", timestamp_probability=0.0)(rows)
    collator.epoch = 0
    disturbed = collator(rows)
    assert torch.equal(disturbed["labels"], clean["labels"])
    same = [torch.equal(*pair) for pair in zip(disturbed["input_features"], clean["input_features"], strict=True)]
    assert 0 < sum(same) < len(same)
    assert torch.equal(collator.for_evaluation()(rows)["input_features"], clean["input_features"])
    assert "clean_features" not in disturbed


def test_targets_are_of_the_clean_audio_and_not_made_anew(tiny_whisper, chunks, processor):
    plain = K2DDataCollator(processor, language="zh")
    augmenting = K2DDataCollator(processor, language="zh", augment=1.0)
    assert plain.label_settings() == augmenting.label_settings()
    one, other = (add_soft_targets(chunks, tiny_whisper, collator, k=4) for collator in (plain, augmenting))
    assert one[:] == other[:]


def losses(folder, student, chunks, processor, **settings):
    trainer = trainer_for(
        student,
        chunks,
        processor,
        folder,
        **{"augment": 0.7, "max_steps": 6, "learning_rate": 1e-3, "augment_copies": 2, **settings},
    )
    trainer.train()
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_states_on_disk_give_what_the_encoder_gives(tiny_whisper, chunks, processor, tmp_path):
    """Disturbed and clean ones, for a student that shares the teacher's encoder."""
    trained = {}
    for kept in (True, False):
        student = copy.deepcopy(tiny_whisper).requires_grad_(True)
        settings = {"teacher_model": tiny_whisper, "keep_encoder_states": kept}
        trainer, trained[kept] = losses(tmp_path / str(kept), student, chunks, processor, **settings)
        assert trainer.shares_encoder
        assert (trainer.data_collator.encoder_states is not None) == kept
    assert trained[True] == pytest.approx(trained[False], rel=2e-3)


@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_the_teacher_takes_the_clean_audio(tiny_whisper, chunks, processor, tmp_path, freeze_encoder):
    """Online it gives what was stored of it, which is of the clean audio."""
    stored = add_soft_targets(chunks, tiny_whisper, K2DDataCollator(processor, language="zh"), kind="hidden")
    settings = {"freeze_encoder": freeze_encoder, "freeze_embeddings": True}
    _, online = losses(
        tmp_path / "a",
        copy.deepcopy(tiny_whisper).requires_grad_(True),
        chunks,
        processor,
        teacher_model=tiny_whisper,
        **settings,
    )
    _, offline = losses(tmp_path / "b", copy.deepcopy(tiny_whisper).requires_grad_(True), stored, processor, **settings)
    assert online == pytest.approx(offline, rel=2e-3)
    _, clean = losses(
        tmp_path / "c",
        copy.deepcopy(tiny_whisper).requires_grad_(True),
        stored,
        processor,
        **{**settings, "augment": 0.0},
    )
    assert clean != pytest.approx(offline, rel=2e-3)


def test_with_on_policy_steps_the_teacher_judges_on_clean_audio(tiny_whisper, chunks, processor, tmp_path):
    trainer, found = losses(
        tmp_path, another(tiny_whisper), chunks, processor, teacher_model=tiny_whisper, on_policy=1.0
    )
    assert len(found) == 6
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["clean_features"].shape == batch["input_features"].shape


def test_inputs_hold_every_copy_once_or_more(chunks, processor):
    collator = K2DDataCollator(processor, language="zh", augment=0.5, augment_copies=3)
    chunk = dict(chunks[0])
    given = {str(row.get(DISTURBED)) for row in collator.inputs(chunk)}
    for epoch in range(6):
        for timestamps in (False, True):
            assert str(collator._input(chunk, timestamps, epoch % 3).get(DISTURBED)) in given
