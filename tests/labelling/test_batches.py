"""The transcript of a recording, or a chunk, depends on nothing that shares a pass with it, nor on how many do."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_whisper import make_tiny_whisper

from k2d_hf.transcription.decoding import transformers_arguments
from k2d_hf.transcription.engines import OnDemand
from k2d_hf.transcription.transcribers import DecodingOptions
from k2d_hf.transcription.transformers_engine import TransformersTranscriber

NO_SPEECH = 50362
ONCE = {"condition_on_previous_text": False, "temperatures": (0.0,)}
AGAIN = {"condition_on_previous_text": True, "temperatures": (0.0, 1.0)}


def noise(seconds):
    return np.random.default_rng(round(seconds)).normal(0, 0.05, round(seconds * 16000)).astype(np.float32)


def silence(seconds):
    return np.zeros(round(seconds * 16000), np.float32)


RECORDINGS = [
    noise(3),
    np.concatenate([noise(30), silence(30)]),
    silence(5),
    np.concatenate([silence(30), noise(7.1234)]),
    noise(12),
    silence(60),
]


@pytest.fixture(scope="module")
def model(processor):
    """A random Whisper that is sure of silence where there is none but silence, and of little else."""
    import torch

    model = make_tiny_whisper(decoder_layers=1, encoder_layers=1)
    model.generation_config.max_length = 8
    model.generation_config.suppress_tokens = [NO_SPEECH]  # as the real one's
    with torch.no_grad():
        quiet, loud = (
            model.model.encoder(
                processor.feature_extractor(one, sampling_rate=16000, return_tensors="pt").input_features
            ).last_hidden_state.mean((0, 1))
            for one in (silence(30), noise(30))
        )
        token = model.model.decoder.embed_tokens.weight
        token[NO_SPEECH] *= 4
        attention = model.model.decoder.layers[0].encoder_attn
        for part in (
            attention.q_proj.weight,
            attention.v_proj.weight,
            attention.v_proj.bias,
            attention.out_proj.weight,
        ):
            part.zero_()
        attention.v_proj.weight[0] = quiet - loud
        attention.v_proj.bias[0] = -(quiet - loud) @ (0.95 * quiet + 0.05 * loud)
        attention.out_proj.weight[:, 0] = 10 * token[NO_SPEECH]
    return model


@pytest.mark.parametrize("settings", [{"beam_size": 1, **ONCE}, {"beam_size": 2, **ONCE}, {"beam_size": 1, **AGAIN}])
def test_transcripts_of_recordings_do_not_depend_on_the_batch(model, processor, settings):
    options = DecodingOptions(language="zh", dtype="float32", **settings)
    first, *others = (
        TransformersTranscriber(model, processor, replace(options, batch_size=size)).transcribe(RECORDINGS)
        for size in (1, 2, 5)
    )
    assert others == [first] * 2
    assert [bool(transcript.segments) for transcript in first] == [True, True, False, True, True, False]


def test_a_recording_is_transcribed_as_by_generate_alone(model, processor):
    """Of short and of long ones, with the processor's own features: what `pipeline` gives, whatever comes with it."""
    options = DecodingOptions(language="zh", dtype="float32", beam_size=1, batch_size=5, **ONCE)
    transcripts = TransformersTranscriber(model, processor, options).transcribe(RECORDINGS)
    for samples, transcript in zip(RECORDINGS, transcripts, strict=True):
        padding = "max_length" if len(samples) <= 480000 else "longest"
        inputs = processor.feature_extractor(
            samples, sampling_rate=16000, return_tensors="pt", truncation=False, padding=padding,
            return_attention_mask=True,
        )  # fmt: skip
        alone = model.generate(
            **inputs, language="zh", task="transcribe", return_timestamps=True, return_segments=True,
            **transformers_arguments(options),
        )["segments"][0]  # fmt: skip
        spans = [(round(float(one["start"]), 2), round(float(one["end"]), 2)) for one in alone]
        assert [(segment.start, segment.end) for segment in transcript.segments] == spans


@pytest.mark.parametrize(("beam_size", "sizes"), [(1, (1, 2, 5)), (2, (1, 5))])
def test_transcripts_of_chunks_do_not_depend_on_the_batch(model, processor, beam_size, sizes):
    transcriber = TransformersTranscriber(model, processor, DecodingOptions(beam_size=beam_size, dtype="float32"))
    chunks, languages = [noise(3), silence(5), noise(30)], ["zh", None, "en"]
    by_size = [
        [
            text
            for at in range(0, len(chunks), size)
            for text in transcriber.transcribe_chunks(chunks[at : at + size], languages[at : at + size])
        ]
        for size in sizes
    ]
    assert by_size == [by_size[0]] * len(sizes)
    assert len(set(by_size[0])) > 1


@pytest.mark.parametrize(
    ("settings", "together"),
    [
        (ONCE, True),
        (ONCE | {"condition_on_previous_text": True}, False),
        (ONCE | {"temperatures": (0.0, 0.2)}, False),
        (ONCE | {"temperatures": (0.5,)}, False),
    ],
)
def test_recordings_share_a_pass_only_where_nothing_reaches_another(
    model, processor, tiny_whisper_dir, settings, together
):
    options = DecodingOptions(**settings)
    assert TransformersTranscriber(model, processor, options).batches_recordings is together
    assert OnDemand(tiny_whisper_dir, options, engine="transformers").batches_recordings is together
    assert OnDemand(tiny_whisper_dir, options, engine="faster-whisper").batches_recordings is False
