"""Batches: labels and decoder inputs, and draws that change by epoch and by nothing else."""

import io
import pickle

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from k2d_hf import K2DDataCollator
from k2d_hf.audio.reader import read_audio
from k2d_hf.distillation.batches.collator import chunk_weight
from k2d_hf.errors import K2DError

END, SOT, ZH, TRANSCRIBE, PREVIOUS, PLAIN, ZERO = 50257, 50258, 50260, 50359, 50361, 50363, 50364


@pytest.fixture
def make(processor):
    """A collator with settings."""

    def build(**settings):
        return K2DDataCollator(processor, **{"language": "zh", **settings})

    return build


def wordy(chunk, words):
    """The chunk with a text of so many tokens, in one segment."""
    text = " ".join(["word"] * words)
    return {**chunk, "text": text, "segments": [{"start": 0.0, "end": 30.0, "text": f" {text}"}]}


def drawn(collator, chunks):
    """The draws of all chunks in the collator's epoch; of a recording by a fixed name, as draws depend on it."""
    return [collator.draws({**chunk, "recording": "lecture.flac"}) for chunk in chunks]


@pytest.mark.parametrize(
    ("distance", "weighting", "expected"),
    [
        (0.3, "hard", 1.0),
        (None, "hard", 1.0),
        (0.0, "soft", 1.0),
        (0.25, "soft", 0.75),
        (1.0, "soft", 0.0),
        (1.7, "soft", 0.0),
        (-0.1, "soft", 1.0),
        (None, "soft", 1.0),
    ],
)
def test_weight_of_a_chunk(distance, weighting, expected):
    assert chunk_weight(distance, weighting) == expected


def test_a_batch_holds_what_the_contract_says(make, chunks):
    batch = make()([chunks[i] for i in range(3)])
    length = batch["labels"].shape[1]
    assert {name: (tuple(t.shape), t.dtype) for name, t in batch.items()} == {
        "input_features": ((3, 80, 3000), torch.float32),
        "decoder_input_ids": ((3, length), torch.int64),
        "labels": ((3, length), torch.int64),
    }


def test_labels_are_the_next_tokens_and_padding_is_ignored(make, chunks, processor):
    collator = make(timestamp_probability=0, previous_text_probability=0)
    batch = collator([chunks[0], chunks[1]])
    for row in range(2):
        text = processor.tokenizer.encode(chunks[row]["text"], add_special_tokens=False)
        ids = [SOT, ZH, TRANSCRIBE, PLAIN, *text, END]
        padding = batch["labels"].shape[1] - (len(ids) - 1)
        assert batch["decoder_input_ids"][row].tolist() == ids[:-1] + [END] * padding
        assert batch["labels"][row].tolist() == ids[1:] + [-100] * padding
    assert batch["labels"][0, -1] == END  # the longest has no padding


def test_timestamps_stand_around_each_segment(make, chunks, processor):
    inputs, labels = make(timestamp_probability=1, previous_text_probability=0).example(chunks[0])
    expected = [SOT, ZH, TRANSCRIBE]
    for segment in chunks[0]["segments"]:
        text = processor.tokenizer.encode(segment["text"], add_special_tokens=False)
        expected += [ZERO + round(segment["start"] * 50), *text, ZERO + round(segment["end"] * 50)]
    assert inputs == expected
    assert labels == [*expected[1:], END]


def test_a_prompt_is_seen_and_not_supervised(make, chunks, processor):
    inputs, labels = make(timestamp_probability=0, previous_text_probability=1).example(chunks[1])
    prompt = [PREVIOUS, *processor.tokenizer.encode(" " + chunks[0]["text"], add_special_tokens=False)]
    assert inputs[: len(prompt) + 1] == [*prompt, SOT]
    assert labels[: len(prompt)] == [-100] * len(prompt)
    assert labels[len(prompt) :] == [*inputs[len(prompt) + 1 :], END]


@pytest.mark.parametrize("previous", [None, "", "  "])
def test_bug_04_without_a_chunk_before_there_is_no_prompt(make, chunks, previous):
    inputs, labels = make(previous_text_probability=1).example({**chunks[1], "previous_text": previous})
    assert inputs[0] == SOT
    assert -100 not in labels


@pytest.mark.parametrize("words", [1, 200, 437, 443])
@pytest.mark.parametrize("timestamps", [0, 1])
def test_bug_05_a_long_label_keeps_every_token_and_trims_the_prompt(make, chunks, words, timestamps):
    chunk = wordy(chunks[1], words)
    chunk["previous_text"] = "start " + " before" * 400
    collator = make(timestamp_probability=timestamps, previous_text_probability=1)
    inputs, labels = collator.example(chunk)
    label = [token for token in labels if token != -100]
    prompt = inputs[: inputs.index(SOT)]
    assert len(inputs) == len(labels) <= 448
    assert label.count(label[3]) == words
    assert label[-1] == END
    assert len(prompt) == min(224, 448 - len(label)) or len(prompt) == 0  # cut at its far end: "start" is gone
    assert all(token == prompt[1] for token in prompt[1:])


def test_bug_05_a_label_that_cannot_fit_is_named(make, chunks):
    chunk = wordy(chunks[1], 445)
    collator = make(timestamp_probability=0)
    assert not collator.fits(chunk)
    with pytest.raises(K2DError, match=r"noise.flac at 7.0 s: its label has 449 tokens, the decoder 448"):
        collator([chunk])


@pytest.mark.parametrize(
    ("probability", "fits"),
    [(0.0, True), (0.5, False), (1.0, False)],
)
def test_a_label_must_fit_in_every_form_that_can_be_drawn(make, chunks, probability, fits):
    assert make(timestamp_probability=probability).fits(wordy(chunks[1], 444)) is fits


