"""The order of training: every chunk once, neighbours of like length, another order in each epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillation.tiny_training import trainer_for
from k2d_hf import K2DDataCollator, create_student
from k2d_hf.distillation.batches.sampling import LengthGroupedSampler, grouped_order, label_parts


@given(lengths=st.lists(st.integers(0, 448), max_size=300), batch_size=st.integers(1, 9), seed=st.integers(0, 9))
def test_every_index_comes_once(lengths, batch_size, seed):
    order = grouped_order(np.array(lengths), batch_size=batch_size, generator=np.random.default_rng(seed))
    assert sorted(order) == list(range(len(lengths)))


def test_batches_waste_less_on_padding_than_chance_does():
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 448, size=2000)
    order = grouped_order(lengths, batch_size=16, generator=generator)

    def padded(indices):
        return sum(16 * lengths[indices[at : at + 16]].max() for at in range(0, 2000, 16))

    assert padded(order) < 1.15 * lengths.sum()
    assert padded(generator.permutation(2000)) > 1.7 * lengths.sum()


def test_an_incomplete_batch_comes_last():
    lengths = np.arange(10, 43)
    order = grouped_order(lengths, batch_size=2, generator=np.random.default_rng(0))
    batches = [order[at : at + 2] for at in range(0, 33, 2)]
    assert [len(batch) for batch in batches] == [2] * 16 + [1]
    assert np.mean([abs(lengths[one] - lengths[other]) for one, other in batches[:-1]]) < 6  # by chance: 11


def test_parts_of_a_label_are_near_its_tokens(chunks, processor):
    plain, timestamps, prompt = label_parts(chunks)
    collator = K2DDataCollator(processor, language="zh")
    for index, chunk in enumerate(chunks):
        lengths = {form: len(labels) for form, (_, labels) in collator.forms(chunk).items()}
        assert plain[index] == pytest.approx(lengths[False, False], abs=10)
        assert timestamps[index] == 2 * len(chunk["segments"])
        if chunk["previous_text"]:
            assert prompt[index] == pytest.approx(lengths[False, True] - lengths[False, False], abs=8)
        else:
            assert prompt[index] == 0


def test_lengths_follow_the_draws_of_the_epoch(chunks, processor):
    collator = K2DDataCollator(processor, language="zh", previous_text_probability=0.5)
    sampler = LengthGroupedSampler(chunks, collator, batch_size=2)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for index, length in enumerate(sampler.lengths()):
            timestamps, prompt = collator.draws(chunks[index], epoch=epoch)
            expected = sampler.plain[index]
            expected += timestamps * sampler.timestamps[index] + prompt * sampler.prompt[index]
            assert length == expected


def test_orders_differ_by_epoch_and_seed_and_come_again(chunks, processor):
    collator = K2DDataCollator(processor, language="zh")

    def orders(seed):
        sampler = LengthGroupedSampler(chunks, collator, batch_size=1, seed=seed)
        found = []
        for epoch in range(3):
            sampler.set_epoch(epoch)
            found.append(tuple(sampler))
        assert len(sampler) == len(chunks)
        return found

    assert orders(0) == orders(0)
    assert len(set(orders(0) + orders(1))) == 6


@pytest.mark.parametrize(
    ("settings", "grouped"),
    [
        ({}, True),
        ({"group_by_label_length": False}, False),
        ({"train_sampling_strategy": "sequential"}, False),
    ],
    ids=str,
)
def test_the_trainer_groups_unless_told_otherwise(tiny_whisper, chunks, processor, tmp_path, settings, grouped):
    student = create_student(tiny_whisper)
    trainer = trainer_for(
        student, chunks, processor, tmp_path, kl_weight=0.0, gradient_accumulation_steps=3, **settings
    )
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, LengthGroupedSampler) == grouped
    if grouped:
        assert sampler.batch_size == 6


def test_each_epoch_of_training_has_its_own_order(tiny_whisper, chunks, processor, tmp_path):
    seen = []

    class Watching(K2DDataCollator):
        def __call__(self, rows):
            seen.append([row["start"] for row in rows])
            return super().__call__(rows)

    collator = Watching(processor, language="zh")
    student = create_student(tiny_whisper)
    settings = {"kl_weight": 0.0, "num_train_epochs": 3, "collator": collator}
    trainer_for(student, chunks, processor, tmp_path, **settings).train()
    epochs = [[start for batch in seen[at : at + 4] for start in batch] for at in range(0, 12, 4)]
    assert all(sorted(epoch) == sorted(chunks["start"]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3
