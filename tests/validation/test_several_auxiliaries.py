"""Several auxiliaries: each transcribes each chunk, and one distance is made of theirs, by median or by vote."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from espeak_extra import needs_espeak
from safetensors.torch import load_file, save_file
from scripted_transcriber import ScriptedTranscriber
from scripted_whisper import write_scripted_whisper

from k2d_hf.cli import main
from k2d_hf.data.chunk_schema import MORE_AUXILIARIES
from k2d_hf.data.chunking import Segment, chunk_rows
from k2d_hf.errors import K2DError
from k2d_hf.files.arrow import write_rows
from k2d_hf.labelling.hypotheses import chunk_features
from k2d_hf.models import resolve_checkpoint
from k2d_hf.pipeline.dry_run import plan_run
from k2d_hf.pipeline.planning.plan_text import render_plan
from k2d_hf.pipeline.recipe import load_recipe
from k2d_hf.pipeline.run_state import RunState
from k2d_hf.pipeline.stages.validate import Validate
from k2d_hf.terminal.console import Console
from k2d_hf.validation.auxiliary import drop_counts, validate_labels
from k2d_hf.validation.calibrate import calibrate, validated_labels
from k2d_hf.validation.calibration_report import render_calibration
from k2d_hf.validation.distance import METRICS, joint_distance, label_distance
from k2d_hf.validation.hypotheses import AuxiliaryHypotheses
from k2d_hf.validation.settings import ValidateSettings

LOOP = "謝謝大家收看" * 6
LABEL = "今天天氣很好"
NEAR, FAR = "今天天氣好了", "完全不一樣的東西"
# seconds of the chunk: what the teacher wrote, and what each of three auxiliaries writes
CASES = {
    1.0: (LABEL, (LABEL, LABEL, LABEL)),
    1.5: (LABEL, (FAR, LABEL, NEAR)),
    2.0: (LABEL, (LABEL, FAR, FAR)),
    2.5: (LOOP, (LOOP, LOOP, FAR)),
    3.0: (LABEL, (NEAR, FAR, LOOP)),
}
TEXTS = [text for text, _ in CASES.values()]


def auxiliaries(count=3, **given):
    scripts = [{seconds: texts[at] for seconds, (_, texts) in CASES.items()} for at in range(count)]
    return [ScriptedTranscriber(script, **given) for script in scripts]


def distances(metric="composite", count=3):
    """Of each case those from each auxiliary [cases, auxiliaries]."""
    return [[label_distance(text, one, metric) for one in texts[:count]] for text, texts in CASES.values()]


@pytest.fixture
def chunks(noise_file):
    """One chunk a case, of as many seconds, over the same recording."""
    segments = [[Segment(10.0 * at, 10.0 * at + seconds, CASES[seconds][0])] for at, seconds in enumerate(CASES)]
    return Dataset.from_list(chunk_rows(str(noise_file), segments, language="zh"), features=chunk_features())


@pytest.fixture
def validate(chunks):
    def validated(first, *more, data=chunks, **given):
        return validate_labels(data, first, more_auxiliaries=more, **given)

    return validated


def test_the_distance_is_that_of_all_and_the_other_columns_are_those_of_the_first(chunks, validate):
    alone, together = validate_labels(chunks, auxiliaries()[0]), validate(*auxiliaries())
    assert together.column_names == [
        name for column in alone.column_names for name in ([column, MORE_AUXILIARIES][: 1 + (column == "distance")])
    ]
    decided = {"distance", "keep", "drop_reason", MORE_AUXILIARIES}
    same = [name for name in together.column_names if name not in decided]
    assert together.select_columns(same)[:] == alone.select_columns(same)[:]
    assert together["distance"][:] == [float(np.median(one)) for one in distances()]
    for row, (text, texts), of_each in zip(together, CASES.values(), distances(), strict=True):
        for at, other in enumerate(row[MORE_AUXILIARIES], start=1):
            rates = {name: label_distance(text, texts[at], name) for name in ("mer", "per")}
            of_other = {"text": texts[at], "loops": texts[at] == LOOP, **rates, "distance": of_each[at]}
            assert other == {**of_other, "segments": None}


def test_what_median_and_vote_keep(validate):
    reasons = ["distance > 0.40", "teacher loops"]
    assert drop_counts(validate(*auxiliaries())) == dict.fromkeys(reasons, 1)
    two = {by: validate(*auxiliaries(2), auxiliaries_by=by) for by in ("median", "vote")}
    near = label_distance(LABEL, NEAR)
    assert two["median"]["distance"][:] == pytest.approx([0, 0.5, 0.5, 1, (1 + near) / 2])
    assert two["vote"]["distance"][:] == pytest.approx([0, 0, 0, 1, near])  # a tie keeps
    assert drop_counts(two["median"]) == {"distance > 0.40": 3, "teacher loops": 1}
    assert drop_counts(two["vote"]) == {"teacher loops": 1}


@pytest.mark.parametrize("count", range(1, 8))
def test_a_vote_drops_where_more_than_half_would_and_a_median_the_same_of_an_odd_number(count):
    of_labels = np.random.default_rng(count).random((count, 500)).round(1)  # many are alike, or on the threshold
    votes, medians = joint_distance(list(of_labels), "vote"), joint_distance(list(of_labels), "median")
    for threshold in (0.0, 0.3, 0.5, 1.0):
        dropped = (of_labels > threshold).sum(axis=0) > count / 2
        assert (votes > threshold).tolist() == dropped.tolist()
        assert count % 2 == 0 or (medians > threshold).tolist() == dropped.tolist()
    assert votes.tolist() == [joint_distance(list(of_label), "vote") for of_label in of_labels.T]


def test_a_vote_is_weighed_with_judges_like_any_distance(validate):
    given = {"auxiliaries_by": "vote", "max_compression_ratio": 0.5, "combine": "all"}  # which all labels are beyond
    assert validate(*auxiliaries(), **given)["drop_reason"][2] == "distance > 0.40 and compression ratio > 0.5"
    assert validate(*auxiliaries(), **given)["keep"][:] == [True, True, False, False, True]


class FailingOnOne(ScriptedTranscriber):
    """An auxiliary without memory for the chunk of 1.5 s."""

    def transcribe_chunks(self, audio, languages=None):
        if any(len(samples) == 1.5 * 16000 for samples in audio):
            raise RuntimeError("no memory")
        return super().transcribe_chunks(audio, languages)


def test_what_one_of_them_fails_on_is_dropped(validate, chunks):
    first, second, _ = auxiliaries()
    validated = validate(first, FailingOnOne(second.script), batch_size=1)
    assert [one[0]["text"] for one in validated[MORE_AUXILIARIES]] == [LABEL, None, FAR, LOOP, FAR]
    assert (validated["keep"][1], validated["drop_reason"][1]) == (False, "not transcribed")
    assert not validated_labels(validated, None).transcribed[1]


def test_one_auxiliary_after_several_leaves_no_trace_of_them(chunks, validate):
    again = validate_labels(validate(*auxiliaries()), auxiliaries()[0])
    assert set(again[MORE_AUXILIARIES]) == {None}
    assert again.remove_columns(MORE_AUXILIARIES)[:] == validate_labels(chunks, auxiliaries()[0])[:]
    by_segment = validate_labels(validate(*auxiliaries()), auxiliaries()[0], unit="segment")
    assert set(by_segment[MORE_AUXILIARIES]) == {None}
    assert validated_labels(again, None).further == []


# By segment

A, B, C = "今天講機器學習", "我們用電腦", "明天考試很重要"
WRONG = "完全不一樣的東西"


@pytest.fixture
def lesson(noise_file):
    """A chunk of three segments, and one without usable times."""
    segments = [Segment(0.0, 2.0, A), Segment(2.0, 4.0, B), Segment(4.0, 6.5, C)]
    rows = chunk_rows(str(noise_file), [segments, [Segment(10.0, 12.0, A)]], language="zh")
    rows[1]["segments"] = []
    return Dataset.from_list(rows, features=chunk_features())


def by_segment(lesson, *texts, **given):
    first, *more = [ScriptedTranscriber({6.5: text, 2.0: text[: len(A)]}) for text in texts]
    return validate_labels(lesson, first, more_auxiliaries=more, unit="segment", **given)


def test_a_segment_is_judged_by_all_and_every_part_has_what_each_wrote_of_it(lesson):
    texts = (f"{A}{WRONG}{C}", f"{A}{WRONG}{C}", f"{A}{B}{WRONG}")
    cut = by_segment(lesson, *texts)
    assert cut["text"][:3] == [A, B, C]
    assert cut["keep"][:] == [True, False, True, True]
    assert cut["auxiliary_text"][:3] == [A, WRONG, C]
    assert [[one["text"] for one in more] for more in cut[MORE_AUXILIARIES][:3]] == [[A, A], [WRONG, B], [C, WRONG]]
    masked = by_segment(lesson, *texts, keep="mask")
    verdicts = masked["segment_verdicts"][0]
    assert [one["drop_reason"] for one in verdicts] == [None, "distance > 0.40", None]
    assert masked[MORE_AUXILIARIES][0][1]["text"] == texts[2]
    assert masked["segment_verdicts"][1] is None  # judged as one
    assert masked[MORE_AUXILIARIES][1][0]["segments"] is None


@pytest.mark.parametrize("by", ["median", "vote"])
@pytest.mark.parametrize("keep", ["cut", "mask"])
@pytest.mark.parametrize("count", [2, 3])
def test_calibration_has_the_distances_by_which_segments_were_judged(lesson, by, keep, count):
    texts = (f"{A}{WRONG}{C}", f"{B}{C}", f"{A}{B}{WRONG}")[:count]
    for metric in METRICS:
        validated = by_segment(lesson, *texts, auxiliaries_by=by, keep=keep, metric=metric)
        labels = replace(validated_labels(validated, None), auxiliaries_by=by)
        judged = [one for row in validated for one in row["segment_verdicts"] or [row]]
        assert len(judged) == 4
        assert labels.distances()[metric].tolist() == [one["distance"] for one in judged]
    (each,) = {len(labels.distances_of_each())}
    assert each == count


def test_of_one_auxiliary_that_is_there_twice_segments_are_those_of_it_alone(lesson):
    text = f"{A}{WRONG}{C}"
    for keep in ("cut", "mask"):
        alone, twice = by_segment(lesson, text, keep=keep), by_segment(lesson, text, text, keep=keep)
        assert twice.remove_columns(MORE_AUXILIARIES)[:] == alone[:]
        for row in twice:
            (other,) = row[MORE_AUXILIARIES]
            assert other["text"] == row["auxiliary_text"]
            assert (other["mer"], other["per"]) == (row["mer"], row["per"])
            rates = other["segments"]
            assert rates is None or rates == [{k: one[k] for k in ("mer", "per")} for one in row["segment_verdicts"]]


def test_a_chunk_that_one_failed_on_stays_one_unit(lesson):
    class Failing(ScriptedTranscriber):
        def transcribe_chunks(self, audio, languages=None):
            raise RuntimeError("no memory")

    first = ScriptedTranscriber({6.5: f"{A}{B}{C}", 2.0: A})
    validated = validate_labels(lesson, first, more_auxiliaries=[Failing({})], unit="segment")
    assert validated["drop_reason"][:] == ["not transcribed"] * 2
    assert validated["chunk_distance"][:] == validated["segment_verdicts"][:] == [None] * 2


# Resuming


def test_they_work_one_after_the_other_and_go_on_where_they_stopped(validate, tmp_path):
    folders = [tmp_path / name for name in "abc"]
    given = {"shards_dir": folders, "shard_size": 2, "batch_size": 1}
    models, done = auxiliaries(), []
    models[1].calls_before_interrupt = 3
    with pytest.raises(KeyboardInterrupt):
        validate(*models, **given)
    assert [len(one.calls) for one in models] == [5, 3, 0]
    again = auxiliaries()
    assert validate(*again, on_progress=done.append, **given)[:] == validate(*auxiliaries())[:]
    assert [len(one.calls) for one in again] == [0, 3, 5]  # of the second those of a finished shard stay
    assert sum(done) == 3 * len(CASES)
    silent = [ScriptedTranscriber({}) for _ in range(3)]
    assert validate(*silent, auxiliaries_by="vote", **given)["distance"][:] == [sorted(one)[1] for one in distances()]
    turned = validate(silent[2], silent[0], **{**given, "shards_dir": [folders[2], folders[0]]})
    assert turned["auxiliary_text"][:] == [texts[2] for _, texts in CASES.values()]
    assert [one.calls for one in silent] == [[]] * 3


def test_a_stream_gives_the_same(validate, chunks):
    stream = chunks.to_iterable_dataset()
    assert validate(*auxiliaries(), data=stream)[:] == validate(*auxiliaries())[:]


# Calibration


@pytest.fixture
def on_disk(validate, tmp_path):
    """A folder of validated chunks."""

    def written(count=3, **given):
        write_rows(validate(*auxiliaries(count), **given), tmp_path / f"{count}")
        return tmp_path / f"{count}"

    return written


@pytest.mark.parametrize("by", ["median", "vote"])
@pytest.mark.parametrize("metric", METRICS)
def test_calibration_has_the_distance_by_which_chunks_were_judged(validate, metric, by):
    for count in (2, 3):
        validated = validate(*auxiliaries(count), metric=metric, auxiliaries_by=by)
        labels = replace(validated_labels(validated, None), auxiliaries_by=by)
        assert labels.distances()[metric].tolist() == validated["distance"][:]


def test_calibration_compares_several_with_each_of_them(on_disk):
    three, two = (calibrate(on_disk(count), None, metric="composite", output=None) for count in (3, 2))
    names = [f"composite of auxiliary {number}" for number in (1, 2, 3)]
    assert [one.name for one in three.comparison.judges if one.name.startswith("composite")][:4] == [
        "composite",
        *names,
    ]
    assert "composite by vote" in {one.name for one in two.comparison.judges}
    assert "of auxiliary 2" in render_calibration(three)
    assert three.curves["composite"].at(0.4).kept == 3 / 5
    kept = [
        calibrate(on_disk(2), None, metric="composite", output=None, auxiliaries_by=by) for by in ("median", "vote")
    ]
    assert [one.curves["composite"].at(0.4).kept for one in kept] == [1 / 5, 4 / 5]


def test_transcripts_of_all_are_compared_anew(on_disk, validate):
    folder = on_disk(3)
    anew = calibrate(folder, None, metric="mer", output=None, compared=ValidateSettings(normalise_by="teacher"))
    expected = validate(*auxiliaries(), metric="mer", normalise_by="teacher")["distance"][:]
    for point in anew.curves["mer"].points:
        assert point.kept == np.mean(np.array(expected) <= point.alpha)


@pytest.mark.parametrize("unit", ["chunk", "segment"])
def test_chunks_of_unlike_numbers_of_auxiliaries_are_not_calibrated(validate, unit):
    two, three = (validate(*auxiliaries(count), unit=unit) for count in (2, 3))
    mixed = [*two.select([0]), *three.select([1])]
    with pytest.raises(K2DError, match="some chunks were judged by more auxiliaries than others"):
        validated_labels(Dataset.from_list(mixed, features=two.features), None)


@pytest.mark.parametrize("unit", ["chunk", "segment"])
def test_calibration_reads_what_each_wrote_once(validate, monkeypatch, unit):
    validated, read, select = validate(*auxiliaries(), unit=unit), [], Dataset.select_columns

    def noted(chunks, names):
        read.extend(names)
        return select(chunks, names)

    monkeypatch.setattr(Dataset, "select_columns", noted)
    assert len(validated_labels(validated, None).further) == 2
    assert read.count(MORE_AUXILIARIES) == 1


@pytest.mark.parametrize("unit", ["chunk", "segment"])
def test_what_a_further_one_did_not_transcribe_is_dropped_at_every_alpha(validate, unit):
    first, second, _ = auxiliaries()
    labels = validated_labels(validate(first, FailingOnOne(second.script), batch_size=1, unit=unit), None)
    assert labels.transcribed.tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("part", ["", "validated"])
def test_calibrating_a_run_takes_its_own_settings_unless_others_are_given(validate, tmp_path, capsys, part):
    run = tmp_path / "run"
    given = {"auxiliaries_by": "vote", "metric": "mer", "normalise_by": "teacher"}
    validated = validate(*auxiliaries(2), **given)
    write_rows(validated, run / "validated")
    (run / "stages.json").write_text("{}", encoding="utf-8")
    settings = ", ".join(f"{name}: {value}" for name, value in given.items())
    (run / "recipe.yaml").write_text(f"{{name: a, validate: {{{settings}, gone: 1}}}}", encoding="utf-8")

    def kept(*options):
        assert k2d("calibrate", run / part, "--output", tmp_path / "out", *options) == 0
        written = json.loads((tmp_path / "out" / "calibration.json").read_text(encoding="utf-8"))
        metric = written["recommendation"]["metric"]
        return metric, [point["kept"] for point in written["curves"][metric]["points"]]

    def expected(metric, **others):
        again = validate(*auxiliaries(2), **{**given, "metric": metric, **others})["distance"][:]
        return metric, [float(np.mean(np.array(again) <= step / 100)) for step in range(101)]

    assert kept() == expected("mer")
    assert kept("--auxiliaries-by", "median") == expected("mer", auxiliaries_by="median")
    assert kept("--metric", "per") == expected("per")
    assert kept("--normalise-by", "auxiliary") == expected("mer", normalise_by="auxiliary")
    (run / "recipe.yaml").write_text("{name: a, validate: {auxiliaries_by: mean}}", encoding="utf-8")
    capsys.readouterr()
    assert k2d("calibrate", run / part) == 1
    error = capsys.readouterr().err
    assert "recipe.yaml: validate.auxiliaries_by: 'mean' is none of median, vote" in error


@needs_espeak
def test_calibrating_a_run_anew_reads_words_as_the_run_did(tmp_path):
    run = tmp_path / "run"
    texts = {"text": ["vaca"], "auxiliary_text": ["baca"]}
    rest = {"recording": ["a"], "start": [0.0], "duration": [9.0], "mer": [1.0], "per": [1.0]}
    loops = {"teacher_loops": [False], "auxiliary_loops": [False]}
    write_rows(Dataset.from_dict(texts | rest | loops), run / "validated")
    (run / "stages.json").write_text("{}", encoding="utf-8")
    (run / "recipe.yaml").write_text("{validate: {espeak_language: es}}", encoding="utf-8")
    assert k2d("calibrate", run, "--output", tmp_path / "out", "--normalise-by", "teacher") == 0
    written = json.loads((tmp_path / "out" / "calibration.json").read_text(encoding="utf-8"))
    assert written["curves"]["per"]["points"][0]["kept"] == 1.0


# What is refused


def test_wrong_settings_are_one_line_before_any_work(validate, chunks, tmp_path):
    models = auxiliaries()
    for more, settings, line in [
        ("openai/whisper-base", {}, r"^more_auxiliaries: 'openai/whisper-base' is no list; give a list of models"),
        (models[1:], {"auxiliaries_by": "mean"}, "^auxiliaries_by 'mean' is unknown: choose one of median, vote"),
        (models[1:], {"shards_dir": tmp_path}, "^shards_dir: 1 for 3 auxiliaries; give a list with a folder for each"),
    ]:
        with pytest.raises(K2DError, match=line):
            validate_labels(chunks, models[0], more_auxiliaries=more, **settings)
    assert [one.calls for one in models] == [[]] * 3


def test_a_loaded_one_among_them_stays_in_its_process(tmp_path, processor):
    folder = write_scripted_whisper(tmp_path, processor, (8.0, LABEL))
    step = AuxiliaryHypotheses(str(folder), more_auxiliaries=auxiliaries(1))
    with pytest.raises(K2DError, match="a loaded model stays in its process"):
        step.__reduce__()


# Real models


@pytest.fixture(scope="module")
def models(tmp_path_factory, processor):
    """Three that disagree."""
    folder = tmp_path_factory.mktemp("models")
    texts = {"one": "今天講 machine learning", "two": "今天講 machine learnings", "three": FAR}
    return [write_scripted_whisper(folder / name, processor, (8.0, text)) for name, text in texts.items()]


@pytest.mark.parametrize("engine", ["transformers", "faster-whisper"])
def test_checkpoints_validate_together_and_as_a_map_step(noise_file, models, engine, tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    rows = chunk_rows(str(noise_file), [[Segment(at, at + 5, "machine learning")] for at in (0, 10)], language="zh")
    chunks = Dataset.from_list(rows, features=chunk_features())
    names = [str(folder) for folder in models]
    more = [["no/such-model", names[1]], names[2]]  # the second is the one of two sources that answers
    given = {"more_auxiliaries": more, "engine": engine, "batch_size": 2}
    validated = validate_labels(chunks, names[0], **given)
    alone = [validate_labels(chunks, name, engine=engine, batch_size=2) for name in names]
    assert len({one["auxiliary_text"][0] for one in alone}) == 3
    for at, row in enumerate(validated):
        texts = [row["auxiliary_text"], *(other["text"] for other in row[MORE_AUXILIARIES])]
        assert texts == [one["auxiliary_text"][at] for one in alone]
        assert row["distance"] == sorted(one["distance"][at] for one in alone)[1]
    mapped = chunks.map(AuxiliaryHypotheses(names[0], **given), batched=True)
    assert mapped.features == validated.features
    assert mapped[:] == validated[:]


def k2d(*arguments):
    return main([str(argument) for argument in arguments])


def test_the_command_takes_each_as_an_option(noise_file, models, tmp_path, capsys):
    rows = chunk_rows(str(noise_file), [[Segment(0, 5, "machine learning")]], language="zh")
    write_rows(Dataset.from_list(rows, features=chunk_features()), tmp_path / "chunks")
    command = ["validate", tmp_path / "chunks", "--auxiliary", models[0], "--engine", "transformers"]
    command += ["--threshold", "1", "--auxiliaries-by", "vote", "--output", tmp_path / "validated"]
    more = ["--more-auxiliaries", models[1], "--more-auxiliaries", models[2]]
    assert k2d(*command, *more[:2], "--more-auxiliaries", models[0]) == 1
    assert f"more_auxiliaries: {models[0]} is an auxiliary already; give another" in capsys.readouterr().err
    assert k2d(*command, *more) == 0
    assert not (tmp_path / "validated.resume").exists()
    assert k2d("calibrate", tmp_path / "validated", "--auxiliaries-by", "vote") == 0
    assert "of auxiliary 3" in capsys.readouterr().out


def test_a_recipe_lists_them_and_its_plan_shows_each(workplace, tmp_path, capsys):
    sets = [f"output={tmp_path / 'run'}", "more_auxiliaries=[teacher, [no/such-model, other]]"]
    recipe = load_recipe(workplace / "recipe.yaml", sets, elsewhere=True)
    assert recipe.more_auxiliaries == ["teacher", ["no/such-model", "other"]]
    recipe = load_recipe(workplace / "recipe.yaml", [sets[0], "more_auxiliaries=[[no/such-model, teacher]]"])
    plan = plan_run(recipe)
    assert plan.more_auxiliaries == (plan.teacher,)
    assert render_plan(plan).count("\nauxiliary ") == 2
    once = plan_run(load_recipe(workplace / "recipe.yaml", sets[:1]))
    took = [{stage.name: stage.seconds for stage in one.stages}["validate"] for one in (once, plan)]
    assert all(two > one for one, two in zip(*took, strict=True))
    for wrong, line in [
        ("teacher", r"more_auxiliaries: 'teacher' is not a list of text or lists of text"),
        ("[[teacher, 1]]", r"more_auxiliaries: \[\['teacher', 1\]\] is not a list of text or lists of text"),
    ]:
        with pytest.raises(K2DError, match=line):
            load_recipe(workplace / "recipe.yaml", [f"more_auxiliaries={wrong}"])


def test_other_weights_in_any_of_them_are_another_result(workplace, tmp_path):
    run = RunState(load_recipe(workplace / "recipe.yaml"), ["label", "validate"], Console(silent=True))
    run.auxiliary = resolve_checkpoint(str(workplace / "auxiliary"))
    run.more_auxiliaries = [resolve_checkpoint(str(workplace / "teacher"))]
    keys = [Validate().depends(run)]
    copied = shutil.copytree(workplace / "teacher", tmp_path / "copied")
    run.more_auxiliaries = [resolve_checkpoint(str(copied))]
    assert Validate().depends(run) == keys[0]  # whatever it is called
    weights = load_file(copied / "model.safetensors")
    weights["model.decoder.layer_norm.weight"] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    run.more_auxiliaries = [resolve_checkpoint(str(copied))]
    keys.append(Validate().depends(run))
    run.more_auxiliaries = []
    keys.append(Validate().depends(run))
    assert len(set(map(repr, keys))) == 3


def test_a_run_has_them_in_line_card_and_keys(workplace, tmp_path, capsys):
    output = tmp_path / "run"
    run = ["run", workplace / "recipe.yaml", "--set", f"output={output}", "--set", "evaluation=null"]
    more = ["--set", "more_auxiliaries=[teacher]"]
    assert k2d(*run, *more) == 0
    assert "the same checkpoint, from scratch (median)" in capsys.readouterr().out
    card = (output / "student" / "README.md").read_text(encoding="utf-8")
    assert "| more auxiliaries | " in card
    assert "; distance by median of all" in card
    record = json.loads((output / "stages.json").read_text(encoding="utf-8"))
    assert k2d(*run, *more) == 0
    assert json.loads((output / "stages.json").read_text(encoding="utf-8")) == record
