"""Columns for judges that labelling writes where it is asked to: confidence, and languages that a stretch lacks."""

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber
from scripted_whisper import write_scripted_whisper
from transformers import WhisperForConditionalGeneration

from k2d_hf.data.chunking import Segment, chunk_rows
from k2d_hf.errors import K2DError
from k2d_hf.labelling.hypotheses import TeacherHypotheses, chunk_features
from k2d_hf.labelling.measures import measured_columns, missing_language, with_measures
from k2d_hf.labelling.silences import with_silences
from k2d_hf.labelling.teacher import label_recordings
from k2d_hf.pipeline.preflight import check_judges
from k2d_hf.pipeline.recipe import Recipe
from k2d_hf.transcription.engines import open_transcriber
from k2d_hf.transcription.transcribers import DecodingOptions, Transcript
from k2d_hf.validation.auxiliary import validate_labels

NAMES = ["uncertainty", "entropy", "no_speech_probability", "missing_language"]
GREEDY = {"beam_size": 1, "temperatures": (0.0,), "condition_on_previous_text": False, "dtype": "float32"}


@pytest.fixture
def audio():
    return np.random.default_rng(0).normal(0, 0.05, 16000 * 12).astype(np.float32)


@pytest.fixture
def recordings(tmp_path, audio):
    soundfile.write(tmp_path / "noise.wav", audio, 16000)
    return Dataset.from_dict({"recording": [str(tmp_path / "noise.wav")]})


@pytest.fixture(scope="module")
def unsure_dir(tmp_path_factory, processor):
    """A Whisper whose text is known, and which gives each of its tokens a probability of about a half."""
    folder = write_scripted_whisper(tmp_path_factory.mktemp("unsure"), processor, (8.0, "今天講"), (20.0, "learning"))
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.model.decoder.layer_norm.weight.fill_(1.5)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("beam_size", [1, 2])
def test_both_engines_are_as_sure_of_the_same_text(unsure_dir, audio, beam_size):
    options = DecodingOptions(language="zh", confidence=True, **{**GREEDY, "beam_size": beam_size})
    first, second = (
        open_transcriber(unsure_dir, options, engine=engine).transcribe([audio])[0].segments
        for engine in ("faster-whisper", "transformers")
    )
    assert [one.text for one in first] == [one.text for one in second] == ["今天講", "learning"]
    assert first[0].confidence["uncertainty"] == pytest.approx(second[0].confidence["uncertainty"], rel=0.1)
    assert 0.1 < first[0].confidence["uncertainty"] < 1.5
    assert {one.confidence["uncertainty"] for one in second} == {second[0].confidence["uncertainty"]}  # of one window
    assert 0 <= first[0].confidence["no_speech_probability"] <= 1


