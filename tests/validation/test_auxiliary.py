"""The auxiliary's pass: every chunk is transcribed again, measured, and kept or dropped with a reason."""

import pytest
import soundfile
from datasets import Dataset
from espeak_extra import needs_espeak
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.data.chunking import Segment, chunk_rows, pack_segments
from k2d_hf.errors import K2DError
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.validation.auxiliary import drop_counts, validate_labels
from k2d_hf.validation.distance import METRICS, label_distance
from k2d_hf.validation.hypotheses import AuxiliaryHypotheses, validation_features

LOOP = "謝謝大家收看" * 6
LABEL = "我們用 GPU 來 train 一個 model"
# seconds of the chunk: what the teacher wrote, what the auxiliary writes
CASES = {
    1.0: (LABEL, LABEL),
    1.5: (LABEL, "我们用GPU来train两个model"),  # one of nine tokens differs
    2.0: (LABEL, "完全不一樣的東西"),
    2.5: (LOOP, LOOP),
    3.0: (LABEL, LOOP),
    3.5: (LABEL, ""),
    4.0: ("今天天氣很好", "今天天氣好了"),
}
TRANSCRIPTS = {seconds: transcript for seconds, (_, transcript) in CASES.items()}


@pytest.fixture
def chunks(noise_file):
    """One chunk a case, of as many seconds, over the same recording."""
    rows = chunk_rows(
        str(noise_file),
        [
            [Segment(10.0 * at, 10.0 * at + seconds, text)]
            for at, (seconds, (text, _)) in enumerate(CASES.items())
            if at < 6
        ],
        language="zh",
    )
    rows += chunk_rows(str(noise_file), [[Segment(5.0, 9.0, CASES[4.0][0])]], language=None)
    return Dataset.from_list(rows, features=chunk_features())


def kept(validated):
    return [seconds for seconds, keep in zip(CASES, validated["keep"], strict=True) if keep]


def test_the_same_rows_come_back_with_the_columns_of_the_contract(chunks):
    validated = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))
    assert validated.features == {**chunk_features(), **validation_features()}
    assert validated.select_columns(chunks.column_names)[:] == chunks[:]
    assert validated["auxiliary_text"][:] == list(TRANSCRIPTS.values())
    assert validated["teacher_loops"][:] == [text == LOOP for text, _ in CASES.values()]
    assert validated["auxiliary_loops"][:] == [text == LOOP for _, text in CASES.values()]
    for metric in ("mer", "per"):
        assert validated[metric][:] == [label_distance(y, v, metric) for y, v in CASES.values()]


@pytest.mark.parametrize(
    ("metric", "threshold", "seconds", "reasons"),
    [
        ("full", 0.0, list(CASES), {}),
        ("trivial", 0.4, [1.0, 1.5, 2.0, 3.0, 3.5, 4.0], {"teacher loops": 1}),
        ("mer", 0.4, [1.0, 1.5, 2.5, 4.0], {"distance > 0.40": 3}),
        ("mer", 0.0, [1.0, 2.5], {"distance > 0.00": 5}),
        ("composite", 0.4, [1.0, 1.5, 3.0, 4.0], {"distance > 0.40": 2, "teacher loops": 1}),
        ("composite", 0.0, [1.0, 3.0], {"distance > 0.00": 4, "teacher loops": 1}),
    ],
)
def test_what_each_metric_keeps_and_why_it_drops(chunks, metric, threshold, seconds, reasons):
    validated = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric=metric, threshold=threshold)
    assert kept(validated) == seconds
    assert drop_counts(validated) == reasons
    assert validated["distance"][:] == [label_distance(y, v, metric) for y, v in CASES.values()]


@needs_espeak
def test_labels_are_compared_by_the_phones_of_a_language(noise_file):
    """What one model writes in Latin letters and the other in Devanagari sounds alike; the paper's phones cannot tell."""
    rows = chunk_rows(str(noise_file), [[Segment(0.0, 2.0, "नमस्ते machine")]], language="hi")
    said = Dataset.from_list(rows, features=chunk_features())
    by_default, by_hindi = (
        validate_labels(said, ScriptedTranscriber({2.0: "नमस्ते मशीन"}), espeak_language=language)
        for language in (None, "hi")
    )
    assert (by_default["keep"][:], by_hindi["keep"][:]) == ([False], [True])
    assert (by_default["per"][0] > 0.4, by_hindi["per"][0], by_hindi["mer"][0]) == (True, 0.0, 0.5)
    with pytest.raises(K2DError, match="espeak_language: espeak-ng has no language 'zz'"):
        AuxiliaryHypotheses(ScriptedTranscriber({}), espeak_language="zz")


