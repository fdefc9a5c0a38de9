"""The whole method on half a minute of real code-switched speech, with the real Whisper base weights."""

import json
from pathlib import Path

import pytest
import soundfile
import yaml
from datasets import load_from_disk
from shard_files import shard_rows, stage_folder
from tiny_whisper import WHISPER_BASE

from k2d_hf.audio.reader import SAMPLE_RATE, read_audio
from k2d_hf.cli import main

pytestmark = pytest.mark.real

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart"
SECONDS = 34.8  # where the lecture's segments leave a pause
EVALUATED = 25.2  # one window that ends in a pause: whether Whisper base loops after another depends on the processor


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory: half a minute and a little more of the quickstart's lecture through every stage."""
    folder = tmp_path_factory.mktemp("real")
    lecture = json.loads((QUICKSTART / "dev.jsonl").read_text(encoding="utf-8").splitlines()[0])
    soundfile.write(folder / "minute.flac", read_audio(QUICKSTART / lecture["audio"], 0.0, SECONDS), SAMPLE_RATE)
    (folder / "not-audio.flac").write_text("not audio")
    spoken = " ".join(segment["text"] for segment in lecture["segments"] if segment["end"] < EVALUATED)
    row = {"audio": "minute.flac", "offset": 0.0, "duration": EVALUATED, "text": spoken}
    (folder / "dev.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (folder / "train.jsonl").write_text('{"audio": "minute.flac"}\n{"audio": "not-audio.flac"}\n', encoding="utf-8")
    recipe = {
        "name": "minute",
        "language": "zh",
        "recordings": "train.jsonl",
        "evaluation": "dev.jsonl",
        "teacher": WHISPER_BASE,
        "auxiliary": str(QUICKSTART / "auxiliary"),
        "output": str(folder / "run"),
        "label": {"condition_on_previous_text": False, "beam_size": 2},
        "validate": {"threshold": 0.9},
        "student": {"decoder_layers": [0, 1, 2, 3, 5]},
        "distil": {
            "max_steps": 24,
            "per_device_train_batch_size": 1,
            "learning_rate": 3e-4,
            "warmup_steps": 2,
            "save_strategy": "no",
        },
        "evaluate": {"engine": "faster-whisper", "beam_size": 2, "way_recordings": 0},
        "report": {"enabled": False},
    }
    (folder / "minute.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert main(["run", str(folder / "minute.yaml")]) == 0
    return folder / "run"


def test_every_second_of_segments_is_in_one_chunk_or_listed(run):
    written = [s for row in shard_rows(stage_folder(run / "resume", "label")) for s in row["segments"] or []]
    chunks = load_from_disk(str(run / "chunks"))
    listed = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    seconds_in = sum(s["end"] - s["start"] for s in written)
    seconds_out = sum(s["end"] - s["start"] for chunk in chunks for s in chunk["segments"])
    spans = [entry for entry in listed if "start" in entry and not entry["reason"].startswith("passed over")]
    left_out = sum(entry["end"] - entry["start"] for entry in spans)
    assert seconds_in == pytest.approx(seconds_out + left_out)
    figures = json.loads((run / "labelling.json").read_text())
    parts = sum(figures[name] for name in ("seconds_in_chunks", "seconds_listed", "seconds_unlisted"))
    assert parts == pytest.approx(figures["seconds"]) == pytest.approx(SECONDS)
    assert figures["seconds_in_chunks"] == pytest.approx(sum(chunks["duration"]))
    spans = [(c["start"] + s["start"], c["start"] + s["end"]) for c in chunks for s in c["segments"]]
    assert len(spans) == len(set(spans))
    assert all(chunk["duration"] <= 30.0 for chunk in chunks)


def test_bad_file_is_named_and_the_rest_goes_on(run):
    listed = [json.loads(line) for line in (run / "skipped.jsonl").read_text().splitlines()]
    assert [(Path(e["recording"]).name, e["reason"]) for e in listed if "detail" in e] == [
        ("not-audio.flac", "not audio")
    ]


def test_the_auxiliary_that_travels_with_the_quickstart_is_small_and_hears(run):
    folder = QUICKSTART / "auxiliary"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8_000_000
    base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    assert len(base["encoder_layers"]) < 6
    assert len(base["decoder_layers"]) < 6
    chunks = load_from_disk(str(run / "validated"))
    assert all(chunk["auxiliary_text"] for chunk in chunks)
    assert all(chunk["auxiliary_text"] != chunk["text"] for chunk in chunks)
    assert min(chunk["per"] for chunk in chunks) < 0.6  # it disagrees, about the same speech


def test_student_learns_and_is_smaller(run):
    figures = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert list(figures) == ["teacher", "student_before", "student"]
    assert figures["teacher"]["mer"] < 0.5
    assert figures["student"]["mer"] < 0.8 * figures["student_before"]["mer"]
    assert figures["student"]["parameters"] < figures["teacher"]["parameters"]


def test_student_is_a_complete_checkpoint(run):
    names = {path.name for path in (run / "student").iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "README.md", "tokenizer.json"} <= names


@pytest.mark.parametrize(("seconds", "timestamps"), [(5, False), (33, True)])  # a window, and more than one
def test_pipeline_loads_the_student(run, seconds, timestamps):
    from transformers import pipeline

    recognise = pipeline("automatic-speech-recognition", model=str(run / "student"))
    audio = read_audio(QUICKSTART / "dev" / "dev_000.opus", 0.0, seconds)
    # so little training may loop; test_use.py has the beams and thresholds that a student carries
    most = {"max_new_tokens": 4 * min(int(seconds), 30), "temperature": 0.0, "num_beams": 1}
    told = {"return_timestamps": True} if timestamps else {}
    result = recognise(audio, generate_kwargs=most, **told)
    assert "lecture" in result["text"].lower()
    if timestamps:
        assert result["chunks"][0]["timestamp"][0] is not None


def test_second_run_does_nothing(run, capsys):
    assert main(["run", str(run.parent / "minute.yaml")]) == 0
    assert capsys.readouterr().out.count("up to date") == 7  # one a stage
