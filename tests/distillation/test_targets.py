"""Soft targets: what is stored equals the teacher, whatever form a draw gives the label, and training needs no more."""

import copy

import numpy as np
import pytest
import torch
from datasets import load_from_disk

from distillation.tiny_training import another, log_probabilities, trainer_for
from k2d_hf import K2DDataCollator, create_student
from k2d_hf.distillation.batches.target_columns import stored_targets, without_targets
from k2d_hf.distillation.loss.losses import Head
from k2d_hf.distillation.targets import writer as targets_module
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.distillation.targets.writer import top_tokens
from k2d_hf.errors import K2DError


@pytest.fixture
def make(processor):
    """A collator with settings."""

    def build(**settings):
        defaults = {"language": "zh", "timestamp_probability": 0.5, "previous_text_probability": 0.5}
        return K2DDataCollator(processor, **{**defaults, **settings})

    return build


@pytest.fixture
def with_targets(chunks, tiny_whisper, make):
    """Chunks with targets of the tiny teacher."""

    def build(**settings):
        return add_soft_targets(chunks, tiny_whisper, make(), **{"kind": "top", "k": 8, **settings})

    return build


@pytest.fixture
def peaked(tiny_whisper):
    """A teacher that is sure of itself, as trained ones are: random weights give every token much the same chance."""
    teacher = copy.deepcopy(tiny_whisper)
    teacher.model.decoder.layer_norm.weight.data.mul_(8)
    return teacher


def train(tiny_whisper, rows, processor, folder, **settings):
    """Train a student for some steps; gives the trainer and the losses."""
    student = create_student(tiny_whisper, language="zh")
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3, **settings}
    trainer = trainer_for(student, rows, processor, folder, previous_text_probability=0.5, **settings)
    trainer.train()
    return trainer, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_top_tokens_are_those_of_the_softmax_at_the_temperature():
    generator = torch.Generator().manual_seed(0)
    head = Head(torch.randn(300, 8, generator=generator), torch.randn(50, 8, generator=generator))
    top = top_tokens(head, k=5, temperature=2.0)
    expected = (head.hidden @ head.embedding.T / 2).log_softmax(-1).topk(5)
    assert torch.equal(top.ids, expected.indices.int())
    assert (top.ids.dtype, top.logprobs.dtype) == (torch.int32, torch.float16)
    torch.testing.assert_close(top.logprobs.float(), expected.values, rtol=1e-3, atol=1e-3)


def test_columns_hold_every_form_that_a_draw_can_give(with_targets, make, chunks):
    rows, collator = with_targets(), make()
    assert rows.num_rows == chunks.num_rows
    for row in rows:
        forms = {(form["timestamps"], form["prompt"]): form["tokens"] for form in row["target_forms"]}
        prompts = [False, True] if row["previous_text"] else [False]
        assert sorted(forms) == sorted((timestamps, prompt) for timestamps in (False, True) for prompt in prompts)
        expected = {f: sum(i != -100 for i in labels) for f, (_, labels) in collator.forms(row).items()}
        assert forms == expected
        assert np.shape(row["teacher_top_ids"]) == (sum(forms.values()), 8) == np.shape(row["teacher_top_logprobs"])
        assert row["target_temperature"] == 2.0


@pytest.mark.parametrize(
    ("settings", "forms"),
    [
        ({"timestamp_probability": 0}, [(False, False), (False, True)]),
        ({"timestamp_probability": 1, "previous_text_probability": 0}, [(True, False)]),
        ({"previous_text_probability": 1}, [(False, True), (True, True)]),
    ],
)
def test_forms_that_no_draw_gives_are_not_stored(chunks, tiny_whisper, make, settings, forms):
    rows = add_soft_targets(chunks.select([1]), tiny_whisper, make(**settings), kind="top", k=4)
    assert [(form["timestamps"], form["prompt"]) for form in rows[0]["target_forms"]] == forms


