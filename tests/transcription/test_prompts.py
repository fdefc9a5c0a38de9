"""What a model is given before the audio: which tokens reach it, that none reaches a transcript, and how much fits."""

import numpy as np
import pytest
import soundfile
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import TeacherHypotheses, label_recordings, load_recordings, transcribe
from k2d_hf.errors import K2DError
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models.whisper_tokens import MAX_PROMPT_TOKENS, SpecialTokens
from k2d_hf.publishing.card_facts import settings_for_card
from k2d_hf.transcription.engines import OnDemand, open_transcriber
from k2d_hf.transcription.prompts import ROOM
from k2d_hf.transcription.transcribers import DecodingOptions

ENGINES = ["transformers", "faster-whisper"]
NAMES = "李宏毅, Whisper, 注意力機制"
GREEDY = {"beam_size": 1, "temperatures": (0.0,), "dtype": "float32", "language": "zh"}


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def audio():
    """Sound of two windows and more."""
    return np.random.default_rng(0).normal(0, 0.05, 40 * 16000).astype(np.float32)


def prompts_of(folder, audio, engine, **options):
    """The tokens that a real model was given before each window, and its transcript."""
    transcriber = open_transcriber(folder, DecodingOptions(**GREEDY, **options), engine=engine)
    prompts = []
    if engine == "transformers":
        generate = transcriber.model._prepare_decoder_input_ids

        def prepared(**arguments):
            ids, rest = generate(**arguments)
            prompts.append(ids[0].tolist())
            return ids, rest

        transcriber.model._prepare_decoder_input_ids = prepared
    else:
        get_prompt = transcriber.model.get_prompt

        def recorded(*arguments, **rest):
            prompts.append(get_prompt(*arguments, **rest))
            return prompts[-1]

        transcriber.model.get_prompt = recorded
    transcript = transcriber.transcribe([audio])[0]
    return prompts, transcript


def ids_of(processor, text):
    return processor.tokenizer.encode(f" {text}", add_special_tokens=False)


def contains(tokens, part):
    return any(tokens[at : at + len(part)] == part for at in range(len(tokens)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_stands_before_the_first_window_and_moves_on_with_the_text(random_dir, processor, audio, engine):
    prompts, transcript = prompts_of(random_dir, audio, engine, prompt=NAMES, condition_on_previous_text=True)
    special, ids = SpecialTokens.of(processor.tokenizer), ids_of(processor, NAMES)
    start = [special.start_of_previous, *ids, special.start_of_transcript]
    assert prompts[0][: len(start)] == start
    assert len(prompts) > 1
    assert all(prompt[0] == special.start_of_previous for prompt in prompts)
    assert len(prompts[1]) > len(prompts[0])
    assert NAMES not in "".join(segment.text for segment in transcript.segments)
    without = prompts_of(random_dir, audio, engine, condition_on_previous_text=True)
    assert without[0][0][0] == special.start_of_transcript
    assert without[1].segments != transcript.segments


def test_without_the_text_before_a_prompt_is_that_of_the_first_window(random_dir, processor, audio):
    options = {"prompt": NAMES, "condition_on_previous_text": False}
    first, *later = prompts_of(random_dir, audio, "faster-whisper", **options)[0]
    assert contains(first, ids_of(processor, NAMES))
    assert later
    assert not any(contains(prompt, ids_of(processor, NAMES)) for prompt in later)


@pytest.mark.parametrize("engine", ENGINES)
def test_hot_words_stand_before_every_window(random_dir, processor, audio, engine):
    options = {"hotwords": NAMES, "condition_on_previous_text": False}
    prompts, transcript = prompts_of(random_dir, audio, engine, **options)
    special = SpecialTokens.of(processor.tokenizer)
    start = [special.start_of_previous, *ids_of(processor, NAMES), special.start_of_transcript]
    assert len(prompts) > 1
    assert all(prompt[: len(start)] == start for prompt in prompts)
    assert NAMES not in "".join(segment.text for segment in transcript.segments)


def test_hot_words_and_the_text_before_share_the_room_of_a_prompt(random_dir, processor, audio):
    words = ", ".join(["Whisper"] * 70)
    options = {"hotwords": words, "condition_on_previous_text": True, "prompt": "今天講"}
    prompts, _ = prompts_of(random_dir, np.concatenate([audio] * 5), "faster-whisper", **options)
    ids = ids_of(processor, words)
    assert len(ids) > 100
    assert all(prompt[1 : 1 + len(ids)] == ids for prompt in prompts)
    longest = max(prompt.index(SpecialTokens.of(processor.tokenizer).start_of_transcript) for prompt in prompts)
    assert longest == MAX_PROMPT_TOKENS  # else this test says nothing
    assert contains(prompts[0], ids_of(processor, "今天講"))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"hotwords": "K2D"}, "hotwords: the engine transformers gives none beside the text before"),
        ({"prompt": "K2D", "condition_on_previous_text": False}, "prompt: the engine transformers gives one with"),
    ],
)
def test_what_transformers_cannot_give_is_refused_before_any_work(random_dir, tmp_path, audio, options, line):
    soundfile.write(tmp_path / "a.wav", audio, 16000)
    recordings = load_recordings(tmp_path)
    with pytest.raises(K2DError, match=rf"^{line}.*; write it as (prompt|hotwords), or set engine to faster-whisper$"):
        label_recordings(recordings, str(random_dir), engine="transformers", **options)
    with pytest.raises(K2DError, match=f"^{line}"):
        transcribe(tmp_path, random_dir, engine="transformers", **{"condition_on_previous_text": True, **options})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_that_is_too_long_is_one_line_before_any_work(random_dir, processor, engine):
    fits, more = "x " * 222, "x " * 300
    while len(ids_of(processor, fits.strip())) > ROOM:
        fits = fits[2:]
    OnDemand(str(random_dir), DecodingOptions(prompt=fits), engine=engine)
    count = len(ids_of(processor, more.strip()))
    with pytest.raises(K2DError, match=rf"^prompt has {count} tokens: Whisper takes at most 223 before a window"):
        TeacherHypotheses(str(random_dir), prompt=more, engine=engine)