def test_a_distance_of_exactly_the_threshold_is_kept(chunks):
    for metric, (at, threshold) in {"mer": (1, 1 / 9), "per": (6, label_distance(*CASES[4.0], "per"))}.items():
        exactly = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric=metric, threshold=threshold)
        below = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric=metric, threshold=threshold - 1e-9)
        assert exactly["distance"][at] == pytest.approx(threshold)
        assert (exactly["keep"][at], below["keep"][at]) == (True, False)


@pytest.mark.parametrize("metric", METRICS)
def test_error_rates_are_normalised_by_the_length_asked_for(chunks, metric):
    for normalise_by in ("auxiliary", "teacher"):
        validated = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric=metric, normalise_by=normalise_by)
        expected = [label_distance(y, v, metric, normalise_by=normalise_by) for y, v in CASES.values()]
        assert validated["distance"][:] == expected


def test_every_chunk_may_be_dropped(chunks):
    validated = validate_labels(
        chunks, ScriptedTranscriber(dict.fromkeys(TRANSCRIPTS, "別的")), metric="mer", threshold=0.1
    )
    assert len(validated) == len(chunks)
    assert not any(validated["keep"])
    assert drop_counts(validated) == {"distance > 0.10": len(chunks)}


def test_validating_again_replaces_the_verdict(chunks):
    once = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), metric="trivial")
    assert (
        validate_labels(once, ScriptedTranscriber(TRANSCRIPTS))[:]
        == validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS))[:]
    )


def test_wrong_settings_are_errors_before_anything_is_transcribed(chunks):
    for data, settings, message in [
        (chunks, {"metric": "wer"}, "metric 'wer' is unknown: choose one of full, trivial"),
        (chunks, {"threshold": 1.1}, r"threshold 1.1 is outside \[0, 1\]"),
        (chunks, {"threshold": -0.1}, r"threshold -0.1 is outside"),
        (chunks, {"metric": "full", "normalise_by": "both"}, "normalise_by 'both' is unknown"),
        (chunks, {"batch_size": 0}, "batch_size 0: at least 1"),
        (chunks.remove_columns(["text", "start"]), {}, "the chunks have no column start, text"),
        (chunks.select([]), {}, "there are no chunks to validate"),
    ]:
        auxiliary = ScriptedTranscriber(TRANSCRIPTS)
        with pytest.raises(K2DError, match=message):
            validate_labels(data, auxiliary, **settings)
        assert auxiliary.calls == []


# Audio, languages, batches


def test_chunks_are_transcribed_in_batches_of_like_length_in_their_language(chunks):
    auxiliary, done = ScriptedTranscriber(TRANSCRIPTS, language="en"), []
    validate_labels(chunks, auxiliary, batch_size=3, on_progress=done.append)
    assert [len(call) for call in auxiliary.calls] == [3, 3, 1]
    assert auxiliary.calls[0][0] == 2.5  # the longest label, a loop, first
    assert auxiliary.calls[2] == [4.0]  # the shortest last
    assert auxiliary.languages == [*["zh"] * 6, None]
    assert sum(done) == len(chunks)
    assert validate_labels(chunks.remove_columns("language"), ScriptedTranscriber(TRANSCRIPTS))["keep"][0]


@pytest.mark.parametrize("workers", [2, 5])
def test_batches_transcribed_at_once_give_what_they_give_one_by_one(chunks, tmp_path, workers):
    expected = validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), batch_size=2)
    done = []
    auxiliary = ScriptedTranscriber(TRANSCRIPTS, calls_at_once=workers)
    validated = validate_labels(chunks, auxiliary, batch_size=2, shards_dir=tmp_path / "j", on_progress=done.append)
    assert validated[:] == expected[:]
    assert sorted(len(call) for call in auxiliary.calls) == [1, 2, 2, 2]
    again = ScriptedTranscriber(TRANSCRIPTS, calls_at_once=workers)
    assert validate_labels(chunks, again, shards_dir=tmp_path / "j", on_progress=done.append)[:] == expected[:]
    assert again.calls == []
    assert sum(done) == 2 * len(chunks)


def test_labels_are_sorted_over_several_batches_by_what_they_cost_to_write(noise_file):
    """Letters cost less than Chinese characters, of which a token is about one."""
    labels = ["machine learning " * 3, "今天講" * 9, "a", "很重要" * 12]
    segments = [[Segment(at, at + 1.0 + at / 10, text)] for at, text in zip((0, 5, 10, 15), labels, strict=True)]
    auxiliary = ScriptedTranscriber({1.0: "", 1.5: "", 2.0: "", 2.5: ""})
    validate_labels(Dataset.from_list(chunk_rows(str(noise_file), segments, language="zh")), auxiliary, batch_size=1)
    assert auxiliary.calls == [[2.5], [1.5], [1.0], [2.0]]