@pytest.mark.parametrize("epoch", range(4))
def test_a_batch_carries_the_teachers_probabilities_in_its_own_form(with_targets, make, tiny_whisper, epoch):
    rows, collator = with_targets(), make()
    collator.epoch = epoch
    batch = collator([rows[i] for i in range(8)])
    supervised = batch["labels"] != -100
    expected = log_probabilities(tiny_whisper, batch, 2.0)[supervised]
    ids, logprobs = batch["teacher_top_ids"][supervised], batch["teacher_top_logprobs"][supervised]
    assert (ids.dtype, logprobs.dtype) == (torch.int32, torch.float16)
    torch.testing.assert_close(logprobs.double(), expected.gather(-1, ids.long()), rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(logprobs.double(), expected.topk(8).values, rtol=2e-3, atol=2e-3)


def test_the_loss_with_all_tokens_stored_is_that_of_the_teacher_online(chunks, tiny_whisper, make, processor, tmp_path):
    few, collator = chunks.select([1, 3]), make(timestamp_probability=0)
    stored = add_soft_targets(few, tiny_whisper, collator, kind="top", k=51865)
    batch = collator([stored[i] for i in range(2)])
    student = create_student(tiny_whisper, language="zh")
    online = trainer_for(student, few, processor, tmp_path, teacher_model=tiny_whisper)
    soft = trainer_for(student, stored, processor, tmp_path)
    losses = [trainer.compute_loss(trainer.model, batch).item() for trainer in (online, soft)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)  # float16 on disk


def test_training_with_targets_needs_no_teacher_and_comes_near_the_one_online(
    peaked, make, chunks, processor, tmp_path
):
    rows = add_soft_targets(chunks, peaked, make(), kind="top")
    soft, soft_losses = train(peaked, rows, processor, tmp_path / "soft")
    _, losses = train(peaked, chunks, processor, tmp_path / "online", teacher_model=peaked)
    assert soft.teacher is None
    assert soft_losses == pytest.approx(losses, rel=0.02)
    assert all(one <= other + 1e-4 for one, other in zip(soft_losses[:1], losses[:1], strict=True))  # a lower bound
    assert {"ce", "kl", "agreement"} <= set(soft.state.log_history[0])


def test_hidden_states_give_the_teachers_whole_distribution_in_every_form(chunks, tiny_whisper, make):
    rows, collator = add_soft_targets(chunks, tiny_whisper, make()), make()
    for epoch in range(3):
        collator.epoch = epoch
        batch = collator([rows[i] for i in range(8)])
        supervised = batch["labels"] != -100
        hidden = batch["teacher_hidden"][supervised]
        assert hidden.dtype == torch.float16
        logprobs = (hidden.float() @ tiny_whisper.proj_out.weight.detach().T / 2).log_softmax(-1)
        expected = log_probabilities(tiny_whisper, batch, 2.0)[supervised]
        torch.testing.assert_close(logprobs.double(), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_training_with_hidden_states_is_training_with_the_teacher_but_for_rounding(
    tiny_whisper, chunks, make, processor, tmp_path, temperature
):
    rows = add_soft_targets(chunks, tiny_whisper, make())
    settings = {"temperature": temperature, "max_steps": 4}
    soft, soft_losses = train(tiny_whisper, rows, processor, tmp_path / "soft", **settings)
    settings["teacher_model"] = tiny_whisper
    _, losses = train(tiny_whisper, chunks, processor, tmp_path / "online", **settings)
    assert soft.teacher is None
    assert soft_losses == pytest.approx(losses, rel=1e-3)


def test_hidden_states_need_the_embedding_that_they_were_made_for(chunks, tiny_whisper, make, processor, tmp_path):
    rows = add_soft_targets(chunks, tiny_whisper, make())
    trained = create_student(tiny_whisper, language="zh")
    trained.proj_out.weight.data.add_(1e-3)
    with pytest.raises(K2DError, match="start with a student that is not trained yet"):
        trainer_for(trained, rows, processor, tmp_path)


def test_the_auxiliary_of_hidden_targets_has_its_top_tokens(chunks, tiny_whisper, make, processor, tmp_path):
    auxiliary = another(tiny_whisper, encoder_layers=1, decoder_layers=1)
    rows = add_soft_targets(chunks, tiny_whisper, make(), auxiliary=auxiliary, k=4)
    assert {"teacher_hidden", "auxiliary_top_ids"} <= set(rows.column_names)
    assert "teacher_top_ids" not in rows.column_names
    soft, losses = train(tiny_whisper, rows, processor, tmp_path, auxiliary_weight=0.5, max_steps=1)
    assert (soft.stored, len(losses)) == (["teacher", "auxiliary"], 1)


def test_a_teacher_that_is_given_is_used_and_stored_targets_are_not(
    with_targets, tiny_whisper, chunks, processor, tmp_path
):
    _, given = train(tiny_whisper, with_targets(), processor, tmp_path, teacher_model=tiny_whisper, max_steps=2)
    _, plain = train(tiny_whisper, chunks, processor, tmp_path, teacher_model=tiny_whisper, max_steps=2)
    assert given == plain


def test_targets_outlive_the_disk_other_columns_and_workers(with_targets, tiny_whisper, processor, tmp_path):
    rows = with_targets()
    rows.save_to_disk(str(tmp_path / "rows"))
    _, here = train(tiny_whisper, rows, processor, tmp_path, max_steps=2)
    again = load_from_disk(str(tmp_path / "rows")).add_column("speaker", ["A"] * len(rows))
    _, there = train(tiny_whisper, again, processor, tmp_path, max_steps=2, dataloader_num_workers=1)
    assert there == here


def test_encoder_states_that_the_stage_kept_are_found_by_training(
    with_targets, tiny_whisper, processor, tmp_path, monkeypatch
):
    rows = with_targets(encoder_states_dir=tmp_path / "states")
    assert len(list((tmp_path / "states").rglob("*.npy"))) == len(rows)
    monkeypatch.setattr(K2DDataCollator, "features", lambda *_: pytest.fail("audio was read again"))
    settings = {"keep_encoder_states": True, "encoder_states_dir": str(tmp_path / "states"), "max_steps": 4}
    train(tiny_whisper, rows, processor, tmp_path, **settings)
    assert with_targets(encoder_states_dir=tmp_path / "states")["target_forms"] == rows["target_forms"]


def test_dropped_and_overlong_chunks_get_no_targets(chunks, tiny_whisper, make):
    rows = chunks.map(lambda row, index: {"keep": index != 1}, with_indices=True)
    long = {**rows[0], "text": "word " * 500}
    rows = type(rows).from_list([long, rows[1], rows[2]])
    stored = add_soft_targets(rows, tiny_whisper, make(), kind="top", k=4)
    assert [len(row["target_forms"]) > 0 for row in stored] == [False, False, True]
    assert [len(row["teacher_top_ids"]) > 0 for row in stored] == [False, False, True]


@pytest.mark.parametrize("kind", ["hidden", "top"])
def test_another_verdict_asks_the_teacher_for_new_chunks_alone(chunks, tiny_whisper, make, tmp_path, monkeypatch, kind):
    count, options = len(chunks), {"kind": kind, "k": 8, "shards_dir": tmp_path / "shards", "shard_size": 3}

    def judged(kept):
        rows = [{**row, "keep": index in kept, "distance": 0.1 * index} for index, row in enumerate(chunks)]
        return type(chunks).from_list(rows)

    add_soft_targets(judged(range(count - 1)), tiny_whisper, make(), **options)
    encoded = []
    encode = targets_module.encode
    monkeypatch.setattr(targets_module, "encode", lambda model, x: encoded.append(len(x)) or encode(model, x))
    again = add_soft_targets(judged(range(1, count)), tiny_whisper, make(), **options)
    assert sum(encoded) == 1
    fresh = add_soft_targets(judged(range(1, count)), tiny_whisper, make(), kind=kind, k=8)
    assert again.features == fresh.features
    assert again["keep"] == fresh["keep"]
    assert again[0]["target_forms"] == []
    for one, other in zip(again.select(range(1, count)), fresh.select(range(1, count)), strict=True):
        for example in make().forms(one).values():
            for name, values in stored_targets(one, example).items():
                np.testing.assert_allclose(values, stored_targets(other, example)[name], atol=4e-3)


def test_targets_of_a_recording_that_has_changed_are_made_again(chunks, tiny_whisper, make, tmp_path, monkeypatch):
    options = {"kind": "top", "k": 8, "shards_dir": tmp_path / "shards"}
    add_soft_targets(chunks, tiny_whisper, make(), **options)
    changed = "k2d_hf.distillation.targets.targets.content_key"
    monkeypatch.setattr(changed, lambda path: f"{path} of another age")
    encoded = []
    encode = targets_module.encode
    monkeypatch.setattr(targets_module, "encode", lambda model, x: encoded.append(len(x)) or encode(model, x))
    add_soft_targets(chunks, tiny_whisper, make(), **options)
    assert sum(encoded) == len(chunks)


def nudged(model):
    """The same model but for one weight, which is none of its embeddings."""
    other = copy.deepcopy(model)
    other.model.decoder.layers[0].fc1.weight.data[0, 0] += 1
    return other


def adapted(model, **settings):
    """With adapters, whose tensors are the same each time; every embedding is the model's."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **settings)
    return get_peft_model(copy.deepcopy(model), config)


@pytest.mark.parametrize("name", ["teacher", "auxiliary"])
@pytest.mark.parametrize("other", [nudged, adapted, lambda model: adapted(model, lora_alpha=64)])
def test_models_with_one_embedding_never_get_each_others_targets(chunks, tiny_whisper, make, tmp_path, name, other):
    few = chunks.select([1])
    first = adapted(tiny_whisper) if other is not adapted else tiny_whisper
    models = [
        {"teacher": first, "auxiliary": first},
        {"teacher": first, "auxiliary": first, name: other(tiny_whisper)},
    ]
    options = {"collator": make(), "kind": "top", "k": 4, "shards_dir": tmp_path / "shards"}
    before = add_soft_targets(few, **models[0], **options)
    assert add_soft_targets(few, **models[0], **options)[:] == before[:]
    fresh = add_soft_targets(few, **models[1], **{**options, "shards_dir": None})
    assert fresh[:] != before[:]
    with pytest.raises(K2DError, match="holds work that was done with other settings .*models"):
        add_soft_targets(few, **models[1], **options)


def test_the_auxiliary_has_targets_of_its_own(chunks, peaked, make, processor, tmp_path):
    auxiliary = another(peaked, encoder_layers=1, decoder_layers=1)
    auxiliary.model.decoder.layer_norm.weight.data.mul_(8)
    rows = add_soft_targets(chunks, peaked, make(), auxiliary=auxiliary, kind="top", k=32)
    soft, losses = train(peaked, rows, processor, tmp_path, auxiliary_weight=0.5, max_steps=2)
    models = {"teacher_model": peaked, "auxiliary_model": auxiliary}
    _, online = train(peaked, chunks, processor, tmp_path, auxiliary_weight=0.5, max_steps=2, **models)
    assert (soft.teacher, soft.auxiliary, soft.stored) == (None, None, ["teacher", "auxiliary"])
    assert losses == pytest.approx(online, rel=0.03)


def test_another_temperature_is_refused(with_targets, tiny_whisper, processor, tmp_path):
    with pytest.raises(K2DError, match="soft targets are of temperature 2, the loss has 1.5"):
        train(tiny_whisper, with_targets(), processor, tmp_path, temperature=1.5)


def test_evaluation_rows_without_targets_are_refused(with_targets, chunks, tiny_whisper, processor, tmp_path):
    with pytest.raises(K2DError, match=r"no soft targets of the teacher \(evaluation\)"):
        train(tiny_whisper, with_targets(), processor, tmp_path, eval_dataset=chunks)


@pytest.mark.parametrize(
    "change",
    [{"text": "另一句話"}, {"language": "en"}, {"previous_text": "別的"}],
    ids=lambda change: next(iter(change)),
)
def test_a_label_that_has_changed_since_is_an_error_that_names_the_chunk(with_targets, make, change):
    row = {**with_targets()[1], **change}
    collator = make(timestamp_probability=0, previous_text_probability=1)
    with pytest.raises(K2DError, match=r"at 7\.0 s: no soft targets for this form of its label"):
        collator([row])


def test_a_form_that_was_not_stored_is_an_error(chunks, tiny_whisper, make):
    rows = add_soft_targets(chunks, tiny_whisper, make(timestamp_probability=0), kind="top", k=4)
    with pytest.raises(K2DError, match="probabilities of timestamps and prompts"):
        make(timestamp_probability=1)([rows[0]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "at least 1 token"),
        ({"temperature": 0.0}, "temperature above 0"),
        ({"dtype": "int8"}, "none for a model"),
        ({"kind": "all"}, "kind 'all': choose one of hidden, top"),
    ],
)
def test_settings_out_of_range_are_errors(with_targets, settings, message):
    with pytest.raises(K2DError, match=message):
        with_targets(**settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"num_mel_bins": 128}, "128 mel bins, the processor 80"), ({"vocab_size": 51864}, "51864 tokens")],
)
def test_a_teacher_that_does_not_fit_the_processor_is_an_error(chunks, tiny_whisper, make, changes, message):
    with pytest.raises(K2DError, match=message):
        add_soft_targets(chunks, another(tiny_whisper, **changes), make(), k=4)


def test_rows_lose_old_targets_before_new_ones_are_written(with_targets, tiny_whisper, make):
    rows = with_targets()
    again = add_soft_targets(rows, tiny_whisper, make(), kind="top", k=4, temperature=1.0)
    assert np.shape(again[0]["teacher_top_ids"])[1] == 4
    assert set(again["target_temperature"]) == {1.0}
    assert not [name for name in without_targets(again).column_names if "top" in name or "target" in name]
    hidden = add_soft_targets(again, tiny_whisper, make())
    assert not [name for name in hidden.column_names if "top" in name]


def test_progress_counts_every_chunk(with_targets):
    counts = []
    with_targets(batch_size=3, on_progress=counts.append)
    assert counts == [3, 3, 2]


def test_progress_does_not_wait_for_the_encoder_to_hear_every_chunk(with_targets, tmp_path):
    kept = []

    def count_files(done):
        kept.append(len(list(tmp_path.rglob("*.npy"))))

    with_targets(batch_size=3, on_progress=count_files, encoder_states_dir=tmp_path / "states")
    assert kept == [3, 6, 8]


def test_blocks_of_any_size_give_the_same_targets(monkeypatch):
    head = Head(torch.randn(20, 4), torch.randn(9, 4))
    whole = top_tokens(head, k=3, temperature=1.0)
    monkeypatch.setattr(targets_module, "BLOCK_TOKENS", 7)
    assert torch.equal(top_tokens(head, k=3, temperature=1.0).ids, whole.ids)