@pytest.mark.parametrize(("given", "own", "expected"), [("zh", None, "zh"), ("zh", "en", "en"), (None, "en", "en")])
def test_a_chunks_own_language_comes_first(make, chunks, given, own, expected):
    labels = make(language=given, previous_text_probability=0).example({**chunks[0], "language": own})[1]
    assert labels[0] == {"zh": 50260, "en": 50259}[expected]


@pytest.mark.parametrize(("probability", "share"), [(0.0, (0, 0)), (0.5, (80, 120)), (1.0, (200, 200))])
def test_timestamps_and_prompts_come_as_often_as_asked(make, chunks, probability, share):
    collator = make(timestamp_probability=probability, previous_text_probability=probability)
    draws = drawn(collator, [{**chunks[0], "start": float(i)} for i in range(200)])
    for which in (0, 1):
        assert share[0] <= sum(draw[which] for draw in draws) <= share[1]


def test_bug_06_draws_change_with_the_epoch_and_come_back_with_it(make, chunks):
    collator = make(previous_text_probability=0.5)
    by_epoch = []
    for collator.epoch in range(6):
        by_epoch.append(drawn(collator, chunks))
    assert len({tuple(draws) for draws in by_epoch}) == 6
    collator.epoch = 2
    assert drawn(collator, chunks) == by_epoch[2]


def test_draws_depend_on_the_seed(make, chunks):
    assert drawn(make(seed=1), chunks) != drawn(make(seed=2), chunks)


@pytest.mark.parametrize("folder", ["/data/", "/home/me/clone/data/", "s3://bucket/data/", "C:\\data\\", ""])
def test_draws_are_the_same_in_another_folder(make, folder):
    collator = make(timestamp_probability=0.5, previous_text_probability=0.5)
    spans = [{"recording": f"lecture_{n}.flac", "start": 30.0 * n} for n in range(40)]
    moved = [{**span, "recording": folder + span["recording"]} for span in spans]
    draws = [collator.draws(span) for span in spans]
    assert [collator.draws(span) for span in moved] == draws
    assert set(draws) == {(timestamps, prompt) for timestamps in (False, True) for prompt in (False, True)}


def test_bug_06_draws_do_not_depend_on_batch_order_or_what_was_drawn_before(make, chunks):
    collator = make(timestamp_probability=0.5, previous_text_probability=0.5)

    def rows(order, size):
        examples = {}
        for at in range(0, len(order), size):
            batch = collator([chunks[i] for i in order[at : at + size]])
            for row, index in enumerate(order[at : at + size]):
                examples[index] = [token for token in batch["labels"][row].tolist() if token != -100]
        return examples

    assert rows([0, 1, 2, 3], 4) == rows([3, 1, 0, 2], 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_bug_06_workers_that_stay_alive_see_the_new_epoch(make, chunks, workers):
    collator = make(timestamp_probability=0.5, previous_text_probability=0.5)
    persistent = {"persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(chunks, batch_size=2, collate_fn=collator, num_workers=workers, **persistent)
    seen = []
    for collator.epoch in range(3):
        inputs = [[t for t in row if t != END] for batch in loader for row in batch["decoder_input_ids"].tolist()]
        assert inputs == [collator.example(chunk)[0] for chunk in chunks]
        seen.append(str(inputs))
    assert len(set(seen)) > 1


def test_evaluation_draws_stay_as_they_are(make, chunks):
    collator = make(previous_text_probability=0.5)
    fixed = collator.for_evaluation()
    before = drawn(fixed, chunks)
    collator.epoch = 5
    assert drawn(fixed, chunks) == before != drawn(collator, chunks)


def test_a_collator_survives_pickling(make, chunks):
    collator = make(seed=3)
    collator.epoch = 4
    copy = pickle.loads(pickle.dumps(collator))
    assert (copy.epoch, drawn(copy, chunks)) == (4, drawn(collator, chunks))


@pytest.mark.parametrize(("multiple", "expected"), [(1, 12), (8, 16), (100, 100), (1000, 448)])
def test_labels_are_padded_to_a_multiple_and_never_beyond_the_decoder(make, chunks, multiple, expected):
    collator = make(timestamp_probability=0, previous_text_probability=0, pad_to_multiple_of=multiple)
    collator.features = lambda chunks: torch.zeros(len(chunks), 80, 3000)
    labels = collator([wordy(chunks[1], 8)])["labels"]
    assert labels.shape == (1, expected)
    assert int((labels != -100).sum()) == 12


def test_soft_weights_come_from_the_distance(make, chunks):
    batch = make(chunk_weighting="soft")([chunks[0], chunks[3]])
    assert batch["chunk_weights"].dtype == torch.float32
    assert batch["chunk_weights"].tolist() == pytest.approx([1.0, 0.7])


def test_features_are_those_of_the_span(make, chunks, processor):
    batch = make()([chunks[2]])
    audio = read_audio(chunks[2]["recording"], 14.0, chunks[2]["duration"])
    expected = processor.feature_extractor(audio, sampling_rate=16000, return_tensors="pt").input_features
    assert torch.equal(batch["input_features"], expected)


def test_features_of_audio_that_a_chunk_holds_are_those_of_its_span(make, chunks):
    chunk, content = chunks[2], io.BytesIO()
    audio = read_audio(chunk["recording"], chunk["start"], chunk["duration"])
    soundfile.write(content, audio, 16000, format="WAV", subtype="FLOAT")
    embedded = chunk | {"recording": "gone.flac", "audio": {"bytes": content.getvalue(), "path": "gone_000014000.wav"}}
    assert torch.equal(make().features([embedded]), make().features([chunk]))
