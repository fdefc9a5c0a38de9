"""Windows as long-form decoding meets them: full of sound, the last segment cut off."""

import numpy as np
import pytest
import soundfile
from datasets import Dataset

from distillation.tiny_training import trainer_for
from k2d_hf import create_student
from k2d_hf.data.chunking import Segment, chunk_rows, pack_segments
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.distillation.batches.rows import labels_fit, training_rows
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError

START, ZH, TRANSCRIBE = "<|startoftranscript|>", "<|zh|>", "<|transcribe|>"
SECONDS = [(0.0, 9.0), (9.5, 19.0), (20.0, 29.0), (29.4, 39.0), (75.0, 80.0)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """90 s in which each second has a level of its own, so that a span is recognised by it."""
    path = tmp_path_factory.mktemp("windows") / "a.wav"
    soundfile.write(path, np.repeat(np.linspace(0.1, 0.9, 90), 16000), 16000, subtype="FLOAT")
    return path


@pytest.fixture
def rows(recording):
    segments = [Segment(start, end, f"第{index}句") for index, (start, end) in enumerate(SECONDS)]
    return chunk_rows(str(recording), pack_segments(segments), language="zh")


def collator_of(processor, **settings):
    return K2DDataCollator(
        processor, **{"timestamp_probability": 1.0, "previous_text_probability": 0.0, "full_windows": True, **settings}
    )


def words(processor, ids):
    return processor.tokenizer.decode(ids, decode_with_timestamps=True)


def test_a_chunk_knows_where_the_next_one_starts(rows):
    assert [(row["start"], row["next_start"]) for row in rows] == [(0.0, 29.4), (29.4, 45.6), (75.0, None)]


def test_a_segment_that_the_window_cuts_off_is_a_start_alone(processor, rows):
    inputs, labels = collator_of(processor).example(rows[0])
    text = words(processor, [*inputs[:1], *labels])
    assert text.endswith("<|20.00|>第2句<|29.00|><|29.40|><|endoftext|>"), text
    assert len(inputs) == len(labels)


def test_a_window_that_ends_in_silence_ends_as_ever(processor, rows):
    for row in rows[1:]:
        with_windows = collator_of(processor).example(row)
        assert with_windows == collator_of(processor, full_windows=False).example(row)


def test_without_timestamps_nothing_of_the_next_segment_is_heard_or_written(processor, rows):
    plain = collator_of(processor, timestamp_probability=0.0)
    off = collator_of(processor, timestamp_probability=0.0, full_windows=False)
    assert plain.example(rows[0]) == off.example(rows[0])
    assert plain.spans(rows[0]) == [rows[0]]


def test_the_student_hears_thirty_seconds_where_the_recording_goes_on(processor, rows):
    batch = collator_of(processor)(rows)
    whole = [{**row, "duration": 30.0} for row in rows]
    expected = collator_of(processor).features([whole[0], whole[1], rows[2]])  # after the last there is nothing
    assert (batch["input_features"] == expected).all()
    cut = collator_of(processor, full_windows=False)(rows)["input_features"]
    assert (cut[0] != expected[0]).any()
    assert (cut[1] != expected[1]).any()
    assert (cut[2] == expected[2]).all()


def test_a_chunk_with_its_own_audio_ends_there(processor, rows):
    alone = {**rows[0], "audio": {"bytes": b"", "path": None}}
    assert collator_of(processor).spans(alone) == [alone]
    assert collator_of(processor).cut_segment(alone) is None


def test_both_forms_have_a_span_each(processor, rows):
    spans = collator_of(processor, timestamp_probability=0.5).spans(rows[0])
    assert sorted(span["duration"] for span in spans) == [29.0, 30.0]
    assert [span["duration"] for span in collator_of(processor, timestamp_probability=0.5).spans(rows[2])] == [5.0]


def test_the_length_of_a_label_counts_the_start_too(processor, rows):
    collator = collator_of(processor)
    collator.max_tokens = len(collator.example(rows[0])[0])
    assert labels_fit([rows[0]], collator).all()
    collator.max_tokens -= 1
    assert not labels_fit([rows[0]], collator).any()
    assert not collator.fits(rows[0])


def test_chunks_of_before_are_refused_in_one_line(processor, rows):
    old = Dataset.from_list(rows).remove_columns("next_start")
    with pytest.raises(K2DError, match="full_windows needs the column next_start.*label again"):
        training_rows(old, collator_of(processor), what="training")


def test_stored_targets_and_kept_states_are_those_of_the_input(tmp_path, processor, tiny_whisper, chunks):
    rows = chunks.add_column("next_start", [7.0] * (len(chunks) - 1) + [None])
    settings = {"timestamp_probability": 0.5, "previous_text_probability": 0.5, "full_windows": True, "max_steps": 6}
    collator = collator_of(processor, language="zh", timestamp_probability=0.5, previous_text_probability=0.5)
    losses = {}
    for name, data, more in (
        ("online", rows, {"teacher_model": tiny_whisper}),
        ("stored", add_soft_targets(rows, tiny_whisper, collator), {"keep_encoder_states": True}),
        ("cut", rows, {"teacher_model": tiny_whisper, "full_windows": False}),
    ):
        student = create_student(tiny_whisper, language="zh")
        trainer = trainer_for(student, data, processor, tmp_path / name, **{**settings, **more})
        trainer.train()
        losses[name] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses["stored"] == pytest.approx(losses["online"], rel=1e-3)
    assert losses["cut"] != pytest.approx(losses["online"], rel=1e-3)
    assert len(list((tmp_path / "stored").rglob("*.npy"))) == 2 * len(chunks) - 1  # the last chunk has one span
