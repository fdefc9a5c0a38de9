"""Segments judged one by one: what is kept of a chunk of which a part is wrong, cut out or masked."""

import pytest
from datasets import Dataset
from espeak_extra import needs_espeak
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import AuxiliaryHypotheses
from k2d_hf.data.chunk_files import kept_of
from k2d_hf.data.chunking import Segment, chunk_rows, join_texts
from k2d_hf.data.segment_verdicts import trusted_segments
from k2d_hf.errors import K2DError
from k2d_hf.labelling.teacher import chunk_features
from k2d_hf.validation.auxiliary import validate_labels
from k2d_hf.validation.distance import ValidationReport, label_distance
from k2d_hf.validation.segments import judge_segments, looping_parts, usable_segments
from k2d_hf.validation.settings import ValidateSettings

A, B, C, D = "今天我們講 machine learning", "完全聽錯的一句話", "大家請看這張圖", "我們先休息十分鐘"
RIGHT = "這句話其實是別的意思"  # what was said where the teacher wrote B
LOOP = "謝謝大家"


def segments(*parts):
    return [Segment(start, end, text) for start, end, text in parts]


@pytest.fixture
def chunks(noise_file):
    """A recording of three chunks: one wrong in its middle, one at its end, one right."""
    rows = chunk_rows(
        str(noise_file),
        [
            segments((1.0, 4.0, A), (4.0, 6.0, B), (6.5, 9.0, C)),
            segments((10.0, 13.0, D), (13.0, 15.5, B)),
            segments((16.0, 19.0, C), (19.0, 23.0, A)),
        ],
        language="zh",
    )
    return Dataset.from_list(rows, features=chunk_features())


@pytest.fixture
def auxiliary(chunks):
    spoken = [f"{A}，{RIGHT}。{C}", f"{D}{RIGHT}", f"{C}{A}"]
    return ScriptedTranscriber({row["duration"]: text for row, text in zip(chunks, spoken, strict=True)})


def rows_of(validated, *columns):
    return [tuple(row[name] for name in columns) for row in validated]


def test_a_chunk_is_cut_into_its_trusted_parts_and_the_others(chunks, auxiliary):
    report = ValidationReport()
    cut = validate_labels(chunks, auxiliary, unit="segment", report=report)
    assert rows_of(cut, "start", "duration", "text", "keep") == [
        (1.0, 3.0, A, True),
        (4.0, 2.0, B, False),
        (6.5, 2.5, C, True),
        (10.0, 3.0, D, True),
        (13.0, 2.5, B, False),
        (16.0, 7.0, f"{C}{A}", True),
    ]
    assert cut["drop_reason"][:] == [None, "distance > 0.40", None, None, "distance > 0.40", None]
    assert [row["segments"][0]["start"] for row in cut] == [0.0] * 6
    assert cut[5]["segments"] == chunks[2]["segments"]
    assert cut[2]["auxiliary_text"] == C
    assert all((row["distance"] <= 0.4) == row["keep"] for row in cut)
    assert (report.chunks, dict(report.dropped)) == (6, {"distance > 0.40": 2})
    assert (report.seconds, report.kept_seconds) == (20.0, 15.5)


def test_what_is_cut_sums_to_the_chunks_and_loses_no_text(chunks, auxiliary):
    cut = validate_labels(chunks, auxiliary, unit="segment")
    for row in chunks:
        parts = [part for part in cut if row["start"] <= part["start"] < row["start"] + row["duration"]]
        assert join_texts(part["text"] for part in parts) == row["text"]
        times = [
            (part["start"] + one["start"], part["start"] + one["end"]) for part in parts for one in part["segments"]
        ]
        assert times == [(row["start"] + one["start"], row["start"] + one["end"]) for one in row["segments"]]


def test_a_masked_chunk_stays_whole_and_names_its_distrusted_segments(chunks, auxiliary):
    report = ValidationReport()
    masked = validate_labels(chunks, auxiliary, unit="segment", keep="mask", report=report)
    same = [name for name in chunks.column_names if name != "previous_text"]
    assert masked.select_columns(same)[:] == chunks.select_columns(same)[:]
    assert [trusted_segments(row) for row in masked] == [[True, False, True], [True, False], [True, True]]
    assert masked["keep"][:] == [True] * 3
    assert dict(report.masked) == {"distance > 0.40": 2}
    assert report.masked_seconds == 4.5
    assert kept_of(masked) == (3, 15.5 + 0.5)  # the pause within the first chunk stays


