"""Recordings of all bad kinds among good ones: none stops the run, each is named, the good ones are as ever."""

import json
import os
import re
import shutil

import pytest
from datasets import load_from_disk

from faults.dirty_corpus import FILES, GOOD, ROWS, mutants, write_dirt, write_good
from k2d_hf import load_recordings
from k2d_hf.audio.reader import ADVICE

pytestmark = pytest.mark.slow

REASONS = {*ADVICE, "no speech found", "not transcribed", "timed out", "listed twice"}
MUTANTS = 40 if int(os.environ.get("K2D_FAULT_TRIALS", "1")) == 1 else 1000
MORE_MEMORY = 200  # MB that dirt may take


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of the good recordings; of the bad ones; and a manifest of each."""
    folder = tmp_path_factory.mktemp("corpus")
    good = [str(path) for path in write_good(folder / "good")]
    write_manifest(folder / "good.jsonl", good)
    return folder


def write_manifest(path, names):
    path.write_text("".join(json.dumps({"audio": str(name)}) + "\n" for name in names), encoding="utf-8")


def label(stages, place, manifest, **options):
    """Label a manifest; gives how it ended, its rows, and reason by recording of what was skipped."""
    output = manifest.with_suffix(".chunks")
    arguments = [*("--language", "zh", "--beam-size", 1), "--condition-on-previous-text", "false", "--output", output]
    teacher = ["--teacher", stages.folder / "teacher", "--engine", "faster-whisper"]
    ended = stages.k2d.run(place, "label", manifest, *teacher, *arguments, **options)
    assert ended.status == 0, ended.said
    skipped = output.with_name(f"{output.name}.skipped.jsonl")
    lines = skipped.read_text(encoding="utf-8").splitlines() if skipped.exists() else []
    entries = [json.loads(line) for line in lines]
    reasons = {entry["recording"]: entry["reason"] for entry in entries if "detail" in entry}
    return ended, load_from_disk(str(output)).to_list(), reasons


@pytest.fixture(scope="module")
def clean(stages, place):
    """The good recordings alone."""
    return label(stages, place, place / "good.jsonl")


def matches(outcome, expected):
    return outcome in expected if isinstance(expected, set) else outcome == expected


def means(recording, name, place):
    """Whether a recording is the one that a row of the manifest names so."""
    return recording == str(place) if name == "." else recording.endswith(name or "(no path given)")


def test_each_bad_recording_is_named_with_its_reason_and_good_ones_are_as_ever(stages, place, clean, figure):
    expected = {str(place / "dirt" / name): outcome for name, outcome in write_dirt(place / "dirt").items()}
    good = [str(place / "good" / name) for name in GOOD]
    rows = [*good, *expected, *(name for name, _ in ROWS), *list(expected)[:3]]  # the last three come again
    write_manifest(place / "all.jsonl", rows)
    ended, chunks, reasons = label(stages, place, place / "all.jsonl", ordinary=True)
    alone, clean_chunks, _ = clean

    wrong = {name: reasons.get(name) for name, outcome in expected.items() if not matches(reasons.get(name), outcome)}
    for name, outcome in ROWS:
        (found,) = [reason for path, reason in reasons.items() if path not in expected and means(path, name, place)]
        if not matches(found, outcome):
            wrong[name] = found
    assert wrong == {}
    assert set(reasons.values()) <= REASONS
    assert [chunk for chunk in chunks if chunk["recording"] in good] == clean_chunks

    heard = {chunk["recording"] for chunk in chunks}
    different = len(good) + len(expected) + len(ROWS)
    assert len(heard) + len(reasons) == different
    assert not heard & set(reasons)
    assert f" {different}/{different} recordings " in ended.said
    assert f" {len(reasons)} skipped, " in ended.said
    assert "3 rows name a recording that came before; each is kept once" in ended.said
    assert ended.memory < alone.memory + MORE_MEMORY
    assert not (place / "ran").exists()
    figure("label: kinds of odd or bad recordings", len(FILES) + len(ROWS) + 7)


def test_a_folder_that_leads_back_to_itself_is_listed_once(place):
    write_dirt(place / "listed")
    listed = [os.path.basename(path) for path in load_recordings(place / "listed")["recording"]]
    assert len(listed) == len(set(listed))
    assert "directory.wav" not in listed
    assert {name for name, _, _ in FILES} <= set(listed)


def test_mutants_crash_nothing_and_take_no_memory_for_what_they_claim(stages, place, clean, figure):
    (place / "mutants").mkdir()
    for name, content in mutants(MUTANTS):
        (place / "mutants" / name).write_bytes(content)
    write_manifest(place / "mutated.jsonl", [*(place / "good" / name for name in GOOD), *(place / "mutants").iterdir()])
    ended, chunks, reasons = label(stages, place, place / "mutated.jsonl")
    alone, clean_chunks, _ = clean
    assert set(reasons.values()) <= REASONS
    assert [chunk for chunk in chunks if chunk["recording"].startswith(str(place / "good"))] == clean_chunks
    assert ended.memory < alone.memory + MORE_MEMORY
    figure("label: mutants", MUTANTS)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        (
            "latin.jsonl",
            '{"audio": "a.wav", "text": "Übung"}\n'.encode("latin-1"),
            "latin.jsonl, line 1: the transcript is not UTF-8",
        ),
        ("cut.jsonl", b'{"audio": "a.wav"}\n{"audio": ', "cut.jsonl, line 2: not JSON"),
        ("zeros.jsonl", bytes(99), "zeros.jsonl, line 1: not JSON"),
        ("quote.csv", b'audio\n"a.wav\n', "quote.csv, line .: not CSV"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_one_line(stages, place, name, content, line):
    (place / name).write_bytes(content)
    ended = stages.k2d.run(place, "label", name, "--teacher", stages.folder / "teacher", "--output", f"{name}.out")
    assert ended.status == 1
    (said,) = ended.lines
    assert re.search(line, said)


def test_a_recording_that_vanishes_after_it_was_listed_is_named_and_the_others_go_on(stages, place, clean, tmp_path):
    good = shutil.copytree(place / "good", tmp_path / "vanishing")
    for number in range(6):
        shutil.copy(good / "good-2.wav", good / f"more-{number}.wav")
    command = ["label", good, "--teacher", stages.folder / "teacher", "--engine", "faster-whisper", "--language", "zh"]
    options = ["--beam-size", 1, "--condition-on-previous-text", "false", "--shard-size", 1, "--output", "out"]
    running = stages.k2d.start(tmp_path, *command, *options)
    while not list(tmp_path.glob("out.resume/*/*.parquet")):
        assert running.alive()
    (good / "more-5.wav").unlink()
    ended = running.ended()
    assert ended.status == 0, ended.said
    (entry,) = [
        json.loads(line)
        for line in (tmp_path / "out.skipped.jsonl").read_text(encoding="utf-8").splitlines()
        if "detail" in line
    ]
    assert (entry["recording"], entry["reason"]) == (str(good / "more-5.wav"), "no such file")
    rows = load_from_disk(str(tmp_path / "out")).to_list()
    chunks = [chunk | {"recording": os.path.basename(chunk["recording"])} for chunk in rows]
    expected = [chunk | {"recording": os.path.basename(chunk["recording"])} for chunk in clean[1]]
    assert [chunk for chunk in chunks if chunk["recording"].startswith("good")] == expected
    assert len({chunk["recording"] for chunk in chunks}) == 8
