"""Both engines on tiny Whispers: a random one, whose text depends on all it is given, and one whose text is known."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_whisper import write_scripted_whisper
from tiny_whisper import make_tiny_whisper

from k2d_hf.data.chunking import Segment
from k2d_hf.errors import K2DError
from k2d_hf.files.background import Cancelled, spread
from k2d_hf.models.fingerprints import checkpoint_fingerprint
from k2d_hf.transcription import engines
from k2d_hf.transcription.engines import OnDemand, default_engine, open_transcriber
from k2d_hf.transcription.faster_whisper_engine import share_cores
from k2d_hf.transcription.transcribers import DecodingOptions
from k2d_hf.transcription.transformers_engine import TransformersTranscriber

ENGINES = ["transformers", "faster-whisper"]
GREEDY = {"beam_size": 1, "temperatures": (0.0,), "condition_on_previous_text": False, "dtype": "float32"}
SCRIPT = [(8.0, "今天講 machine learning"), (20.0, "很重要")]


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scripted_dir(tmp_path_factory, processor):
    return write_scripted_whisper(tmp_path_factory.mktemp("scripted"), processor, *SCRIPT)


@pytest.fixture(scope="module")
def english_dir(tmp_path_factory, english_processor):
    """A random English-only Whisper: every special token one id earlier, neither languages nor tasks."""
    folder = tmp_path_factory.mktemp("english-whisper")
    model = make_tiny_whisper(vocab_size=51864)
    generation = model.generation_config
    for config in (model.config, generation):
        config.pad_token_id = config.bos_token_id = config.eos_token_id = 50256
        config.decoder_start_token_id = 50257
    generation.is_multilingual = False
    generation.max_length = 20  # a random model has much to say, and slowly
    generation.no_timestamps_token_id, generation.prev_sot_token_id = 50362, 50360
    generation.begin_suppress_tokens = [220, 50256]
    del generation.lang_to_id, generation.task_to_id
    model.save_pretrained(folder)
    english_processor.save_pretrained(folder)
    return folder


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


def noise(*seconds):
    generator = np.random.default_rng(0)
    return [generator.normal(0, 0.05, round(s * 16000)).astype(np.float32) for s in seconds]


# Chunks


def test_chunks_transcribed_together_are_as_transcribed_alone(tiny_whisper_dir, engine):
    transcriber = open_transcriber(tiny_whisper_dir, DecodingOptions(**GREEDY), engine=engine)
    audio, languages = noise(1, 30, 7), ["zh", None, "en"]
    together = transcriber.transcribe_chunks(audio, languages)
    alone = [transcriber.transcribe_chunks([a], [code])[0] for a, code in zip(audio, languages, strict=True)]
    assert together == alone
    assert len(set(together)) == 3
    assert all(text == text.strip() != "" and "<|" not in text for text in together)


def test_both_engines_write_the_same_for_a_chunk(tiny_whisper_dir):
    audio = noise(3, 12)
    first, second = (open_transcriber(tiny_whisper_dir, DecodingOptions(**GREEDY), engine=name) for name in ENGINES)
    assert first.transcribe_chunks(audio, ["zh", "en"]) == second.transcribe_chunks(audio, ["zh", "en"])
    assert first.parameters == second.parameters > 0
    assert [first.engine, second.engine] == ENGINES


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_model_can_be_kept_from_repeating_itself(tiny_whisper_dir, engine, beam_size):
    free, kept = (
        open_transcriber(
            tiny_whisper_dir,
            DecodingOptions(**GREEDY | {"beam_size": beam_size, "no_repeat_ngram_size": size}),
            engine=engine,
        ).transcribe_chunks(noise(5), ["zh"])[0]
        for size in (0, 1)
    )
    assert kept != free


def test_each_chunk_is_transcribed_in_its_own_language(tiny_whisper_dir, engine):
    def texts(*languages, **options):
        transcriber = open_transcriber(tiny_whisper_dir, DecodingOptions(**GREEDY, **options), engine=engine)
        return transcriber.transcribe_chunks(noise(5) * len(languages), languages)

    zh, en = texts("zh", "en")
    assert zh != en
    assert texts("en", None, "zh", language="zh") == [en, zh, zh]
    assert texts(None)[0] in (zh, en)  # as detected
    assert texts("zh", task="translate") != [zh]


def test_an_english_only_model_needs_no_language(english_dir, engine):
    transcriber = open_transcriber(english_dir, DecodingOptions(**GREEDY, language="zh"), engine=engine)
    texts = transcriber.transcribe_chunks(noise(2, 3), ["zh", None])
    assert len(texts) == 2
    assert all(texts)


def test_a_recording_in_an_english_only_model_has_no_language(english_dir, engine):
    transcriber = open_transcriber(english_dir, DecodingOptions(**GREEDY), engine=engine)
    assert [transcript.language for transcript in transcriber.transcribe(noise(1, 1), ["zh", None])] == [None, None]


def test_beams_are_used(tiny_whisper_dir, engine):
    greedy, beams = (
        open_transcriber(tiny_whisper_dir, DecodingOptions(**GREEDY | {"beam_size": size}), engine=engine)
        for size in (1, 3)
    )
    assert greedy.transcribe_chunks(noise(5), ["zh"]) != beams.transcribe_chunks(noise(5), ["zh"])


# Recordings


@pytest.mark.parametrize("batch_size", [1, 3])
def test_recordings_of_any_length_are_transcribed_window_by_window(scripted_dir, engine, batch_size):
    options = DecodingOptions(**GREEDY, language="zh", batch_size=batch_size)
    transcriber = open_transcriber(scripted_dir, options, engine=engine)
    windows = [[Segment(at, at + 8.0, SCRIPT[0][1]), Segment(at + 8.0, at + 20.0, SCRIPT[1][1])] for at in (0.0, 30.0)]
    transcripts = transcriber.transcribe(noise(22, 55, 39))
    assert [transcript.language for transcript in transcripts] == ["zh"] * 3
    assert [transcript.segments for transcript in transcripts] == [windows[0], sum(windows, []), sum(windows, [])]


def test_a_recording_has_the_language_given_or_detected(scripted_dir, engine):
    transcriber = open_transcriber(scripted_dir, DecodingOptions(**GREEDY), engine=engine)
    given = transcriber.transcribe(noise(2, 2), ["en", "zh"])
    assert [transcript.language for transcript in given] == ["en", "zh"]
    (detected,) = transcriber.transcribe(noise(2))
    assert detected.language is not None
    assert transcriber.transcribe(noise(2), [detected.language]) == [detected]


def test_the_fallback_samples_the_same_each_time_and_leaves_other_draws_alone(scripted_dir):
    import torch

    options = DecodingOptions(**GREEDY | {"temperatures": (6.0,)}, language="zh")
    transcriber = open_transcriber(scripted_dir, options, engine="transformers")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = transcriber.transcribe(noise(2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert transcriber.transcribe(noise(2)) == first
    greedy = open_transcriber(scripted_dir, DecodingOptions(**GREEDY, language="zh"), engine="transformers")
    assert greedy.transcribe(noise(2)) != first


# Several calls at once


@pytest.mark.parametrize(
    ("cores", "calls", "workers", "threads"),
    [
        (1, 100, 1, 1),
        (2, 1, 1, 2),  # one call has all cores
        (2, 100, 2, 1),
        (4, 3, 3, 1),
        (4, 100, 4, 1),
        (8, 100, 4, 2),
        (8, 2, 2, 4),
        (16, 100, 4, 4),
        (64, 100, 16, 4),
        (64, 0, 1, 64),
    ],
)
def test_calls_share_the_cores(cores, calls, workers, threads):
    assert share_cores(cores, calls) == (workers, threads)


@given(cores=st.integers(1, 300), calls=st.integers(0, 300))
def test_cores_are_used_and_never_given_twice(cores, calls):
    workers, threads = share_cores(cores, calls)
    assert 1 <= workers <= max(1, calls)
    assert cores - workers < workers * threads <= cores


def test_recordings_at_once_are_transcribed_as_one_by_one(tiny_whisper_dir, monkeypatch):
    audio, options = noise(31, 2, 9), DecodingOptions(**GREEDY | {"dtype": "int8"}, language="zh")
    expected = open_transcriber(tiny_whisper_dir, options, engine="faster-whisper", calls_at_once=3).transcribe(audio)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    transcriber = open_transcriber(tiny_whisper_dir, options, engine="faster-whisper", calls_at_once=3)
    assert transcriber.calls_at_once == 2
    transcripts = spread(lambda at: (at, transcriber.transcribe([audio[at]])[0]), range(len(audio)), workers=2)
    assert [transcript for _, transcript in sorted(transcripts, key=lambda result: result[0])] == expected


def test_what_is_sampled_in_a_recording_depends_on_no_other(tiny_whisper_dir):
    """Random weights are so unsure that every window is sampled."""
    options = DecodingOptions(beam_size=1, temperatures=(0.0, 1.0), language="zh")
    first, second = noise(2, 3)
    alone = open_transcriber(tiny_whisper_dir, options, engine="faster-whisper").transcribe([second])
    transcriber = open_transcriber(tiny_whisper_dir, options, engine="faster-whisper")
    transcriber.transcribe([first])
    assert transcriber.transcribe([second]) == alone
    assert alone[0].segments


def test_torch_keeps_its_threads(tiny_whisper_dir, monkeypatch):
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    torch.set_num_threads(2)
    try:
        transcriber = open_transcriber(tiny_whisper_dir, engine="faster-whisper", calls_at_once=2)
        transcriber.transcribe_chunks(noise(1), ["zh"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_recording_is_cancelled_where_nobody_waits_for_it(scripted_dir, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    options = DecodingOptions(**GREEDY, language="zh")
    transcriber = open_transcriber(scripted_dir, options, engine="faster-whisper", calls_at_once=2)
    outcomes = []

    def transcribe(samples):
        try:
            outcomes.append(transcriber.transcribe([samples]))
        except Cancelled as stopped:
            outcomes.append(stopped)

    results = spread(transcribe, noise(1, 900), workers=2)
    next(results)
    results.close()
    assert [type(outcome) for outcome in outcomes] == [list, Cancelled]


# Opening


def test_every_engine_file_declares_a_choice():
    files = Path(engines.__file__).parent.glob("*_engine.py")
    assert sorted(engines.ENGINES) == sorted(["auto", *ENGINES])
    assert len(list(files)) == len(ENGINES)
    assert [engines.engine_named(name).name for name in ENGINES] == ENGINES


def test_auto_is_the_fast_engine_where_it_is_installed(tiny_whisper_dir, monkeypatch):
    assert open_transcriber(tiny_whisper_dir).engine == default_engine() == "faster-whisper"
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "faster_whisper" else find_spec(name, *rest)
    )
    assert open_transcriber(tiny_whisper_dir).engine == default_engine() == "transformers"
    with pytest.raises(
        K2DError, match=r"not installed: pip install 'av<19,>=16' 'faster-whisper>=1.2', or set engine transformers"
    ):
        open_transcriber(tiny_whisper_dir, engine="faster-whisper")


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("vosk", {}, "engine 'vosk': choose one of auto, transformers, faster-whisper"),
        ("transformers", {"dtype": "int8"}, "dtype 'int8' is not one of the engine transformers: choose float32"),
        ("transformers", {"dtype": "nn"}, "dtype 'nn' is not one"),
        ("faster-whisper", {"dtype": "float17"}, "device 'cpu' with dtype 'float17' in engine faster-whisper"),
        ("transformers", {"device": "abacus"}, "device 'abacus': .*; choose auto, cpu, cuda"),
        ("faster-whisper", {"device": "abacus"}, "device 'abacus' with dtype 'auto' in engine faster-whisper"),
        ("transformers", {"language": "zz"}, "language 'zz' is unknown"),
        ("faster-whisper", {"language": "zz"}, "language 'zz' is unknown"),
    ],
)
def test_what_an_engine_cannot_do_is_an_error(tiny_whisper_dir, engine, options, message):
    with pytest.raises(K2DError, match=message):
        open_transcriber(tiny_whisper_dir, DecodingOptions(**{"device": "cpu"} | options), engine=engine)


def test_a_language_that_the_model_does_not_know_is_an_error_whoever_gives_it(tiny_whisper_dir, engine):
    transcriber = open_transcriber(tiny_whisper_dir, DecodingOptions(**GREEDY), engine=engine)
    for transcribe in (transcriber.transcribe, transcriber.transcribe_chunks):
        with pytest.raises(K2DError, match="language 'zh-TW' is unknown to this vocabulary"):
            transcribe(noise(1), ["zh-TW"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size 0: at least 1"),
        ({"batch_size": 0}, "batch_size 0: at least 1"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size -1: at least 0"),
        ({"task": "sing"}, "task 'sing': choose one of transcribe, translate"),
        ({"temperatures": ()}, "temperatures: give at least one"),
    ],
)
def test_options_that_cannot_be_are_errors(options, message):
    with pytest.raises(K2DError, match=message):
        DecodingOptions(**options)


# On demand


def test_a_model_loads_when_it_is_first_needed_and_once(tiny_whisper_dir, tmp_path):
    copy = shutil.copytree(tiny_whisper_dir, tmp_path / "copy")
    model = OnDemand([tmp_path / "nowhere", copy], DecodingOptions(**GREEDY), engine="transformers")
    settings = model.settings()
    assert settings["model"] == checkpoint_fingerprint(tiny_whisper_dir)
    assert settings["engine"] == "transformers"
    loaded = model.load()
    shutil.rmtree(copy)
    assert model.load() is loaded


def test_a_transcriber_that_is_given_keeps_its_own_options(tiny_whisper, processor):
    given = TransformersTranscriber(tiny_whisper.train(), processor, DecodingOptions(language="en"))
    model = OnDemand(given, DecodingOptions(language="zh"), engine="faster-whisper")
    assert model.load() is given
    assert not tiny_whisper.training
    assert (model.engine, model.options.language) == ("transformers", "en")
    assert model.settings()["language"] == "en"


def test_settings_are_what_transcripts_depend_on(tiny_whisper_dir):
    def settings(**options):
        return OnDemand(str(tiny_whisper_dir), DecodingOptions(**options), engine="transformers").settings()

    assert settings() == settings(batch_size=2, device="cpu")
    assert all(settings() != settings(**{name: value}) for name, value in (GREEDY | {"language": "zh"}).items())


@pytest.mark.parametrize(("model", "engine"), [("/nowhere/at/all", "auto"), ("/nowhere", "vosk")])
def test_what_cannot_be_found_is_an_error_before_anything_loads(model, engine):
    with pytest.raises(K2DError):
        OnDemand(model, DecodingOptions(), engine=engine)
