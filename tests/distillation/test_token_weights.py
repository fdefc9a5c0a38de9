"""Weights of tokens: distrusted segments teach nothing, tokens that the auxiliary lacks teach less, targets stay."""

from functools import partial

import pytest
import torch
from datasets import Dataset
from espeak_extra import needs_espeak

from distillation.tiny_training import plain_loss, trainer_for
from k2d_hf import K2DDataCollator, K2DTrainingArguments, create_student
from k2d_hf.data.chunking import join_texts
from k2d_hf.distillation.on_policy import with_own_labels
from k2d_hf.distillation.settings import DISAGREED
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError

VERDICT = {"distance": 0.1, "mer": 0.1, "per": 0.1, "teacher_loops": False}


def verdicts(*trusted):
    return [{**VERDICT, "drop_reason": None if one else "distance > 0.40"} for one in trusted]


@pytest.fixture
def rows(chunks):
    """Chunks of which the middle segment, the last and none is distrusted, as validation with a mask gives them."""
    some = [chunks[index] for index in (2, 4, 0)]
    trusted = [(True, False, True), (True, False), (True, True)]
    made = []
    for row, of_row in zip(some, trusted, strict=True):
        text = join_texts(segment["text"] for segment in row["segments"])
        made.append({**row, "text": text, "previous_text": None, "segment_verdicts": verdicts(*of_row)})
        made[-1] |= {"auxiliary_text": text, "auxiliary_loops": False}
    return Dataset.from_list(made)


@pytest.fixture
def make(processor):
    def build(**settings):
        return K2DDataCollator(processor, **{"language": "zh", "previous_text_probability": 0, **settings})

    return build


def weighed(collator, chunk, processor):
    """Tokens of a label with their weights, as text: `(text, weight)`."""
    batch = collator([chunk])
    labels, weights = batch["labels"][0], batch["token_weights"][0]
    return [(processor.tokenizer.decode([i]), float(w)) for i, w in zip(labels.tolist(), weights, strict=True)]


def text_of(pairs, weight):
    return "".join(token for token, of_token in pairs if of_token == weight and not token.startswith("<|")).strip()


@pytest.mark.parametrize("timestamps", [0, 1])
def test_tokens_of_a_distrusted_segment_weigh_nothing(make, rows, processor, timestamps):
    collator = make(timestamp_probability=timestamps)
    pairs = weighed(collator, rows[0], processor)
    assert text_of(pairs, 0.0) == rows[0]["segments"][1]["text"].strip()
    assert sum(not token and weight == 0 for token, weight in pairs) == 2 * timestamps  # its times
    assert pairs[-1][1] == 1.0
    last = weighed(collator, rows[1], processor)
    assert text_of(last, 0.0) == rows[1]["segments"][1]["text"].strip()
    assert last[-1][1] == 0.0  # whether the label ends here is as little known


def test_a_token_that_reaches_into_a_distrusted_segment_weighs_nothing(make, rows, processor):
    joint = next(
        word for word in ("我們", "什麼", "可以", "一個") if len(processor.tokenizer.encode(word, add_special_tokens=False)) == 1
    )  # fmt: skip
    texts = ["好" + joint[0], joint[1] + "好"]
    segments = [{"start": at, "end": at + 1.0, "text": text} for at, text in zip((0.0, 1.0), texts, strict=True)]
    chunk = {**rows[0], "segments": segments, "text": "".join(texts), "segment_verdicts": verdicts(True, False)}
    pairs = weighed(make(timestamp_probability=0), chunk, processor)
    assert text_of(pairs, 1.0) == "好"
    assert text_of(pairs, 0.0) == joint + "好"


def test_labels_and_a_batch_of_trusted_chunks_are_those_of_ever(make, rows, chunks):
    plain = rows.remove_columns(["segment_verdicts"])
    for timestamps in (0, 1):
        collator = make(timestamp_probability=timestamps)
        masked, whole = collator(list(rows)), collator(list(plain))
        assert torch.equal(masked["labels"], whole["labels"])
        assert torch.equal(masked["decoder_input_ids"], whole["decoder_input_ids"])
        assert "token_weights" not in whole
        assert "token_weights" not in collator([rows[2]])
        assert masked["token_weights"].shape == masked["labels"].shape
        assert float(masked["token_weights"][masked["labels"] == -100].abs().sum()) == 0
        assert bool((masked["token_weights"][2][masked["labels"][2] != -100] == 1).all())


