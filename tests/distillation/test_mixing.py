"""Several sources in one training: shares that are exact, orders that come again, rows that nobody judged."""

import logging
import re

import numpy as np
import pytest
import soundfile
from datasets import Dataset, concatenate_datasets, interleave_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from distillation.tiny_training import trainer_for
from k2d_hf import K2DDataCollator, K2DError, K2DTrainingArguments, create_student
from k2d_hf.distillation.batches.mixing import MixedSampler, Mixture
from k2d_hf.distillation.batches.sampling import LengthGroupedSampler
from k2d_hf.distillation.targets.targets import add_soft_targets

GIVEN = ("語音辨識", "this is given", "也是 given", "第四句", "the fifth", "第六 sentence")


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """Six utterances of 1 s with their texts, as a corpus has them, and the name of the source."""
    folder = tmp_path_factory.mktemp("corpus")
    files = []
    for index in range(6):
        files.append(str(folder / f"utterance_{index}.wav"))
        soundfile.write(files[-1], np.random.default_rng(index).normal(0, 0.05, 16000), 16000)
    return Dataset.from_dict({"audio": files, "text": GIVEN, "source": ["corpus"] * 6})


@pytest.fixture(scope="module")
def mixed(chunks, utterances):
    return concatenate_datasets([chunks, utterances])


@pytest.fixture
def watch(tiny_whisper, processor, tmp_path):
    """Train, and give the trainer and the texts of each batch."""

    def run(rows, *, resume=None, folder=tmp_path, **options):
        batches = []

        class Watching(K2DDataCollator):
            def __call__(self, rows):
                batches.append([row["text"] for row in rows])
                return super().__call__(rows)

        collator = Watching(processor, language="zh")
        options = {"kl_weight": 0.0, "collator": collator, **options}
        trainer = trainer_for(create_student(tiny_whisper), rows, processor, folder, **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer, batches

    return run


def sources(**counts):
    names = [None if name == "own" else name for name, count in counts.items() for _ in range(count)]
    return np.array(names, dtype=object)


@settings(deadline=None)
@given(
    own=st.integers(1, 200), other=st.integers(1, 200), share=st.floats(0.01, 0.95), seed=st.integers(0, 9),
    batch=st.integers(1, 16),
)  # fmt: skip
def test_every_epoch_has_the_share_and_so_has_every_batch(own, other, share, seed, batch):
    mixture = Mixture(sources(own=own, other=other), {"other": share})
    wanted = max(1, round(share * (own / (1 - share))))
    came = np.zeros(other, dtype=int)
    for epoch in range(3):
        order = mixture.order(epoch, seed=seed)
        assert len(order) == len(mixture) == own + wanted
        assert sorted(order[order < own]) == list(range(own))
        came += np.bincount(order[order >= own] - own, minlength=other)
        for at in range(0, len(order) - batch, batch):
            found = (order[at : at + batch] >= own).sum()
            assert abs(found - batch * wanted / len(order)) < 2
    assert came.max() - came.min() <= 1  # none comes again before all have come


def test_an_order_depends_on_seed_and_epoch_alone():
    def orders(seed, epochs):
        mixture = Mixture(sources(own=20, a=7, b=30), {"a": 0.2, "b": 0.3})
        return {epoch: tuple(mixture.order(epoch, seed=seed)) for epoch in epochs}

    straight = orders(0, range(4))
    assert orders(0, [3, 1]) == {epoch: straight[epoch] for epoch in (3, 1)}  # as a resumed training asks for it
    assert len(set(straight.values()) | set(orders(1, range(4)).values())) == 8


def test_what_has_no_share_comes_whole():
    mixture = Mixture(sources(own=20, a=7, b=30), {"b": 0.1})
    assert [(one["name"], one["in_epoch"]) for one in mixture.facts()] == [(None, 20), ("a", 7), ("b", 3)]


@pytest.mark.parametrize(
    ("shares", "line"),
    [
        ({"a": 1.0}, "shares: a 1.0: must be above 0, and below 1"),
        ({"a": 0}, "shares: a 0: must be above 0"),
        ({"a": "half"}, "shares: a 'half': must be above 0"),
        ({"a": 0.5, "b": 0.5}, "together must be below 1; the rest is of the other sources"),
        ([0.5], "shares [0.5]: must be a mapping, such as corpus: 0.2"),
    ],
)
def test_shares_that_are_none_are_one_line(tmp_path, shares, line):
    with pytest.raises(K2DError) as raised:
        K2DTrainingArguments(str(tmp_path), shares=shares)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_rows_that_nobody_judged_are_learned_from_as_they_come(watch, mixed, chunks, caplog):
    """`concatenate_datasets` fills `keep` with null where the text was given."""
    caplog.set_level(logging.INFO)
    trainer, batches = watch(mixed, num_train_epochs=1)
    assert sorted(text for batch in batches for text in batch) == sorted([*chunks["text"], *GIVEN])
    assert "left out" not in caplog.text
    assert "training: 8 chunks with pseudo-labels; 6 chunks of corpus" in caplog.text
    assert trainer.card.training_facts().chunks == 14


def test_without_a_column_of_sources_they_are_mixed_as_they_are(watch, chunks, utterances):
    rows = interleave_datasets(
        [chunks, utterances.remove_columns("source")],
        probabilities=[0.5, 0.5], seed=1, stopping_strategy="all_exhausted",
    )  # fmt: skip
    trainer, batches = watch(rows, num_train_epochs=1)
    assert sorted(text for batch in batches for text in batch) == sorted(rows["text"])
    assert trainer.mixture is None


@pytest.mark.parametrize("grouped", [True, False])
def test_an_epoch_has_the_share_that_is_asked_for(watch, mixed, chunks, grouped):
    options = {"shares": {"corpus": 1 / 3}, "num_train_epochs": 3, "group_by_label_length": grouped}
    trainer, batches = watch(mixed, **options)
    assert isinstance(trainer._get_train_sampler(), LengthGroupedSampler if grouped else MixedSampler)
    texts = [text for batch in batches for text in batch]
    assert len(texts) == 3 * 12
    given = []
    for epoch in (texts[:12], texts[12:24], texts[24:]):
        assert sorted(text for text in epoch if text not in GIVEN) == sorted(chunks["text"])
        given += [text for text in epoch if text in GIVEN]
    assert sorted(given) == sorted(GIVEN * 2)
    if not grouped:
        assert all(1 <= sum(text in GIVEN for text in texts[at : at + 6]) <= 3 for at in range(0, 36, 6))
    facts = trainer.card.training_facts()
    assert (facts.chunks, facts.sources[1]["in_epoch"]) == (12, 4)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_resumed_training_meets_what_it_would_have_met(watch, mixed, tmp_path, grouped):
    options = {"shares": {"corpus": 1 / 3}, "num_train_epochs": 3, "group_by_label_length": grouped}
    options |= {"save_strategy": "steps", "save_steps": 8}  # in the middle of the second epoch of 6 steps
    whole, straight = watch(mixed, folder=tmp_path / "whole", **options)
    again, resumed = watch(mixed, folder=tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-8"), **options)
    assert resumed[-10:] == straight[-10:]
    assert again.state.log_history[-2]["loss"] == whole.state.log_history[-2]["loss"]


def test_the_teacher_scores_the_text_that_was_given(watch, mixed, tiny_whisper, processor):
    collator = K2DDataCollator(processor, language="zh")
    targets = add_soft_targets(mixed, tiny_whisper, collator)
    assert all(targets["target_forms"])
    options = {"kl_weight": 1.0, "shares": {"corpus": 1 / 3}, "max_steps": 4, "ce_weight": 0.0}
    stored, _ = watch(targets, **options)
    in_memory, _ = watch(mixed, teacher_model=tiny_whisper, **options)
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (stored, in_memory)]
    assert stored.stored == ["teacher"]
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=2e-3)