def test_prompt_and_hot_words_count_together(random_dir):
    given = {"prompt": "今天 " * 60, "hotwords": "Whisper " * 60, "engine": "faster-whisper"}
    with pytest.raises(
        K2DError, match=r"^prompt has \d+ tokens and hotwords has \d+ tokens: Whisper takes at most 223"
    ):
        TeacherHypotheses(str(random_dir), **given)


@pytest.mark.parametrize("name", ["prompt", "hotwords"])
def test_special_tokens_and_what_is_no_text_are_refused_and_blanks_are_nothing(name):
    with pytest.raises(K2DError, match=rf"^{name}: it has a special token, .*; write plain text$"):
        DecodingOptions(**{name: "今天 <|en|> 講"})
    with pytest.raises(K2DError, match=rf"^{name}: .* is not text"):
        DecodingOptions(**{name: ["K2D", "Whisper"]})
    assert getattr(DecodingOptions(**{name: " \n"}), name) is None


def test_a_prompt_reaches_neither_labels_nor_what_the_student_is_prompted_with(random_dir, tmp_path, audio):
    soundfile.write(tmp_path / "a.wav", audio, 16000)
    for engine in ENGINES:
        given = {"engine": engine, "language": "zh", "beam_size": 1, "temperature_fallback": False}
        chunks = label_recordings(load_recordings(tmp_path), str(random_dir), prompt=NAMES, **given)
        assert len(chunks) > 1
        assert chunks[0]["previous_text"] is None
        assert NAMES not in str(chunks.to_list())
        assert chunks["previous_text"][1:] == chunks["text"][:-1]


def test_a_card_says_that_there_was_a_prompt_and_not_which():
    shown = settings_for_card(LabelSettings(prompt="secret", hotwords="secret", vad=True))
    assert shown == {"vad": True, "prompt": "given", "hotwords": "given"}


def test_a_loaded_transcriber_keeps_its_own_options(tmp_path, audio):
    soundfile.write(tmp_path / "a.wav", audio[:16000], 16000)
    teacher = ScriptedTranscriber({1.0: [(0.0, 0.8, "今天")]})
    assert label_recordings(load_recordings(tmp_path), teacher, hotwords="K2D")["text"][:] == ["今天"]