def test_a_prompt_is_never_what_is_distrusted(chunks, auxiliary):
    assert chunks["previous_text"][:] == [None, f"{A}{B}{C}", f"{D}{B}"]
    for keep in ("cut", "mask"):
        rows = validate_labels(chunks, auxiliary, unit="segment", keep=keep)
        prompts = {row["start"]: row["previous_text"] for row in rows if row["keep"]}
        assert (prompts[1.0], prompts[10.0], prompts[16.0]) == (None, C, None)
        assert all(B not in (text or "") for text in prompts.values())


def test_parts_that_are_cut_out_have_no_segment_that_the_window_cuts_off(chunks, auxiliary):
    cut = validate_labels(chunks, auxiliary, unit="segment", threshold=0.4)
    assert cut["next_start"][:] == [None] * 6
    whole = validate_labels(chunks, auxiliary, unit="segment", metric="full")
    assert whole["next_start"][:] == chunks["next_start"][:]


def test_at_a_threshold_the_report_has_what_whole_chunks_would_keep(chunks, auxiliary):
    for keep in ("cut", "mask"):
        report = ValidationReport()
        validate_labels(chunks, auxiliary, unit="segment", keep=keep, threshold=0.2, report=report)
        whole = ValidationReport()
        alone = validate_labels(chunks, auxiliary, threshold=0.2, report=whole)
        assert whole.kept == 1
        assert report.whole_seconds == pytest.approx(kept_of(alone)[1])
        assert report.kept_seconds > report.whole_seconds


@pytest.mark.parametrize("combine", ["any", "all", "sum"])
def test_the_report_counts_whole_chunks_that_judges_drop(chunks, auxiliary, combine):
    """The limit drops the text of a whole chunk by any judge, or by the mean of it and the distance, which is small."""
    given = {"max_compression_ratio": 0.3, "combine": combine, "threshold": 0.9}
    report, whole = ValidationReport(), ValidationReport()
    validate_labels(chunks, auxiliary, unit="segment", report=report, **given)
    alone = validate_labels(chunks, auxiliary, report=whole, **given)
    assert whole.kept == (3 if combine == "all" else 0)
    assert report.whole_seconds == pytest.approx(kept_of(alone)[1])


@pytest.mark.parametrize("keep", ["cut", "mask"])
def test_without_usable_times_a_chunk_stays_one_unit(noise_file, keep):
    (row,) = chunk_rows(str(noise_file), [segments((1.0, 4.0, A), (4.0, 6.0, B), (6.5, 9.0, C))], language="zh")
    backwards = [{**one, "start": one["end"], "end": one["start"]} for one in row["segments"]]
    for given in ({"segments": []}, {"segments": backwards}, {"text": f"{A}{C}"}):
        assert not usable_segments({**row, **given})
        chunk = Dataset.from_list([{**row, **given}], features=chunk_features())
        (validated,) = validate_labels(chunk, ScriptedTranscriber({8.0: f"{A}{RIGHT}{C}"}), unit="segment", keep=keep)
        (alone,) = validate_labels(chunk, ScriptedTranscriber({8.0: f"{A}{RIGHT}{C}"}))
        assert validated["segment_verdicts"] is None
        assert {name: validated[name] for name in alone} == alone


def judged(texts, transcript, **settings):
    rows = [{"start": float(at), "end": at + 1.0, "text": text} for at, text in enumerate(texts)]
    return [one.reason for one in judge_segments(rows, transcript, ValidateSettings(**settings))]


def test_a_loop_of_the_teacher_costs_its_segments_and_those_after_it():
    texts = [A, LOOP, LOOP, LOOP, LOOP, LOOP, LOOP, LOOP, C]
    assert judged(texts, f"{A}{LOOP}{C}") == [None] + ["teacher loops"] * 8
    assert judged(texts, "".join(texts), metric="per") == [None] * 9  # which knows no loops
    assert looping_parts([A, C]) == [False, False]


def test_a_loop_of_the_auxiliary_condemns_nothing():
    assert judged([A, B, C], f"{A}{'船的' * 20}") == [None] * 3
    assert judged([A, B, C], f"{A}{RIGHT}{C}") == [None, "distance > 0.40", None]


def test_judges_measure_each_segment_by_itself():
    thanks = "Thanks for watching"
    assert judged([A, thanks, C], f"{A}{thanks}{C}", max_known_hallucination=0.5) == [
        None, "known hallucination > 0.5", None
    ]  # fmt: skip