def test_a_stream_is_mixed_by_datasets(watch, chunks, utterances):
    streams = [rows.to_iterable_dataset() for rows in (chunks, utterances)]
    stream = interleave_datasets(streams, probabilities=[0.5, 0.5], seed=0, stopping_strategy="all_exhausted")
    _, batches = watch(stream, max_steps=6, shuffle_buffer=0)
    texts = {text for batch in batches for text in batch}
    assert texts & set(GIVEN)
    assert texts & set(chunks["text"])


@pytest.mark.parametrize(
    ("rows", "options", "line"),
    [
        ("chunks", {"shares": {"corpus": 0.2}}, "shares: the chunks have no column source"),
        ("mixed", {"shares": {"corups": 0.2}}, "shares: no chunk to train on is of 'corups', of 'corpus'"),
        ("mixed", {"shares": {"corpus": 0.2}, "train_sampling_strategy": "sequential"}, "shares draw an order of their"),
        ("given", {"shares": {"corpus": 0.2}}, "shares: every source has one, so nothing says how long an epoch is"),
        ("stream", {"shares": {"corpus": 0.2}, "max_steps": 2}, "shares: a stream keeps the order that it has"),
    ],
)  # fmt: skip
def test_shares_that_cannot_be_are_one_line_before_training(watch, chunks, mixed, utterances, rows, options, line):
    data = {"chunks": chunks, "mixed": mixed, "given": utterances, "stream": mixed.to_iterable_dataset()}[rows]
    with pytest.raises(K2DError) as raised:
        watch(data, **options)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_pseudo_label_that_nobody_judged_is_still_left_out(watch, chunks, utterances):
    judged = chunks.map(lambda chunk, at: {"keep": None if at == 3 else True}, with_indices=True)
    trainer, batches = watch(concatenate_datasets([judged, utterances]), num_train_epochs=1)
    assert chunks[3]["text"] not in [text for batch in batches for text in batch]
    assert len(trainer.train_dataset) == 7 + 6


def test_a_card_tells_the_texts_that_were_given(watch, mixed, tmp_path):
    trainer, _ = watch(mixed, shares={"corpus": 1 / 3}, num_train_epochs=1)
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| text that was given | corpus (6 chunks, 33% of each epoch) |" in card
    assert "transcripts, and from texts that came with the speech (corpus): what the teacher gets wrong" in card
    assert re.search(r"\| speech labelled \| 0\.\d min, 8 chunks \|", card)
