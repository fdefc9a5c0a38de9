"""Steps in which the student writes its labels and the teacher judges them."""

import pytest
import torch

from distillation.tiny_training import another, plain_loss, trainer_for
from k2d_hf.distillation.on_policy import as_many_tokens, is_on_policy, with_own_labels
from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import IGNORED

END, NO_TIMESTAMPS = 50257, 50363


@pytest.fixture
def student(tiny_whisper):
    return another(tiny_whisper, decoder_layers=2)


def batch_of(chunks, processor, tmp_path, student, tiny_whisper, **settings):
    settings = {"teacher_model": tiny_whisper, "on_policy": 1.0, "previous_text_probability": 1.0, **settings}
    trainer = trainer_for(student, chunks, processor, tmp_path, **settings)
    return trainer, next(iter(trainer.get_train_dataloader()))


def states_of(model, batch):
    with torch.no_grad():
        return model.model.encoder(batch["input_features"]).last_hidden_state


@pytest.mark.parametrize("timestamps", [0.0, 1.0])
def test_what_the_student_writes_after_the_same_prompt_and_first_tokens_is_the_label(
    student, tiny_whisper, chunks, processor, tmp_path, timestamps
):
    """By its own greedy choice of each token, from all logits, a row at a time."""
    _, batch = batch_of(chunks, processor, tmp_path, student, tiny_whisper, timestamp_probability=timestamps)
    states = states_of(student, batch)
    own = with_own_labels(student, batch, states, temperature=0.0)
    assert {"decoder_input_ids", "labels"} == {name for name in batch if own[name] is not batch[name]}
    lengths = set()
    for row, (inputs, labels) in enumerate(zip(own["decoder_input_ids"], own["labels"], strict=True)):
        first = int((labels != IGNORED).nonzero()[0]) + 1  # of the tokens that are written
        lengths.add(first)
        assert torch.equal(inputs[:first], batch["decoder_input_ids"][row, :first])
        assert (inputs[first - 1] == NO_TIMESTAMPS) == (timestamps == 0)
        ids, written = inputs[:first].tolist(), []
        while not written or (written[-1] != END and len(written) < (labels != IGNORED).sum()):
            given = torch.tensor([ids])
            with torch.no_grad():
                out = student.model.decoder(input_ids=given, encoder_hidden_states=states[[row]]).last_hidden_state
            written.append(int(student.proj_out(out)[0, -1].argmax()))
            ids.append(written[-1])
        assert labels[labels != IGNORED].tolist() == written
        assert inputs[first : first + len(written) - 1].tolist() == written[:-1]
    assert len(lengths) > 1  # some have a prompt, and some have none


def test_the_loss_of_such_a_step_is_the_divergence_alone_and_counts_as_its_labels_do(
    student, tiny_whisper, chunks, processor, tmp_path
):
    trainer, batch = batch_of(chunks, processor, tmp_path, student, tiny_whisper)
    student.train()
    sums = trainer.loss_sums(student, batch)
    own = with_own_labels(student, batch, states_of(student.eval(), batch), temperature=0.0)
    total, tokens = plain_loss(own, student, tiny_whisper, ce=0.0)
    supervised = int((batch["labels"] != IGNORED).sum())
    assert sums.tokens == supervised
    assert float(sums.total.detach()) == pytest.approx(total / tokens * supervised, rel=1e-4)
    assert float(sums.ce) == 0
    assert sums.total.requires_grad


def test_sampling_follows_the_seed_and_is_not_greedy(student, tiny_whisper, chunks, processor, tmp_path):
    _, batch = batch_of(chunks, processor, tmp_path, student, tiny_whisper)
    states = states_of(student, batch)

    def labels(temperature, seed):
        torch.manual_seed(seed)
        return with_own_labels(student, batch, states, temperature=temperature)["labels"].tolist()

    assert labels(1.0, 0) == labels(1.0, 0)
    assert labels(1.0, 0) != labels(1.0, 1)
    assert labels(0.0, 0) == labels(0.0, 1)


def test_the_share_is_drawn_by_step_and_evaluation_has_none(student, tiny_whisper, chunks, processor, tmp_path):
    drawn = [is_on_policy(0.3, seed=1, step=step) for step in range(20_000)]
    assert sum(drawn) == pytest.approx(6000, abs=200)
    assert not any(is_on_policy(0.0, seed=0, step=step) for step in range(50))
    assert all(is_on_policy(1.0, seed=0, step=step) for step in range(50))
    trainer, batch = batch_of(chunks, processor, tmp_path, student, tiny_whisper)
    student.eval()
    assert float(trainer.loss_sums(student, batch).ce) > 0


def test_a_student_that_was_resumed_learns_the_same(tiny_whisper, chunks, processor, tmp_path):
    settings = {"teacher_model": tiny_whisper, "on_policy": 0.5, "on_policy_temperature": 0.9, "max_steps": 4}
    settings |= {"save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}

    def trained(folder, **more):
        trainer = trainer_for(another(tiny_whisper, decoder_layers=2), chunks, processor, folder, **settings)
        trainer.train(**more)
        return trainer.model.state_dict()

    whole = trained(tmp_path)
    again = trained(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, weights in whole.items():
        torch.testing.assert_close(again[name], weights, rtol=0, atol=0)


def test_a_teacher_in_memory_is_asked_for(student, tiny_whisper, chunks, processor, tmp_path):
    with pytest.raises(K2DError, match="kl_weight is 1.0: give teacher_model"):
        trainer_for(student, chunks, processor, tmp_path, on_policy=0.5)
    with pytest.raises(K2DError, match="on_policy 0.5: the teacher judges what is written; set kl_weight"):
        trainer_for(student, chunks, processor, tmp_path, on_policy=0.5, kl_weight=0.0)


def test_adapters_write_too(tiny_whisper, chunks, processor, tmp_path):
    from peft import LoraConfig

    lora = LoraConfig(r=2, target_modules=["q_proj", "fc1"], init_lora_weights=False)
    settings = {"teacher_model": tiny_whisper, "on_policy": 1.0, "max_steps": 1, "peft_config": lora}
    trainer = trainer_for(another(tiny_whisper), chunks, processor, tmp_path, **settings)
    before = {name: weights.clone() for name, weights in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora" in name for name in changed)


def test_sums_scale_together():
    from k2d_hf.distillation.loss.losses import LossSums

    one = torch.ones(())
    scaled = as_many_tokens(LossSums(one, one, one, one, one, one, 4), 8)
    assert (scaled.total, scaled.kl, scaled.ce, scaled.tokens) == (2, 2, 0, 8)
