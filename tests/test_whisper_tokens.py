"""Whisper's token layout: specials by name, labels that read back as they were written, prompts that stay prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2d_hf.errors import K2DError
from k2d_hf.models.whisper_tokens import (
    IGNORED,
    MAX_PROMPT_TOKENS,
    LabelEncoder,
    SpecialTokens,
    language_code,
    strip_special,
    token_id,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# Pieces that close up to special tokens when others between them are taken out.
HOSTILE = st.lists(
    st.sampled_from(["<|", "|>", "endoftext", "startofprev", "<", "|", ">", "1.00", "zh", "好", " a"])
).map("".join)
SEGMENTS = [
    {"start": 0.0, "end": 2.5, "text": " 今天講"},
    {"start": 2.98, "end": 30.0, "text": " machine learning"},
]


@pytest.fixture(scope="module")
def encoder(processor):
    return LabelEncoder(processor.tokenizer)


# Special tokens


def test_special_tokens_are_those_of_the_multilingual_vocabulary(processor):
    assert SpecialTokens.of(processor.tokenizer) == SpecialTokens(
        end_of_text=50257,
        start_of_transcript=50258,
        start_of_previous=50361,
        no_timestamps=50363,
        timestamp_begin=50364,
        multilingual=True,
    )


def test_special_tokens_of_an_english_only_vocabulary_come_one_earlier(english_processor):
    assert SpecialTokens.of(english_processor.tokenizer) == SpecialTokens(
        end_of_text=50256,
        start_of_transcript=50257,
        start_of_previous=50360,
        no_timestamps=50362,
        timestamp_begin=50363,
        multilingual=False,
    )


def test_bug_09_tokens_are_found_by_name_whatever_the_order_of_special_tokens(processor):
    tokenizer = processor.tokenizer.__class__.from_pretrained(processor.tokenizer.name_or_path)
    expected, positions = SpecialTokens.of(tokenizer), tokenizer.all_special_ids
    tokenizer.extra_special_tokens = sorted(tokenizer.extra_special_tokens, reverse=True)
    assert tokenizer.all_special_ids != positions
    assert SpecialTokens.of(tokenizer) == expected


@pytest.mark.parametrize("name", ["<|startofpreviously|>", "startofprev", "<|zz|>"])
def test_a_name_that_is_no_token_is_an_error(processor, name):
    with pytest.raises(K2DError, match="is it a Whisper tokenizer"):
        token_id(processor.tokenizer, name)


def test_a_tokenizer_of_another_kind_is_an_error():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    other = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    with pytest.raises(K2DError, match=r"no token <\|endoftext\|>"):
        SpecialTokens.of(other)


@pytest.mark.parametrize(
    ("seconds", "name"),
    [(0.0, "<|0.00|>"), (0.02, "<|0.02|>"), (2.98, "<|2.98|>"), (2.989, "<|2.98|>"), (29.999999999, "<|30.00|>"), (30.0, "<|30.00|>"), (31.0, "<|30.00|>"), (-0.1, "<|0.00|>")],
)  # fmt: skip
def test_timestamps(encoder, seconds, name):
    assert encoder.tokenizer.convert_ids_to_tokens(encoder.special.timestamp(seconds)) == name


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_time_has_no_timestamp(encoder, seconds):
    with pytest.raises(K2DError, match="give its times in seconds"):
        encoder.special.timestamp(seconds)


# Text


@pytest.mark.parametrize(
    ("text", "stripped"),
    [
        ("plain <text> |", "plain <text> |"),
        ("a<|endoftext|>b", "ab"),
        ("<|startofprev|> old<|2.00|>", " old"),
        ("<|<|zh|>endoftext|>", ""),
        ("<|<|<|x|>y|>z|>", ""),
        ("|><|>a|<b|>", "|><|>a|<b|>"),
        ("<|" * 50_000 + "|>" * 50_000, ""),  # in no time
    ],
)
def test_strip_special(text, stripped):
    assert strip_special(text) == stripped


@given(HOSTILE)
def test_bug_03_no_text_becomes_a_special_token(encoder, text):
    assert all(index < encoder.special.end_of_text for index in encoder.text_ids(text))
    prompt = encoder.prompt_ids(text, room=448)
    assert prompt[:1] in ([], [encoder.special.start_of_previous])
    assert all(index < encoder.special.end_of_text for index in prompt[1:])
    segments = [{"start": 0.0, "end": 1.0, "text": text}]
    for timestamps in (False, True):
        label = encoder.label_ids(text, segments, language="zh", timestamps=timestamps)
        assert sum(index >= encoder.special.end_of_text for index in label) == (6 if timestamps else 5)


def test_lone_surrogates_are_no_text(encoder):
    assert encoder.text_ids("a\ud800b") == encoder.text_ids("ab")


# Labels


def test_labels_in_both_forms(encoder):
    def names(timestamps):
        ids = encoder.label_ids("今天講machine learning", SEGMENTS, language="zh", timestamps=timestamps)
        assert encoder.tokenizer.decode([i for i in ids if i < encoder.special.end_of_text]).replace(" ", "") == (
            "今天講machinelearning"
        )
        return [encoder.tokenizer.convert_ids_to_tokens(i) for i in ids if i >= encoder.special.end_of_text]

    start = ["<|startoftranscript|>", "<|zh|>", "<|transcribe|>"]
    assert names(False) == [*start, "<|notimestamps|>", "<|endoftext|>"]
    assert names(True) == [*start, "<|0.00|>", "<|2.50|>", "<|2.98|>", "<|30.00|>", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("first", "text", "decoded"),
    [(" Hello", "Hello world", " Hello world"), ("Hello", "Hello world", "Hello world"), ("今天", "今天", "今天")],
)
def test_a_label_without_timestamps_begins_with_a_blank_where_the_teacher_did(encoder, first, text, decoded):
    ids = encoder.label_ids(text, [{"start": 0.0, "end": 1.0, "text": first}], language="en", timestamps=False)
    assert encoder.tokenizer.decode(ids, skip_special_tokens=True) == decoded


@given(TEXTS)
def test_labels_read_back_as_they_were_written(encoder, text):
    for timestamps in (False, True):
        segments = [{"start": 0.0, "end": 1.0, "text": text}]
        ids = encoder.label_ids(text, segments, language="zh", timestamps=timestamps)
        text_ids = [index for index in ids if index < encoder.special.end_of_text]
        blank = " " if not timestamps and text.startswith(" ") else ""
        assert encoder.tokenizer.decode(text_ids) == blank + strip_special(text)


def test_an_english_only_label_has_no_language_or_task(english_processor):
    encoder = LabelEncoder(english_processor.tokenizer)
    special = encoder.special
    ids = encoder.label_ids("a", [], language=None, timestamps=False)
    assert ids == [special.start_of_transcript, special.no_timestamps, *encoder.text_ids("a"), special.end_of_text]


def test_translation_is_a_task_too(processor):
    ids = LabelEncoder(processor.tokenizer, task="translate").start_ids("zh")
    assert processor.tokenizer.convert_ids_to_tokens(ids) == ["<|startoftranscript|>", "<|zh|>", "<|translate|>"]


@pytest.mark.parametrize(
    ("language", "message"),
    [
        (None, "no language for the labels: set language"),
        ("", "no language for the labels: set language"),
        ("zz", "language 'zz' is unknown to this vocabulary: give a code such as 'zh'"),
        ("Mandarin", "language 'Mandarin' is unknown"),
        ("transcribe", "language 'transcribe' is unknown"),
        ("startofprev", "language 'startofprev' is unknown"),
        ("1.00", "language '1.00' is unknown"),
        ("\ud800", r"language '\\ud800' is unknown"),
    ],
)
def test_a_language_that_cannot_be_is_an_error(encoder, language, message):
    with pytest.raises(K2DError, match=message):
        encoder.start_ids(language)


# Prompts


def test_a_prompt_is_the_end_of_the_text_before(encoder):
    ids = encoder.prompt_ids("今天講 machine learning", room=448)
    assert ids[0] == encoder.special.start_of_previous
    assert encoder.tokenizer.decode(ids[1:]) == " 今天講 machine learning"


@pytest.mark.parametrize("previous", [None, "", "  ", "<|startofprev|>", "<|0.00|> <|2.00|>", "\ud800"])
def test_bug_04_no_text_before_is_no_prompt(encoder, previous):
    assert encoder.prompt_ids(previous, room=448) == []


@given(TEXTS, st.integers(-5, 448))
def test_bug_05_a_prompt_is_cut_from_its_far_end_to_the_room_there_is(encoder, text, room):
    whole = encoder.text_ids(" " + strip_special(text).strip())
    prompt = encoder.prompt_ids(text, room=room)
    assert len(prompt) <= max(0, min(room, MAX_PROMPT_TOKENS))
    if prompt:
        assert prompt[1:] == whole[len(whole) - len(prompt) + 1 :]
        assert len(prompt) == min(room, MAX_PROMPT_TOKENS, len(whole) + 1)
    else:
        assert room < 2 or not strip_special(text).strip()


def test_a_prompt_has_at_most_224_tokens(encoder):
    assert len(encoder.prompt_ids("今天講 machine learning " * 200, room=448)) == 224


@given(st.text("ab 我學", max_size=40), st.text("cd 機習", max_size=40), st.booleans())
def test_teacher_forcing_shifts_by_one_and_supervises_the_label_alone(encoder, text, previous, timestamps):
    label = encoder.label_ids(text, [{"start": 0, "end": 1, "text": text}], language="zh", timestamps=timestamps)
    prompt = encoder.prompt_ids(previous, room=448 - (len(label) - 1))
    inputs, labels = encoder.teacher_forcing(label, prompt)
    assert len(inputs) == len(labels) == len(prompt) + len(label) - 1 <= 448
    assert inputs == [*prompt, *label[:-1]]
    supervised = [target for target in labels if target != IGNORED]
    assert supervised == label[1:]  # language and task tokens are, <|startoftranscript|> is not
    assert labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert inputs.count(encoder.special.start_of_previous) == bool(prompt)
    assert inputs[len(prompt)] == encoder.special.start_of_transcript


@pytest.mark.parametrize(
    ("written", "code"),
    [("zh", "zh"), ("<|zh|>", "zh"), ("Chinese", "zh"), ("mandarin", "zh"), (None, None), ("", None), ("xx", "xx")],
)
def test_language_names_of_checkpoints_become_codes(written, code):
    assert language_code(written) == code
