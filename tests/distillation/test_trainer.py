"""K2DTrainer's loss against the formula, written plainly in float64 over all logits of the models."""

import copy

import pytest
import torch

from distillation.tiny_training import another, log_probabilities, plain_loss, trainer_for
from k2d_hf import create_student
from k2d_hf.errors import K2DError

LOSSES = {
    "paper": {},
    "ce alone": {"ce_weight": 1.0, "kl_weight": 0.0},
    "kl alone": {"ce_weight": 0.0, "kl_weight": 1.0},
    "auxiliary alone": {"ce_weight": 0.0, "kl_weight": 0.0, "auxiliary_weight": 1.0},
    "all three": {"ce_weight": 0.5, "kl_weight": 0.7, "auxiliary_weight": 0.3, "temperature": 1.5},
}


@pytest.fixture
def models(tiny_whisper):
    """Student, teacher and auxiliary; the student is made of the teacher and has learnt a little."""
    student = create_student(tiny_whisper, language="zh")
    with torch.no_grad():
        for parameter in student.model.decoder.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    auxiliary = another(tiny_whisper, encoder_layers=1, decoder_layers=1)
    return {"student": student, "teacher": tiny_whisper, "auxiliary": auxiliary}


def build(models, chunks, processor, folder, **settings):
    """A trainer with the models that its weights ask for."""
    given = {"teacher_model": models["teacher"], "auxiliary_model": models["auxiliary"]}
    return trainer_for(models["student"], chunks, processor, folder, **given, **settings)


def expected_loss(trainer, models, batch):
    """Loss by token as the formula has it."""
    w = trainer.loss_weights
    total, tokens = plain_loss(
        batch,
        models["student"],
        models["teacher"] if w.kl else None,
        models["auxiliary"] if w.auxiliary else None,
        ce=w.ce,
        kl=w.kl,
        auxiliary_weight=w.auxiliary,
        temperature=w.temperature,
    )
    return total / tokens


@pytest.mark.parametrize("prompt", [0.0, 1.0], ids=["no prompt", "prompt"])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_formula(models, chunks, processor, tmp_path, loss, prompt):
    trainer = build(models, chunks, processor, tmp_path, previous_text_probability=prompt, **LOSSES[loss])
    batch = trainer.data_collator([chunks[0], chunks[2], chunks[3]])
    value = trainer.compute_loss(trainer.model, batch).item()
    assert value == pytest.approx(expected_loss(trainer, models, batch), rel=1e-5)


@pytest.mark.parametrize("loss", ["paper", "all three"])
def test_with_chunk_weights_the_loss_is_the_formula(models, chunks, processor, tmp_path, loss):
    trainer = build(models, chunks, processor, tmp_path, chunk_weighting="soft", **LOSSES[loss])
    batch = trainer.data_collator([chunks[1], chunks[7]])
    assert batch["chunk_weights"].tolist() == pytest.approx([0.9, 0.3])
    value = trainer.compute_loss(trainer.model, batch).item()
    assert value == pytest.approx(expected_loss(trainer, models, batch), rel=1e-5)


@pytest.mark.parametrize("freeze", [True, False])
def test_bug_02_encoders_of_equal_size_and_other_weights_are_not_shared(models, chunks, processor, tmp_path, freeze):
    with torch.no_grad():
        models["student"].model.encoder.layers[0].fc1.weight.add_(0.05)
    trainer = build(models, chunks, processor, tmp_path, freeze_encoder=freeze)
    batch = trainer.data_collator([chunks[0], chunks[5]])
    assert not trainer.shares_encoder
    value = trainer.compute_loss(trainer.model, batch).item()
    assert value == pytest.approx(expected_loss(trainer, models, batch), rel=1e-5)


def test_an_encoder_that_is_trained_is_not_shared(models, chunks, processor, tmp_path):
    trainer = build(models, chunks, processor, tmp_path, freeze_encoder=False)
    trainer.compute_loss(trainer.model, trainer.data_collator([chunks[0]])).backward()
    assert not trainer.shares_encoder
    assert float(models["student"].model.encoder.layers[0].fc1.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("weighting", ["hard", "soft"])
def test_the_encoders_distance_counts_once_a_token(models, chunks, processor, tmp_path, tiny_whisper, weighting):
    models["student"] = another(tiny_whisper, encoder_layers=1)
    settings = {"freeze_encoder": False, "encoder_weight": 0.5, "chunk_weighting": weighting}
    trainer = build(models, chunks, processor, tmp_path, **settings)
    batch = trainer.data_collator([chunks[1], chunks[7]])
    states = [
        copy.deepcopy(models[name]).double().model.encoder(batch["input_features"].double()).last_hidden_state
        for name in ("student", "teacher")
    ]
    tokens = (batch["labels"] != -100).sum(1)
    each = (states[0] - states[1]).square().mean(dim=(1, 2)) * tokens
    weights = batch.get("chunk_weights", torch.ones(2))
    expected = expected_loss(trainer, models, batch) + 0.5 * float((each * weights).sum()) / int(tokens.sum())
    sums = trainer.loss_sums(trainer.model, batch)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, rel=1e-5)
    assert float(sums.encoder_mse) == pytest.approx(float(each.sum()), rel=1e-5)


