"""Rows to train on: those that validation kept and the decoder can hold; nothing is left out in silence."""

import logging

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2d_hf import K2DDataCollator
from k2d_hf.distillation.batches import rows as rows_module
from k2d_hf.distillation.batches.rows import language_of, training_rows
from k2d_hf.errors import K2DError


@pytest.fixture
def collator(processor):
    return K2DDataCollator(processor, language="zh")


def changed(chunks, **columns):
    """The chunks with some columns replaced; a column is given as {row: value}."""
    rows = chunks.to_list()
    for name, values in columns.items():
        for index, value in values.items():
            rows[index][name] = value
    return Dataset.from_list(rows)


def test_rows_that_all_stay_are_the_same_object(chunks, collator):
    assert training_rows(chunks, collator, what="training") is chunks


def test_rows_that_validation_dropped_are_left_out(chunks, collator, caplog):
    caplog.set_level(logging.INFO)
    rows = training_rows(changed(chunks, keep={0: False, 5: None}), collator, what="training")
    assert rows["text"] == [chunks[i]["text"] for i in (1, 2, 3, 4, 6, 7)]
    assert "training: left out 2 chunks that validation dropped" in caplog.text


def test_bug_05_labels_that_are_too_long_are_left_out_counted_and_named(chunks, collator, caplog):
    long = " word" * 460
    rows = changed(chunks, text=dict.fromkeys((1, 2, 3, 4), long), keep={4: False})
    left = training_rows(rows, collator, what="training")
    assert left["start"] == [chunks[i]["start"] for i in (0, 5, 6, 7)]
    assert "training: left out 3 chunks whose label exceeds 448 tokens" in caplog.text
    assert "noise.flac at 7.0 s" in caplog.text


def test_bug_05_a_label_of_exactly_448_tokens_stays(chunks, collator):
    rows = changed(chunks, text={1: "word" + " word" * 443})
    assert len(training_rows(rows, collator, what="training")) == len(chunks)


WORDS = st.sampled_from(["model", "這個", "我們用", "𠮷", "😀", "<|zh|>", "é", " ", "attention", "1024", "ﷺ"])
SEGMENT = st.lists(WORDS, max_size=6).map("".join)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(SEGMENT, min_size=1, max_size=3), min_size=1, max_size=9),
    max_tokens=st.integers(8, 40),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_rows_that_stay_and_their_lengths_are_those_of_one_label_after_the_other(
    processor, monkeypatch, texts, max_tokens, probability
):
    monkeypatch.setattr(rows_module, "BATCH_ROWS", 4)
    collator = K2DDataCollator(processor, language="zh", max_tokens=max_tokens, timestamp_probability=probability)
    chunks = [
        {
            "recording": "a.wav",
            "start": float(index),
            "text": "".join(parts).strip(),
            "segments": [{"start": 2.0 * i, "end": 2.0 * i + 1, "text": part} for i, part in enumerate(parts)],
            "language": ["zh", "en", None][index % 3],
            "keep": index % 4 != 1,
        }
        for index, parts in enumerate(texts)
    ]
    rows = Dataset.from_list(chunks)
    for timestamps in (True, False):
        measured = rows_module._lengths(rows.to_list(), collator, timestamps=timestamps, at_most=0)
        assert measured.dtype == np.int32
        assert measured.tolist() == [
            len(
                collator.encoder.label_ids(
                    chunk["text"], chunk["segments"], language=chunk["language"] or "zh", timestamps=timestamps
                )
            )
            - 1
            for chunk in chunks
        ]
    expected = [chunk["start"] for chunk in chunks if chunk["keep"] and collator.fits(chunk)]
    if expected:
        assert training_rows(rows, collator, what="training")["start"][:] == expected
    else:
        with pytest.raises(K2DError, match="nothing to train on"):
            training_rows(rows, collator, what="training")


def test_choosing_rows_leaves_their_folder_as_it_was(chunks, collator, tmp_path):
    changed(chunks, keep={1: False, 4: False}).save_to_disk(tmp_path / "validated")
    before = sorted((tmp_path / "validated").iterdir())
    rows = training_rows(load_from_disk(str(tmp_path / "validated")), collator, what="training")
    assert (len(rows), language_of(rows)) == (6, "zh")
    assert sorted((tmp_path / "validated").iterdir()) == before  # what a run resumes from depends on it


def test_rows_without_a_verdict_are_all_kept(chunks, collator):
    assert len(training_rows(chunks.remove_columns("keep"), collator, what="training")) == len(chunks)


def test_several_data_sets_are_filtered_one_by_one(chunks, collator):
    parts = {"a": changed(chunks, keep={0: False}), "b": chunks}
    assert {k: len(v) for k, v in training_rows(parts, collator, what="evaluation").items()} == {"a": 7, "b": 8}


@pytest.mark.parametrize("rows", [None, [1, 2], Dataset.from_dict({"labels": [[1]]})], ids=str)
def test_what_is_no_data_set_of_chunks_is_left_alone(rows, collator):
    assert training_rows(rows, collator, what="training") is rows


def test_no_row_left_is_an_error_that_counts(chunks, collator):
    rows = changed(chunks, keep=dict.fromkeys(range(7), False), text={7: " word" * 460})
    with pytest.raises(K2DError, match=r"of 8 chunks \(training\) 7 were dropped by validation and 1 have too long"):
        training_rows(rows, collator, what="training")


@pytest.mark.parametrize(
    ("languages", "expected"),
    [({}, "zh"), ({1: "en"}, None), (dict.fromkeys(range(8)), None)],
)
def test_the_language_is_that_of_all_chunks_or_none(chunks, languages, expected):
    assert language_of(changed(chunks, language=languages)) == expected


def test_rows_without_languages_have_none(chunks):
    assert language_of(chunks.remove_columns("language")) is None
    assert language_of(None) is None
    assert language_of(chunks.to_iterable_dataset()) is None