@pytest.mark.parametrize("timestamps", [0, 1])
def test_tokens_that_the_auxiliary_has_not_weigh_less(make, rows, processor, timestamps):
    collator = make(timestamp_probability=timestamps, token_weighting="agreement")
    chunk = {**rows[2], "auxiliary_text": "今天我們來看 extension 的 mechanism 是怎麼運作得"}
    pairs = weighed(collator, chunk, processor)
    assert text_of(pairs, DISAGREED) == "attention"
    masked = {**chunk, "segment_verdicts": verdicts(True, False)}
    assert text_of(weighed(collator, masked, processor), 0.0) == rows[2]["segments"][1]["text"].strip()
    for nothing in ({"auxiliary_loops": True}, {"auxiliary_text": None}):
        assert "token_weights" not in collator([{**chunk, **nothing}])
    assert "token_weights" not in make(timestamp_probability=timestamps)([chunk])


@needs_espeak
def test_words_are_compared_by_the_phones_that_the_chunks_were_validated_by(
    make, rows, tiny_whisper, processor, tmp_path
):
    segment = {"start": 0.0, "end": 2.0, "text": "una vaca"}  # said as una baca is in Spanish, and not in English
    chunk = {**rows[2], "text": "una vaca", "segments": [segment], "segment_verdicts": None}
    chunk |= {"auxiliary_text": "una baca"}
    settings = {"timestamp_probability": 0, "token_weighting": "agreement"}
    assert text_of(weighed(make(**settings), chunk, processor), DISAGREED) == "vaca"
    spanish = make(**settings, espeak_language="es")
    assert text_of(weighed(spanish, chunk, processor), 1.0) == "una vaca"
    assert spanish.label_settings() == make(**settings).label_settings()  # the label is the same, and its targets
    trainer = trainer_for(
        create_student(tiny_whisper, language="zh"), rows, processor, tmp_path,
        teacher_model=tiny_whisper, token_weighting="agreement", espeak_language="es",
    )  # fmt: skip
    assert trainer.data_collator.phones == spanish.phones
    for made in (make, partial(K2DTrainingArguments, str(tmp_path))):
        with pytest.raises(K2DError, match="^espeak_language: espeak-ng has no language 'zz'"):
            made(espeak_language="zz")


@pytest.mark.parametrize("stored", [False, True], ids=["online", "targets"])
def test_the_loss_is_that_of_the_weighed_tokens(rows, tiny_whisper, processor, make, tmp_path, stored):
    student = create_student(tiny_whisper, language="zh")
    settings = {"timestamp_probability": 0.5, "previous_text_probability": 0.0, "chunk_weighting": "soft"}
    given = rows
    if stored:
        given = add_soft_targets(rows, tiny_whisper, make(timestamp_probability=0.5), kind="hidden")
    teacher = {} if stored else {"teacher_model": tiny_whisper}
    trainer = trainer_for(student, given, processor, tmp_path, **teacher, **settings)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(3)])
    loss = trainer.compute_loss(trainer.model, batch).item()
    total, tokens = plain_loss(batch, student, tiny_whisper)
    assert 0 < float(batch["token_weights"].mean()) < 1
    assert loss == pytest.approx(total / tokens, rel=1e-3)


def test_a_masked_token_has_no_gradient(rows, tiny_whisper, processor, tmp_path):
    def gradient(text):
        student = create_student(tiny_whisper, language="zh")
        row = {**rows[1], "segments": [rows[1]["segments"][0], {**rows[1]["segments"][1], "text": text}]}
        row["text"] = join_texts(segment["text"] for segment in row["segments"])
        settings = {"kl_weight": 0.0, "timestamp_probability": 1.0, "previous_text_probability": 0.0}
        trainer = trainer_for(student, Dataset.from_list([row]), processor, tmp_path, **settings)
        trainer.loss_sums(trainer.model, trainer.data_collator([row])).total.backward()
        return student.model.decoder.layers[0].fc1.weight.grad

    torch.testing.assert_close(gradient(" 它把"), gradient(" 完全"))


def test_a_mask_leaves_soft_targets_as_they_are(rows, tiny_whisper, make):
    whole = add_soft_targets(rows.remove_columns(["segment_verdicts"]), tiny_whisper, make())
    masked = add_soft_targets(rows, tiny_whisper, make())
    for name in ("teacher_hidden", "target_forms"):
        assert masked[name][:] == whole[name][:]


def test_what_the_student_writes_itself_has_no_weights_of_the_label(rows, tiny_whisper, make):
    batch = make()(list(rows))
    states = torch.zeros(3, 1500, tiny_whisper.config.d_model)
    assert "token_weights" in batch
    assert "token_weights" not in with_own_labels(tiny_whisper, batch, states, temperature=0.0)


def test_agreement_asks_for_what_the_auxiliary_wrote(rows, tiny_whisper, processor, tmp_path):
    student = create_student(tiny_whisper, language="zh")
    with pytest.raises(K2DError, match="token_weighting agreement: the chunks have no column auxiliary_text"):
        trainer_for(
            student, rows.remove_columns(["auxiliary_text"]), processor, tmp_path,
            teacher_model=tiny_whisper, token_weighting="agreement",
        )  # fmt: skip
