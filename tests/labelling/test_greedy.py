"""Greedy decoding writes what `generate` writes, whichever rows of the batch end first."""

import pytest
import torch

from k2d_hf.transcription.greedy import decode_greedily

START = {"zh": [50258, 50260, 50359, 50363], "en": [50258, 50259, 50359, 50363]}  # ... <|transcribe|><|notimestamps|>
LANGUAGES = ["zh", "en", "en", "zh"]
LONGEST = 40


def generated(model, features, **settings):
    """Tokens of each row up to its end."""
    ids = model.generate(features, language=LANGUAGES, task="transcribe", max_length=LONGEST, **settings).tolist()
    end = model.generation_config.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in ids]


@pytest.fixture
def features():
    return torch.randn(4, 80, 3000, generator=torch.Generator().manual_seed(0))


def decoded(model, features, **settings):
    states = model.get_encoder()(features).last_hidden_state
    start_ids = [START[language] for language in LANGUAGES]
    end = model.generation_config.eos_token_id
    return decode_greedily(model, states, start_ids, end_id=end, max_tokens=LONGEST, **settings)


def test_texts_are_those_of_generate(tiny_whisper, features):
    texts = generated(tiny_whisper, features)
    assert decoded(tiny_whisper, features) == texts
    assert len(set(map(tuple, texts))) == len(texts)


@pytest.mark.parametrize("place", [(0, 0), (0, 5), (1, 9), (2, 17), (3, 30)])
def test_rows_that_end_leave_the_others_as_they_were(tiny_whisper, features, place):
    row, at = place
    end = generated(tiny_whisper, features)[row][at]
    tiny_whisper.generation_config.eos_token_id = tiny_whisper.generation_config.pad_token_id = end
    texts = generated(tiny_whisper, features)
    assert decoded(tiny_whisper, features) == texts
    assert len(texts[row]) <= at
    assert not any(end in text for text in texts)


def test_suppressed_tokens_are_never_written_or_never_first(tiny_whisper, features):
    before = generated(tiny_whisper, features)
    never, not_first = before[0][3], before[1][0]
    tiny_whisper.generation_config.suppress_tokens = [never]
    tiny_whisper.generation_config.begin_suppress_tokens = [not_first]
    texts = generated(tiny_whisper, features)
    assert decoded(tiny_whisper, features) == texts != before
    assert not any(never in text or text[0] == not_first for text in texts)


def test_every_row_may_end_at_once(tiny_whisper, features):
    tiny_whisper.generation_config.suppress_tokens = list(range(50257)) + list(range(50258, 51865))
    tiny_whisper.generation_config.begin_suppress_tokens = []
    assert decoded(tiny_whisper, features) == [[]] * 4


@pytest.mark.parametrize("size", [1, 2, 3])
def test_what_is_not_to_repeat_does_not(tiny_whisper, features, size):
    tiny_whisper.model.decoder.embed_positions.weight.data.zero_()  # without positions it repeats itself
    texts = decoded(tiny_whisper, features, no_repeat_ngram_size=size)
    assert texts == generated(tiny_whisper, features, no_repeat_ngram_size=size)
    assert all(len(set(runs)) == len(runs) for runs in (ngrams(text, size) for text in texts))
    assert any(len(set(runs)) < len(runs) for runs in (ngrams(text, size) for text in decoded(tiny_whisper, features)))


def ngrams(text, size):
    return [tuple(text[at : at + size]) for at in range(len(text) - size + 1)]
