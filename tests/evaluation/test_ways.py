"""Each way in which a card shows a student used is measured as such, and what was not is not in the figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import WRITTEN
from datasets import Dataset

from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.evaluation.sets import UNNAMED, EvaluationSet
from k2d_hf.evaluation.ways import FASTER_WHISPER, PIPELINE, SETTINGS, text_difference
from k2d_hf.files.cache import keep_in_cache
from k2d_hf.files.extras import install_hint
from k2d_hf.models.checkpoint import Checkpoint
from k2d_hf.pipeline.recipe import EvaluateSettings
from k2d_hf.pipeline.run_state import Job
from k2d_hf.pipeline.stages.evaluate import evaluate
from k2d_hf.terminal.console import Console
from k2d_hf.transcription import engines

BOTH = tuple(SETTINGS)


@pytest.fixture
def recordings(tmp_path):
    """Two of three recordings have a reference."""
    rows = []
    for seconds, reference in ((3, None), (4, " ".join(WRITTEN)), (5, "對")):
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, seconds * 16000), 16000)
        rows.append({"recording": str(path), "reference": reference, "language": None})
    return Dataset.from_list(rows)


@pytest.fixture
def notes():
    """What each measurement said last of what it was doing."""
    return []


@pytest.fixture
def measure(workplace, recordings, tmp_path, notes):
    """Figures of the student, and those by which its speed was measured in each way."""

    def measure(*, ways=BOTH, most=1, resume=None, of=recordings, **settings):
        stage = Console(silent=True).progress("evaluate")
        figures = evaluate(
            {"student": Checkpoint(workplace / "teacher", name="teacher", origin="local")},
            {UNNAMED: EvaluationSet(of, language="zh")},
            EvaluateSettings(**{"beam_size": 1, **settings}),
            Job(stage, output=None, resume=resume),
            ways=ways,
            way_recordings=most,
        )[UNNAMED]["student"]
        assert stage.lines.done <= len(of)  # recordings evaluated, or found measured; the ways are none
        notes.append(stage.lines.note)
        return figures, figures["ways"]

    return measure


def test_the_evaluation_itself_is_one_way_and_the_others_are_measured_on_the_first_recordings(measure, notes):
    figures, ways = measure(engine="faster-whisper", temperature_fallback=True)
    assert notes == [f"student with {PIPELINE}"]
    assert figures["dtype"].startswith("int8")
    shown = ("engine", "dtype", "recordings", "beam_size", "temperature_fallback", "differs")
    assert [ways[FASTER_WHISPER][name] for name in shown] == ["faster-whisper", figures["dtype"], 2, 1, True, None]
    assert [ways[PIPELINE][name] for name in shown] == ["transformers", "float32", 1, 1, True, 0.0]
    assert ways[FASTER_WHISPER]["rtf"] == figures["rtf"] != ways[PIPELINE]["rtf"] > 0
    assert ways[PIPELINE]["threads"] >= 1
    assert ways[PIPELINE]["mer"] == 0.0 < figures["mer"]  # of the first recording, and of both


def test_transformers_one_recording_at_a_time_in_float32_is_the_pipeline(measure):
    figures, ways = measure(ways=[PIPELINE])
    assert list(ways) == [PIPELINE]
    assert ways[PIPELINE]["rtf"] == figures["rtf"]
    figures, ways = measure(ways=[PIPELINE], batch_size=2, most=None)
    assert ways[PIPELINE]["rtf"] != figures["rtf"]
    assert ways[PIPELINE]["recordings"] == 2
    assert measure(batch_size=2, most=0)[1] == {}


def test_what_was_measured_is_not_measured_again(measure, tmp_path):
    first = measure(engine="faster-whisper", resume=tmp_path / "resume")
    assert measure(engine="faster-whisper", resume=tmp_path / "resume") == first
    assert len(list((tmp_path / "resume").iterdir())) == 2


def test_a_way_that_this_machine_lacks_is_named_and_has_no_figures(measure, monkeypatch, caplog):
    monkeypatch.setattr(engines, "missing", lambda module, extra: install_hint(extra) if module else None)
    assert list(measure()[1]) == [PIPELINE]
    assert "the student was not measured with faster-whisper: engine faster-whisper is not installed" in caplog.text


def test_texts_are_compared_recording_by_recording():
    proper = [{"recording": name, "hypothesis": text} for name, text in (("row 1", "一 two"), ("row 2", ""))]
    way = [{"recording": "row 0", "hypothesis": "一 too"}, {"recording": "row 1", "hypothesis": ""}]
    assert text_difference(way, proper) == pytest.approx(1 / 2)
    assert text_difference(way[1:], proper[1:]) == 0.0
    assert text_difference(way, proper[:1]) is None


def test_spans_of_a_file_and_sounds_without_a_name_are_told_apart(measure, recordings, tmp_path):
    """The first is left out, so that rows of the whole and of the part have other numbers."""
    path = recordings["recording"][2]
    kept = {"folder": "data-set-audio", "extension": ".wav"}
    files = [Path(recordings["recording"][at]) for at in (0, 1)]
    sounds = [keep_in_cache(file.read_bytes(), identity=str(file).encode(), **kept) for file in files]
    rows = [
        {"recording": str(sound), "reference": text} for sound, text in zip(sounds, (None, WRITTEN[0]), strict=True)
    ]
    rows += [{"recording": path, "reference": WRITTEN[1], "start": start, "duration": 1.0} for start in (0.0, 2.0)]
    rows = [{"start": 0.0, "duration": None, "language": None, **row} for row in rows]
    _, ways = measure(ways=[PIPELINE], batch_size=2, most=2, of=Dataset.from_list(rows))
    assert (ways[PIPELINE]["recordings"], ways[PIPELINE]["differs"]) == (2, 0.0)


def test_the_language_is_the_one_in_the_generation_config(tiny_whisper_dir, recordings, tmp_path):
    student = shutil.copytree(tiny_whisper_dir, tmp_path / "student")
    config = json.loads((student / "generation_config.json").read_text(encoding="utf-8"))
    config |= {"language": "zh", "max_length": 12, "return_timestamps": None}
    (student / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")

    def written(**options):
        return [
            row["hypothesis"] for row in evaluate_model(str(student), recordings, beam_size=1, **options).transcripts
        ]

    assert written() == written(language="zh") != written(language="en")