def test_the_auxiliary_hears_the_span_of_the_chunk(noise_file):
    segments = [Segment(0.0, 1.0, "a"), Segment(12.34, 42.34, "b"), Segment(42.34, 60.0, "c")]
    rows = Dataset.from_list(chunk_rows(str(noise_file), pack_segments(segments), language="zh"))
    received = []

    class Listening(ScriptedTranscriber):
        def transcribe_chunks(self, audio, languages=None):
            received.extend(audio)
            return [str(len(samples)) for samples in audio]

    validated = validate_labels(rows, Listening({}))
    assert validated["auxiliary_text"][:] == [str(SAMPLE_RATE), str(30 * SAMPLE_RATE), str(round(17.66 * SAMPLE_RATE))]
    whole = read_audio(noise_file)
    assert all(
        (a == whole[round(s * SAMPLE_RATE) :][: len(a)]).all() for s, a in zip((0, 12.34, 42.34), received, strict=True)
    )


def test_a_chunk_that_cannot_be_read_is_dropped_with_the_reason_until_it_can(chunks, tmp_path, noise_file):
    name = str(tmp_path / "later.wav")
    rows = [dict(row, recording=name) if at == 0 else row for at, row in enumerate(chunks)]
    data = Dataset.from_list(rows, features=chunks.features)
    validated = validate_labels(data, ScriptedTranscriber(TRANSCRIPTS), metric="full", shards_dir=tmp_path / "j")
    assert kept(validated) == list(CASES)[1:]
    assert drop_counts(validated) == {"no such file": 1}
    assert validated["auxiliary_text"][0] is None
    soundfile.write(name, read_audio(noise_file), SAMPLE_RATE)
    auxiliary = ScriptedTranscriber(TRANSCRIPTS)
    assert kept(validate_labels(data, auxiliary, metric="full", shards_dir=tmp_path / "j")) == list(CASES)
    assert auxiliary.calls == [[1.0]]


# Resuming


@pytest.mark.parametrize("calls_before_interrupt", [0, 2, 4, 6])
def test_an_interrupted_run_goes_on_where_it_stopped(chunks, tmp_path, calls_before_interrupt):
    whole = ScriptedTranscriber(TRANSCRIPTS)
    expected = validate_labels(chunks, whole, batch_size=2, shard_size=2)
    first, second = (
        ScriptedTranscriber(TRANSCRIPTS, calls_before_interrupt=calls_before_interrupt),
        ScriptedTranscriber(TRANSCRIPTS),
    )
    with pytest.raises(KeyboardInterrupt):
        validate_labels(chunks, first, batch_size=2, shard_size=2, shards_dir=tmp_path / "j")
    done = []
    validated = validate_labels(
        chunks, second, batch_size=2, shard_size=2, shards_dir=tmp_path / "j", on_progress=done.append
    )
    assert first.calls + second.calls == whole.calls
    assert validated[:] == expected[:]
    assert sum(done) == len(chunks)


def test_another_metric_or_label_needs_no_auxiliary_and_another_auxiliary_other_shards(chunks, tmp_path):
    validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS), shards_dir=tmp_path / "j")
    silent = ScriptedTranscriber({})
    stricter = validate_labels(chunks, silent, shards_dir=tmp_path / "j", metric="mer", threshold=0.0)
    assert kept(stricter) == [1.0, 2.5]
    assert silent.calls == []
    with pytest.raises(K2DError, match=r"other settings \(beam_size 5, now 1\)"):
        validate_labels(chunks, ScriptedTranscriber(TRANSCRIPTS, beam_size=1), shards_dir=tmp_path / "j")


# A real model


@pytest.mark.parametrize(
    ("engine", "cores", "batch_size"),
    [("transformers", 1, 2), ("transformers", 1, 1), ("faster-whisper", 1, 2), ("faster-whisper", 2, 1)],
)
def test_a_checkpoint_validates(noise_file, tmp_path, processor, engine, cores, batch_size, monkeypatch):
    from scripted_whisper import write_scripted_whisper

    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))
    # without timestamps the model of the test writes from its second word on, by position
    auxiliary = write_scripted_whisper(tmp_path / "auxiliary", processor, (8.0, "今天講 machine learning"))
    rows = chunk_rows(
        str(noise_file), [[Segment(at, at + 5, "今天講 machine learning")] for at in (0, 10)], language="zh"
    )
    validated = validate_labels(Dataset.from_list(rows), auxiliary, engine=engine, batch_size=batch_size, threshold=1.0)
    assert len(set(validated["auxiliary_text"])) == 1
    assert "machine learning" in validated["auxiliary_text"][0]
    assert validated["keep"][:] == [True, True]