def test_an_encoder_that_has_lost_layers_comes_nearer_to_the_teachers(models, chunks, processor, tmp_path):
    models["student"] = create_student(models["teacher"], encoder_layers=1)
    settings = {"freeze_encoder": False, "encoder_weight": 1.0, "ce_weight": 0.0, "kl_weight": 0.0}
    trainer = build(models, chunks, processor, tmp_path, learning_rate=1e-3, max_steps=8, **settings)
    trainer.train()
    distances = [entry["encoder_mse"] for entry in trainer.state.log_history if "encoder_mse" in entry]
    assert distances[-1] < 0.8 * distances[0]


def test_what_is_masked_for_the_student_the_teacher_hears(models, chunks, processor, tmp_path):
    trainer = build(models, chunks, processor, tmp_path, freeze_encoder=False)
    batch = trainer.data_collator([chunks[0]])
    whole = batch["input_features"].clone()
    clear = trainer.compute_loss(trainer.model.train(), batch).item()
    models["student"].config.update({"apply_spec_augment": True, "mask_time_prob": 0.5, "mask_time_length": 4})
    masked = trainer.compute_loss(trainer.model, batch).item()
    assert masked != pytest.approx(clear, rel=1e-4)
    assert torch.equal(batch["input_features"], whole)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"encoder_weight": 1.0}, "freeze_encoder"), ({"encoder_weight": 1.0, "freeze_encoder": False}, "dimensions")],
)
def test_encoders_that_cannot_come_nearer_are_named(models, chunks, processor, tmp_path, settings, named):
    models["teacher"] = another(models["teacher"], d_model=8, encoder_attention_heads=2, decoder_attention_heads=2)
    with pytest.raises(K2DError, match=named):
        build(models, chunks, processor, tmp_path, **settings)


def test_a_shared_encoder_runs_once(models, chunks, processor, tmp_path):
    trainer = build(models, chunks, processor, tmp_path)
    runs = []
    for name in ("student", "teacher"):
        models[name].model.encoder.register_forward_hook(lambda *_, name=name: runs.append(name))
    trainer.compute_loss(trainer.model, trainer.data_collator([chunks[0]]))
    assert (trainer.shares_encoder, runs) == (True, ["student"])


def test_a_teacher_from_a_checkpoint_holds_no_second_encoder(models, chunks, processor, tmp_path, tiny_whisper_dir):
    models["teacher"] = str(tiny_whisper_dir)
    trainer = build(models, chunks, processor, tmp_path)
    assert trainer.teacher.model.encoder is models["student"].model.encoder


@pytest.mark.parametrize("shared", [True, False])
def test_bug_01_student_and_teacher_see_the_same_inputs_under_a_prompt(
    tiny_whisper, chunks, processor, tmp_path, shared
):
    student = copy.deepcopy(tiny_whisper)
    settings = {"ce_weight": 0.0, "previous_text_probability": 1.0, "freeze_encoder": shared}
    trainer = trainer_for(student, chunks, processor, tmp_path, teacher_model=tiny_whisper, **settings)
    batch = trainer.data_collator([chunks[1], chunks[5]])
    assert trainer.shares_encoder is shared
    assert (batch["decoder_input_ids"][:, 0] == 50361).all()
    sums = trainer.loss_sums(trainer.model, batch)
    assert sums.kl.item() == pytest.approx(0, abs=1e-4)
    assert int(sums.agreement) == sums.tokens