@pytest.mark.parametrize(("engine", "beam_size"), [("faster-whisper", 1), ("transformers", 1), ("transformers", 3)])
def test_the_entropy_of_what_a_text_was_chosen_from(unsure_dir, audio, processor, engine, beam_size):
    """That of the model's own distributions, by one more pass over what it wrote."""
    options = DecodingOptions(language="zh", confidence=True, **{**GREEDY, "beam_size": beam_size})
    segments = open_transcriber(unsure_dir, options, engine=engine).transcribe([audio])[0].segments
    assert [one.text for one in segments] == ["今天講", "learning"]
    texts = [processor.tokenizer.encode(one.text, add_special_tokens=False) for one in segments]
    times = [50364, 50364 + 400, 50364 + 400, 50364 + 1000]
    written = [50258, 50260, 50359, times[0], *texts[0], *times[1:3], *texts[1], times[3]]
    model = WhisperForConditionalGeneration.from_pretrained(unsure_dir)
    features = processor.feature_extractor(audio, sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        logits = model(features, decoder_input_ids=torch.tensor([written])).logits[0].double()
    logits[:, model.generation_config.suppress_tokens] = -1e9
    entropies = torch.distributions.Categorical(logits=logits).entropy()
    of_text = [entropy for token, entropy in zip(written[1:], entropies, strict=False) if token < 50257]
    assert len(of_text) == sum(map(len, texts))
    expected = float(torch.stack(of_text).mean())
    assert expected > 0.1
    assert [one.confidence["entropy"] for one in segments] == pytest.approx([expected] * 2, rel=0.02)


def test_a_window_that_was_drawn_has_the_entropy_of_the_model_not_of_the_draw(random_dir, audio):
    given = {"language": "zh", "beam_size": 1, "confidence": True, "condition_on_previous_text": False}
    drawn, greedy = (
        open_transcriber(random_dir, DecodingOptions(**given, temperatures=temperatures), engine="faster-whisper")
        .transcribe([audio])[0]
        .segments
        for temperatures in ((0.2,), (0.0,))
    )
    assert [one.text for one in drawn] != [one.text for one in greedy]
    assert drawn[0].confidence["entropy"] == pytest.approx(greedy[0].confidence["entropy"], rel=0.01)


def test_beams_of_the_fast_engine_have_no_entropy(unsure_dir, audio):
    options = DecodingOptions(language="zh", confidence=True, **{**GREEDY, "beam_size": 2})
    transcriber = open_transcriber(unsure_dir, options, engine="faster-whisper")
    assert {*transcriber.transcribe([audio])[0].segments[0].confidence} == {"uncertainty", "no_speech_probability"}


@pytest.mark.parametrize(("beam_size", "lacks"), [(1, False), (2, True), (5, True)])
def test_what_the_engine_cannot_give_is_one_line_before_its_model_is_loaded(unsure_dir, caplog, beam_size, lacks):
    step = TeacherHypotheses(unsure_dir, engine="faster-whisper", measures=True, beam_size=beam_size)
    line = "measures: the engine faster-whisper does not give entropy as it decodes here"
    assert [record.message for record in caplog.records] == [line] * lacks
    assert step.model._loaded is None


def test_segments_carry_it_only_where_it_is_asked_for(unsure_dir, audio):
    for engine in ("faster-whisper", "transformers"):
        segments = open_transcriber(unsure_dir, DecodingOptions(**GREEDY), engine=engine).transcribe([audio])
        assert {one.confidence for one in segments[0].segments} == {None}


def test_labelling_writes_what_the_engine_gives(unsure_dir, recordings, tmp_path, caplog):
    given = {"language": "zh", "beam_size": 1, "condition_on_previous_text": False, "temperature_fallback": False}
    plain = label_recordings(recordings, unsure_dir, engine="faster-whisper", **given)
    assert plain.features == chunk_features()
    shards = tmp_path / "shards"
    fast = label_recordings(recordings, unsure_dir, engine="faster-whisper", measures=True, shards_dir=shards, **given)
    assert caplog.text == ""
    assert fast.column_names == [*plain.column_names, *NAMES]
    assert fast.remove_columns(NAMES)[:] == plain[:]
    assert fast["uncertainty"][0] > 0
    assert fast["no_speech_probability"][0] is not None
    assert fast["missing_language"][:] == [0.0] * len(fast)
    again = label_recordings(recordings, unsure_dir, engine="faster-whisper", measures=True, shards_dir=shards, **given)
    assert again[:] == fast[:]  # of what a shard kept
    torch = label_recordings(recordings, unsure_dir, engine="transformers", measures=True, **given)
    assert torch.column_names == [*plain.column_names, "uncertainty", "entropy", "missing_language"]
    assert fast["entropy"][0] == pytest.approx(torch["entropy"][0], rel=0.1)
    assert "measures: the engine transformers does not give no_speech_probability as it decodes here" in caplog.text
    with pytest.raises(K2DError, match="max_no_speech_probability: the chunks have no column no_speech_probability"):
        validate_labels(torch, ScriptedTranscriber({}), max_no_speech_probability=0.6)


def test_what_labelling_measures_is_of_its_segments():
    sure, unsure = (
        {"uncertainty": value, "entropy": 2 * value, "no_speech_probability": value / 2} for value in (0.2, 0.8)
    )
    chunks = [
        [Segment(0, 10, "今天講", sure), Segment(10, 40 / 3, "learning", unsure)],
        [Segment(30, 35, "好", None)],
    ]
    rows = with_measures(chunk_rows("a.wav", chunks, language="zh"), chunks, NAMES)
    assert rows[0]["uncertainty"] == pytest.approx((10 * 0.2 + 10 / 3 * 0.8) / (40 / 3))
    assert rows[0]["entropy"] == pytest.approx(2 * rows[0]["uncertainty"])
    assert rows[0]["no_speech_probability"] == 0.4
    assert [rows[1][name] for name in NAMES[:3]] == [None] * 3
    assert rows[0]["segments"][0] == {"start": 0, "end": 10, "text": "今天講"}
    silent = with_silences(rows, [(14.0, 29.0)])[1]
    assert [silent[name] for name in NAMES] == [None] * 4


MIXED, MANDARIN, ENGLISH = (
    "我們用 GPU 來 train 一個 model",
    "我們來看看這個重要的問題",
    "let us look at this important question now",
)


@pytest.mark.parametrize(
    ("texts", "highest"),
    [
        ([], []),
        ([MIXED] * 3, [0] * 3),
        ([MANDARIN] * 3, [0] * 3),  # a lecture in one language lacks none
        ([MIXED, MANDARIN, MANDARIN, MIXED], [0, 6 / 42 * 24, 6 / 42 * 24, 0]),
        ([MIXED, ENGLISH, MIXED], [0, 12 / 26 * 8, 0]),  # translated into the other one
        ([MANDARIN] * 50 + ["好的 okay"], [1 / 603 * 600] * 50 + [0]),  # never more than there are
        (["2023 年", MIXED], [3 / 10 * 1, 0]),  # digits are of no language
    ],
)
def test_what_a_stretch_lacks(texts, highest):
    assert missing_language(texts) == pytest.approx(highest)


def test_columns_follow_from_the_engine():
    assert measured_columns(("uncertainty", "entropy", "no_speech_probability")) == NAMES
    assert measured_columns(()) == ["missing_language"]


class Unasked(ScriptedTranscriber):
    """An engine that was opened by the user, without the option."""

    def transcribe(self, audio, languages=None):
        return [Transcript([Segment(0.0, 5.0, "今天講")], "zh") for _ in audio]


def test_a_transcriber_that_was_not_asked_has_no_such_columns(recordings, caplog):
    chunks = label_recordings(recordings, Unasked({}), measures=True)
    assert set(chunks.column_names) & set(NAMES) == {"missing_language"}
    assert "does not give uncertainty and entropy and no_speech_probability" in caplog.text


@pytest.mark.parametrize(
    ("label", "validate", "line"),
    [
        ({}, {"max_uncertainty": 1.0}, "validate.max_uncertainty: labelling does not measure it; set label.measures"),
        (
            {"measures": True, "engine": "transformers"},
            {"max_uncertainty": 1.0},
            "validate.max_uncertainty: the engine transformers does not give uncertainty as it decodes here; set",
        ),
        ({"measures": True, "engine": "transformers", "temperature_fallback": False}, {"max_uncertainty": 1.0}, None),
        ({"measures": True, "engine": "faster-whisper"}, {"max_no_speech_probability": 0.5}, None),
        (
            {"measures": True, "engine": "faster-whisper"},
            {"max_entropy": 1.0},
            "validate.max_entropy: the engine faster-whisper does not give entropy as it decodes here; set "
            "label.beam_size to 1, or leave the limit out",
        ),
        (
            {"measures": True, "engine": "transformers"},
            {"max_entropy": 1.0},
            "validate.max_entropy: the engine transformers does not give entropy as it decodes here; set "
            "label.temperature_fallback to false, or leave the limit out",
        ),
        ({"measures": True, "engine": "faster-whisper", "beam_size": 1}, {"max_entropy": 1.0}, None),
        ({}, {"max_compression_ratio": 2.0}, None),
    ],
)
def test_a_recipe_whose_labels_cannot_be_judged_is_one_line(label, validate, line):
    from k2d_hf.data.settings import DataSettings
    from k2d_hf.labelling.settings import LabelSettings
    from k2d_hf.validation.settings import ValidateSettings

    recipe = Recipe(
        name="a", recordings=DataSettings(source="a"), teacher="a", auxiliary="b", label=LabelSettings(**label),
        validate=ValidateSettings(**validate),
    )  # fmt: skip
    if line is None:
        check_judges(recipe)
    else:
        with pytest.raises(K2DError, match=f"^{line}"):
            check_judges(recipe)
