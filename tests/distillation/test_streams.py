"""Training on streams: as on the same rows of a data set, with what is left out counted, and a resume that skips."""

import logging

import pytest
import torch
from datasets import Dataset, load_dataset

from distillation.tiny_training import another, trainer_for
from k2d_hf import K2DDataCollator, K2DTrainingArguments, create_student
from k2d_hf.distillation.batches.streams import ChunkStream
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError

LONG = " word" * 460


def parquet(rows, folder, *, files=1):
    """The rows as a stream of Parquet files."""
    folder.mkdir(exist_ok=True)
    for index in range(files):
        rows.shard(files, index, contiguous=True).to_parquet(folder / f"{index}.parquet")
    return load_dataset("parquet", data_files=str(folder / "*.parquet"), split="train", streaming=True)


@pytest.fixture
def mixed(chunks):
    """Twelve rows: the eight chunks, of which two are dropped and one is too long, and four more that stay."""
    rows = chunks.to_list() + [{**row, "start": row["start"] + 1.0} for row in chunks.to_list()[:4]]
    rows[1]["keep"], rows[6]["keep"] = False, False
    rows[3]["text"] = LONG
    return Dataset.from_list(rows)


@pytest.fixture
def build(tiny_whisper, processor, tmp_path):
    """A trainer of rows in their order; the draws differ by epoch."""

    def trainer(rows, **settings):
        defaults = {"teacher_model": tiny_whisper, "max_steps": 5, "per_device_train_batch_size": 3, "seed": 3}
        defaults |= {"shuffle_buffer": 0, "previous_text_probability": 0.5, "learning_rate": 1e-3}
        student = create_student(tiny_whisper, language="zh")
        return trainer_for(student, rows, processor, tmp_path / "run", **{**defaults, **settings})

    return trainer


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def same_weights(one, other):
    weights = [trainer.model.state_dict() for trainer in (one, other)]
    return all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_trains_as_the_same_rows_do_in_their_order(build, mixed, tmp_path, caplog, workers):
    caplog.set_level(logging.INFO)
    ordered = build(mixed, train_sampling_strategy="sequential", group_by_label_length=False)
    ordered.train()
    stream = build(parquet(mixed, tmp_path / "data", files=2), dataloader_num_workers=workers, keep_encoder_states=True)
    stream.train()
    assert losses(stream) == losses(ordered)  # 9 chunks in batches of 3: five steps are nearly two epochs
    assert same_weights(stream, ordered)
    assert "of 12 chunks of the stream 2 were dropped by validation and 1 have a label of more than 448" in caplog.text
    assert "labels are not grouped by length" in caplog.text
    assert "encoder states are not kept: that takes a data set of chunks" in caplog.text


@pytest.mark.parametrize("kind", ["hidden", "top"])
def test_soft_targets_of_a_stream_are_those_of_the_rows(build, mixed, tiny_whisper, processor, tmp_path, kind):
    collator = K2DDataCollator(processor, language="zh", previous_text_probability=0.5)
    rows = add_soft_targets(mixed, tiny_whisper, collator, kind=kind, k=8)
    settings = {"teacher_model": None, "max_steps": 3}
    ordered = build(rows, train_sampling_strategy="sequential", group_by_label_length=False, **settings)
    ordered.train()
    stream = build(parquet(rows, tmp_path / "data"), **settings)
    stream.train()
    assert losses(stream) == losses(ordered)
    if kind == "top":
        with pytest.raises(K2DError, match="temperature 2, the loss has 3"):
            build(parquet(rows, tmp_path / "data"), temperature=3.0, **settings).train()
    else:
        stream = build(parquet(rows, tmp_path / "data"), **settings)
        stream.train_dataset.embedding = another(tiny_whisper).proj_out.weight
        with pytest.raises(K2DError, match="whose embedding is not the student's"):
            stream.train()


def test_a_resume_goes_on_where_the_stream_was_left_without_reading_what_was_seen(build, mixed, tmp_path):
    rows = parquet(mixed, tmp_path / "data", files=2)
    settings = {"shuffle_buffer": 4, "save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2}
    whole = build(rows, **settings)
    whole.train()
    (tmp_path / "run" / "checkpoint-5" / "model.safetensors").unlink()
    resumed = build(rows, **settings)
    read = []
    features = resumed.data_collator.features
    resumed.data_collator.features = lambda chunks: read.append(len(chunks)) or features(chunks)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.resumed_step == 4  # in the third pass
    assert sum(read) <= 3 * (2 + 1)  # one batch is read ahead
    assert same_weights(whole, resumed)
    assert losses(resumed) == losses(whole)


@pytest.mark.parametrize("buffer", [3, 100])
def test_every_pass_holds_every_chunk_once_in_an_order_of_its_own(mixed, processor, tmp_path, buffer):
    rows, collator = parquet(mixed, tmp_path / "data", files=3), K2DDataCollator(processor, language="zh")
    args = K2DTrainingArguments(str(tmp_path), use_cpu=True, shuffle_buffer=buffer, seed=1)
    stream = iter(ChunkStream(rows, collator, args, {}, None, what="training"))
    passes = [[next(stream) for _ in range(9)] for _ in range(3)]
    assert [{chunk["_epoch"] for chunk in chunks} for chunks in passes] == [{0}, {1}, {2}]
    orders = [[chunk["start"] for chunk in chunks] for chunks in passes]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    again = iter(ChunkStream(rows, collator, args, {}, None, what="training"))
    assert [next(again)["start"] for _ in range(9)] == orders[0]


def test_a_stream_needs_max_steps_and_something_to_train_on(build, mixed, tmp_path):
    with pytest.raises(K2DError, match="a stream has no length: set max_steps"):
        build(parquet(mixed, tmp_path / "data"), max_steps=-1)
    nothing = mixed.map(lambda row: {"keep": False})
    with pytest.raises(K2DError, match="nothing to train on: of 12 chunks of the stream 12 were dropped"):
        build(parquet(nothing, tmp_path / "data")).train()


def test_a_stream_that_does_not_know_its_columns_says_them_with_its_first_row(build, mixed):
    stream = mixed.to_iterable_dataset().map(lambda row: row)
    assert stream.column_names is None
    trainer = build(stream, max_steps=1)
    trainer.train()
    assert trainer.state.global_step == 1
