"""Whole training runs: accumulation, logs, evaluation, resuming, adapters, workers, and what a checkpoint holds."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from transformers import (
    GenerationConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    pipeline,
)

from distillation.tiny_training import plain_loss, trainer_for
from k2d_hf import MixedErrorRate, create_student
from k2d_hf.audio.reader import read_audio
from k2d_hf.models import load_whisper, resolve_checkpoint

SGD = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}


@pytest.fixture
def train(tiny_whisper, chunks, processor, tmp_path):
    """Train a fresh student on the chunks and give the trainer; `resume` goes to `train`, all else to the trainer."""

    def run(resume=None, rows=None, **settings):
        student = create_student(tiny_whisper, language="zh")
        trainer = trainer_for(student, rows or chunks, processor, tmp_path, teacher_model=tiny_whisper, **settings)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def difference(one, other):
    """The largest difference between the weights of two trainers."""
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def logged(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


class Seen:
    """The decoder inputs that a trainer saw, by epoch, without padding."""

    def __init__(self):
        self.by_epoch = {}

    def watch(self, trainer):
        compute_loss = trainer.compute_loss

        def watching(model, inputs, **kwargs):
            epoch = int(trainer.state.epoch or 0)
            for row in inputs["decoder_input_ids"].tolist():
                self.by_epoch.setdefault(epoch, []).append(tuple(token for token in row if token != 50257))
            return compute_loss(model, inputs, **kwargs)

        trainer.compute_loss = watching


def test_bug_11_four_steps_of_two_are_one_of_eight(train):
    one = train(per_device_train_batch_size=8, max_steps=1, **SGD)
    four = train(per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=1, **SGD)
    assert difference(one, four) < 1e-6
    assert logged(four, "loss")[0] == pytest.approx(logged(one, "loss")[0], rel=1e-6)
    assert logged(four, "train_loss")[0] == pytest.approx(logged(one, "train_loss")[0], rel=1e-6)


def test_the_loss_falls_and_the_encoder_stays(train, tiny_whisper):
    trainer = train(max_steps=8, learning_rate=5e-3, per_device_train_batch_size=8, keep_encoder_states=True)
    losses = logged(trainer, "loss")
    assert losses[-1] < 0.8 * losses[0]
    encoder = trainer.model.model.encoder.state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in tiny_whisper.model.encoder.state_dict().items())


@pytest.mark.parametrize("logging_steps", [1, 3])
def test_the_logged_loss_is_the_weighted_sum_of_its_components(train, logging_steps):
    trainer = train(max_steps=3, logging_steps=logging_steps, ce_weight=0.5, kl_weight=0.7, temperature=1.5)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 3 // logging_steps
    for entry in entries:
        expected = 0.5 * entry["ce"] + 1.5**2 * 0.7 * entry["kl"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-5)
        assert 0 <= entry["agreement"] <= 1
        assert entry["tokens_per_second"] > 0
        assert "auxiliary_kl" not in entry


def test_without_a_teacher_there_is_nothing_to_agree_with(train):
    trainer = train(max_steps=1, kl_weight=0.0)
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(0.8 * entry["ce"], rel=1e-6)
    assert not {"kl", "agreement", "auxiliary_kl"} & entry.keys()


def test_an_auxiliary_alone_is_logged(tiny_whisper, chunks, processor, tmp_path):
    student = create_student(tiny_whisper)
    settings = {"ce_weight": 0.0, "kl_weight": 0.0, "auxiliary_weight": 0.5, "max_steps": 1}
    trainer = trainer_for(student, chunks, processor, tmp_path, auxiliary_model=tiny_whisper, **settings)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["loss"] == pytest.approx(0.5 * 4 * entry["auxiliary_kl"], rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_bug_10_evaluation_weighs_tokens_and_not_batches(train, tiny_whisper, chunks, batch_size):
    trainer = train(max_steps=1, eval_dataset=chunks, per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    batch = trainer.data_collator.for_evaluation()(list(chunks))
    total, tokens = plain_loss(batch, trainer.model, tiny_whisper)
    assert metrics["eval_loss"] == pytest.approx(total / tokens, rel=1e-5)
    assert metrics["eval_loss"] == pytest.approx(0.8 * metrics["eval_ce"] + 4 * metrics["eval_kl"], rel=1e-5)


def test_bug_06_evaluation_draws_never_change(train, chunks):
    trainer = train(
        num_train_epochs=3, per_device_train_batch_size=8, eval_dataset=chunks, eval_strategy="epoch", learning_rate=0.0
    )
    losses = logged(trainer, "eval_loss")
    assert len(losses) == 3
    assert losses == [losses[0]] * 3
    assert len(set(logged(trainer, "loss"))) > 1  # while those of training do


def test_generation_gives_the_mixed_error_rate(train, chunks, processor):
    settings = {"predict_with_generate": True, "generation_max_length": 20}
    trainer = train(max_steps=1, eval_dataset=chunks.select(range(3)), per_device_eval_batch_size=2, **settings)
    metrics = trainer.evaluate()
    output = trainer.predict(chunks.select(range(3)))
    texts = processor.batch_decode(output.predictions.clip(0), skip_special_tokens=True)
    texts = [text.replace("!", "") for text in texts]  # token 0, where -100 was
    expected = MixedErrorRate().compute(predictions=texts, references=[chunks[i]["text"] for i in range(3)])
    assert metrics["eval_mer"] == pytest.approx(expected["mer"])
    assert output.metrics["test_mer"] == metrics["eval_mer"]
    assert output.metrics["test_loss"] == metrics["eval_loss"]


@pytest.mark.parametrize(
    "settings",
    [
        {"per_device_train_batch_size": 4},
        {"per_device_train_batch_size": 4, "keep_encoder_states": True, "dataloader_num_workers": 1},
        {"per_device_train_batch_size": 2, "dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    ],
    ids=["no worker", "worker and states", "workers that stay"],
)
def test_bug_06_draws_follow_the_epoch_whatever_the_worker_or_batch(
    train, tiny_whisper, chunks, processor, tmp_path, settings
):
    settings = {"previous_text_probability": 0.5, "num_train_epochs": 3, **settings}
    student = create_student(tiny_whisper)
    trainer = trainer_for(student, chunks, processor, tmp_path, teacher_model=tiny_whisper, **settings)
    seen = Seen()
    seen.watch(trainer)
    trainer.train()
    trainer.callback_handler.train_dataloader.base_dataloader._iterator = (
        None  # else its workers wait for the collector
    )
    collator, drawn = trainer.data_collator, []
    for collator.epoch in range(3):
        expected = sorted(tuple(collator.example(chunk)[0]) for chunk in chunks)
        assert sorted(seen.by_epoch[collator.epoch]) == expected
        drawn.append(expected)
    assert drawn[0] != drawn[1] or drawn[1] != drawn[2]


def test_bug_06_draws_follow_the_epoch_after_a_resume(train, tiny_whisper, chunks, processor, tmp_path):
    settings = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 4}
    train(**settings, previous_text_probability=0.5)
    student = create_student(tiny_whisper)
    trainer = trainer_for(
        student, chunks, processor, tmp_path, teacher_model=tiny_whisper, previous_text_probability=0.5, **settings
    )
    seen = Seen()
    seen.watch(trainer)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    collator = trainer.data_collator
    collator.epoch = 1
    assert set(seen.by_epoch[1]) < {tuple(collator.example(chunk)[0]) for chunk in chunks}
    collator.epoch = 2
    assert sorted(seen.by_epoch[2]) == sorted(tuple(collator.example(chunk)[0]) for chunk in chunks)


def test_activation_checkpointing_changes_nothing_but_memory(train):
    plain = train(max_steps=1, per_device_train_batch_size=4, **SGD)
    checkpointed = train(max_steps=1, per_device_train_batch_size=4, gradient_checkpointing=True, **SGD)
    assert difference(plain, checkpointed) < 1e-6


def test_bfloat16_comes_near_float32(train):
    full, half = (train(max_steps=2, per_device_train_batch_size=4, bf16=bf16, **SGD) for bf16 in (False, True))
    assert logged(half, "loss") == pytest.approx(logged(full, "loss"), rel=2e-2)
    assert logged(half, "loss") != logged(full, "loss")
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("capability", "bf16", "warned"), [("AVX2", True, 1), ("AVX512", True, 0), ("AVX2", False, 0)])
def test_bfloat16_on_a_cpu_that_is_slow_at_it_is_warned_of(train, monkeypatch, caplog, capability, bf16, warned):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    train(max_steps=1, bf16=bf16, **SGD)
    assert caplog.text.count("bf16: without AVX-512") == warned


def test_adapters_train_in_the_decoder_alone_and_merge_into_a_plain_whisper(train, tiny_whisper, tmp_path):
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    trainer = train(max_steps=3, peft_config=config, gradient_checkpointing=True, learning_rate=1e-2)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trainer.shares_encoder
    assert trained
    assert all("lora_" in name and ".decoder." in name for name in trained)
    merged = trainer.model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged")
    before = create_student(tiny_whisper).state_dict()
    assert loaded.state_dict().keys() == before.keys()
    changed = {name for name, value in loaded.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.endswith(("q_proj.weight", "v_proj.weight")) and ".decoder." in name for name in changed)


@pytest.mark.parametrize("use_dora", [False, True])
def test_adapters_merge_exactly_and_their_folder_is_that_model_for_all_that_begins_with_it(train, tmp_path, use_dora):
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "fc1"], use_dora=use_dora)
    trainer = train(max_steps=3, peft_config=config, learning_rate=1e-2)
    magnitudes = [value for name, value in trainer.model.named_parameters() if "magnitude" in name]
    assert bool(magnitudes) == use_dora
    trainer.save_model(str(tmp_path / "saved"))
    expected = logits(trainer.model)
    found = resolve_checkpoint(tmp_path / "saved")  # as teacher, auxiliary and student.init are found
    assert found.origin == "adapter"
    begun = create_student(tmp_path / "saved", None, language="zh")
    before = logits(trainer.model.unload())
    for model in (load_whisper(tmp_path / "saved"), WhisperForConditionalGeneration.from_pretrained(found.path), begun):
        assert torch.allclose(logits(model), expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=1e-2)


@torch.no_grad()
def logits(model):
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    return model.eval()(input_features=features, decoder_input_ids=torch.tensor([[50258, 50260, 50359, 100]])).logits


@pytest.mark.parametrize(("chosen", "beams"), [(None, 5), (2, 2)])
def test_what_is_saved_decodes_as_openai_whisper_or_as_the_user_said(train, tmp_path, chosen, beams):
    trainer = train(max_steps=1)
    trainer.model.generation_config.num_beams = chosen
    trainer.save_model(str(tmp_path / "saved"))
    config = json.loads((tmp_path / "saved" / "generation_config.json").read_text(encoding="utf-8"))
    carried = {"num_beams": beams, "compression_ratio_threshold": 1.35, "condition_on_prev_tokens": False}
    assert config | carried == config
    assert trainer.model.generation_config.num_beams == chosen  # evaluation while it trains is as it was
    trainer.create_model_card()
    card = (Path(str(trainer.args.output_dir)) / "README.md").read_text(encoding="utf-8")
    assert f'"num_beams": {beams},' in card


def test_a_checkpoint_is_a_student_that_a_pipeline_loads(train, tmp_path, noise_file):
    train(max_steps=2, save_strategy="steps", save_steps=2)
    saved = tmp_path / "checkpoint-2"
    settings = GenerationConfig.from_pretrained(saved)
    assert (settings.language, settings.task, settings.alignment_heads) == ("zh", "transcribe", [[0, 1], [1, 1]])
    assert WhisperProcessor.from_pretrained(saved).tokenizer.convert_tokens_to_ids("<|zh|>") == 50260
    recognise = pipeline("automatic-speech-recognition", model=str(saved), device="cpu")
    audio = read_audio(noise_file, 0.0, 5.0)
    for options in ({}, {"return_timestamps": True}):
        assert isinstance(recognise(audio, generate_kwargs={"max_new_tokens": 5}, **options)["text"], str)