def test_the_distance_of_each_segment_is_that_of_what_the_auxiliary_has_of_it():
    rows = [{"start": float(at), "end": at + 1.0, "text": text} for at, text in enumerate([A, B, C])]
    for metric in ("mer", "per", "composite", "trivial", "full"):
        found = judge_segments(rows, f"{A}{RIGHT}{C}", ValidateSettings(metric=metric))
        assert [one.comparison.distance for one in found] == pytest.approx(
            [label_distance(y, v, metric) for y, v in zip([A, B, C], [A, RIGHT, C], strict=True)]
        )


@needs_espeak
def test_segments_are_compared_by_the_phones_of_the_language_that_is_set():
    texts = ["vaca", "kilo"]  # said as baca and quilo are in Spanish, and not in English
    assert judged(texts, "baca quilo", metric="per", espeak_language="es") == [None, None]
    assert judged(texts, "baca quilo", metric="per", threshold=0.1)[0] == "distance > 0.10"


@needs_espeak
def test_parts_that_are_cut_out_have_the_rates_of_the_language_that_is_set(noise_file):
    packed = [segments((0.0, 2.0, "la vaca come"), (2.0, 4.0, "el perro negro ladra mucho"), (4.0, 6.0, "un kilo"))]
    chunks = Dataset.from_list(chunk_rows(str(noise_file), packed, language="es"), features=chunk_features())
    texts = [ScriptedTranscriber({6.0: "la baca come aquí no hay nada un quilo"}) for _ in range(2)]
    given = {"unit": "segment", "metric": "per", "espeak_language": "es"}
    cut = validate_labels(chunks, texts[0], more_auxiliaries=texts[1:], **given)
    kept = cut.filter(lambda row: row["keep"])
    assert kept["text"][:] == ["la vaca come", "un kilo"]
    assert kept["per"][:] == kept["distance"][:] == [0.0, 0.0]
    assert [one[0]["per"] for one in kept["more_auxiliaries"]] == [0.0, 0.0]


def test_a_chunk_that_carries_its_own_sound_is_not_cut(chunks, auxiliary):
    sound = [{"bytes": b"RIFF", "path": None}] * len(chunks)
    own = chunks.add_column("audio", sound)
    step = AuxiliaryHypotheses(auxiliary, unit="segment")
    with pytest.raises(K2DError, match="carries its own sound.* set keep to mask"):
        [step.judged(row, [{"text": f"{A}{RIGHT}{C}", "reason": None}], _nothing_before()) for row in own]


def _nothing_before():
    from k2d_hf.validation.kept_parts import TextBefore

    return TextBefore()


@pytest.mark.parametrize("keep", ["cut", "mask"])
def test_the_map_step_gives_the_same_rows(chunks, auxiliary, keep):
    step = AuxiliaryHypotheses(auxiliary, unit="segment", keep=keep)
    more = chunks.add_column("speaker", ["a", "b", "c"])
    mapped = step(more[:])
    validated = validate_labels(more, auxiliary, unit="segment", keep=keep)
    assert {name: mapped[name] for name in validated.column_names} == validated[:]
    by_table = more.map(step, batched=True, remove_columns=more.column_names, new_fingerprint=f"of {keep}")
    assert by_table[:] == validated[:]
    assert by_table.features == validated.features


def test_a_later_verdict_on_chunks_forgets_that_on_segments(chunks, auxiliary):
    masked = validate_labels(chunks, auxiliary, unit="segment", keep="mask")
    again = validate_labels(masked, auxiliary)
    assert again["segment_verdicts"][:] == [None] * 3
    assert kept_of(again)[1] == sum(row["duration"] for row in again if row["keep"])


def test_silence_between_two_chunks_takes_no_prompt_away(chunks, auxiliary):
    silent = {**chunks[0], "start": 9.2, "duration": 0.7, "segments": [], "text": "", "next_start": None}
    silent["previous_text"] = chunks[1]["previous_text"]
    rows = Dataset.from_list([chunks[0], silent, chunks[1]], features=chunk_features())
    auxiliary.script[0.7] = ""
    for keep in ("cut", "mask"):
        kept = validate_labels(rows, auxiliary, unit="segment", keep=keep).filter(lambda row: row["keep"])
        prompts = dict(rows_of(kept, "start", "previous_text"))
        assert (prompts[9.2], prompts[10.0]) == (C, C)


def test_wrong_settings_are_named():
    with pytest.raises(K2DError, match="unit 'word' is unknown: choose one of chunk, segment"):
        ValidateSettings(unit="word")
    with pytest.raises(K2DError, match="keep 'half' is unknown"):
        ValidateSettings(keep="half")