def test_gradients_are_those_of_the_formula(models, chunks, processor, tmp_path):
    trainer = build(models, chunks, processor, tmp_path, previous_text_probability=1.0)
    batch = trainer.data_collator([chunks[1], chunks[4]])
    trainer.compute_loss(trainer.model, batch).backward()
    student = copy.deepcopy(models["student"]).double()
    target = log_probabilities(models["teacher"], batch, 2.0)
    logits = student(
        input_features=batch["input_features"].double(), decoder_input_ids=batch["decoder_input_ids"]
    ).logits
    supervised = batch["labels"] != -100
    ce = torch.nn.functional.cross_entropy(logits[supervised], batch["labels"][supervised], reduction="sum")
    kl = (target.exp() * (target - (logits / 2).log_softmax(-1)))[supervised].sum()
    ((0.8 * ce + 4 * kl) / supervised.sum()).backward()
    trained = dict(models["student"].named_parameters())
    compared = 0
    for name, parameter in student.named_parameters():
        if parameter.grad is not None and trained[name].requires_grad and float(parameter.grad.norm()) > 1e-9:
            difference = (trained[name].grad.double() - parameter.grad).norm() / parameter.grad.norm()
            assert float(difference) < 1e-4, name
            compared += 1
    assert compared > 40
    assert all(trained[name].grad is None for name in trained if name.startswith("model.encoder"))


def test_bug_11_the_loss_counts_the_tokens_of_the_whole_accumulated_batch(models, chunks, processor, tmp_path):
    trainer = build(models, chunks, processor, tmp_path)
    assert trainer.model_accepts_loss_kwargs
    batch = trainer.data_collator([chunks[0]])
    alone = trainer.compute_loss(trainer.model, batch).item()
    tokens = int((batch["labels"] != -100).sum())
    part = trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.tensor(4 * tokens)).item()
    assert part == pytest.approx(alone / 4, rel=1e-6)


@pytest.mark.parametrize(("averaged", "count"), [(True, 1), (False, 2)])
def test_on_two_devices_of_one_process_the_loss_is_that_of_the_whole_batch(
    models, chunks, processor, tmp_path, averaged, count
):
    trainer = build(models, chunks, processor, tmp_path, average_tokens_across_devices=averaged)
    batch = trainer.data_collator([chunks[0], chunks[1]])
    alone = trainer.compute_loss(trainer.model, batch).item()
    tokens = int((batch["labels"] != -100).sum())
    trainer.args._n_gpu = 2  # the Trainer then gives the tokens once a device, divided by devices unless averaged
    given = torch.full((2, 1), tokens / count)
    assert trainer.compute_loss(trainer.model, batch, num_items_in_batch=given).mean().item() == pytest.approx(alone)


@pytest.mark.parametrize("count", [None, 0, torch.tensor(0)])
def test_a_batch_without_a_supervised_token_has_loss_zero(models, chunks, processor, tmp_path, count):
    trainer = build(models, chunks, processor, tmp_path)
    batch = trainer.data_collator([chunks[0]])
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.isnan().any() for p in trainer.model.parameters() if p.grad is not None)


def test_identical_parties_have_no_divergence(tiny_whisper, chunks, processor, tmp_path):
    settings = {"ce_weight": 0.0, "auxiliary_weight": 1.0}
    others = {"teacher_model": copy.deepcopy(tiny_whisper), "auxiliary_model": copy.deepcopy(tiny_whisper)}
    trainer = trainer_for(tiny_whisper, chunks, processor, tmp_path, **others, **settings)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([chunks[0]]))
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"vocab_size": 51866}, {}, "teacher has 51866 tokens, student 51865"),
        ({"num_mel_bins": 128}, {}, "teacher has 128 mel bins, student 80"),
        (None, {}, "kl_weight is 1.0: give teacher_model"),
        (None, {"kl_weight": 0.0, "auxiliary_weight": 0.1}, "auxiliary_weight is 0.1: give auxiliary_model"),
    ],
)
def test_parties_that_do_not_fit_are_an_error_at_once(
    tiny_whisper, chunks, processor, tmp_path, changes, settings, message
):
    teacher = None if changes is None else another(tiny_whisper, **changes)
    with pytest.raises(K2DError, match=message):
        trainer_for(tiny_whisper, chunks, processor, tmp_path, teacher_model=teacher, **settings)


def test_sharding_the_student_is_an_error_at_once(models, chunks, processor, tmp_path, monkeypatch):
    monkeypatch.setattr("k2d_hf.distillation.sharding.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(K2DError, match="use FSDP, DDP or ZeRO-2"):
        build(models, chunks, processor, tmp_path)


def test_the_student_speaks_the_language_of_the_chunks(tiny_whisper, chunks, processor, tmp_path):
    student = create_student(tiny_whisper)
    trainer_for(student, chunks, processor, tmp_path, teacher_model=tiny_whisper)
    settings = student.generation_config
    assert (settings.language, settings.task, settings.forced_decoder_ids) == ("zh", "transcribe", None)
