"""`k2d transcribe` and `k2d_hf.transcribe`: files in, text and subtitles out, by real engines and a scripted Whisper."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import WRITTEN
from scripted_transcriber import ScriptedTranscriber
from tiny_whisper import WHISPER_BASE

from k2d_hf import K2DError, transcribe
from k2d_hf.audio.reader import read_audio
from k2d_hf.cli import main

LECTURE = Path(__file__).parents[2] / "recipes" / "quickstart" / "dev" / "dev_000.opus"
FAST = ["--beam-size", "1"]


def k2d(*arguments):
    try:
        return main(["transcribe", *map(str, arguments)])
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def folder(workplace, tmp_path):
    """Two recordings, one of them in a folder below, and a file that is none."""
    shutil.copytree(workplace / "recordings", tmp_path / "in")
    (tmp_path / "in" / "below").mkdir()
    (tmp_path / "in" / "two.flac").rename(tmp_path / "in" / "below" / "two.flac")
    return tmp_path / "in"


@pytest.mark.parametrize("engine", ["transformers", "faster-whisper"])
def test_a_folder_to_files_a_bad_one_stops_no_other_and_the_second_run_goes_on(workplace, folder, capsys, engine):
    command = [folder, "--model", workplace / "teacher", "--output", folder.parent / "out", "--engine", engine, *FAST]
    assert k2d(*command) == 1
    captured = capsys.readouterr()
    assert re.fullmatch(
        r"transcribe #+ 80/80 s +2 recordings  1\.3 min of audio in \S+ min, \d+\.\d times as fast as real time"
        r" -> 4 files, 1 failed\n",
        captured.out,
    )
    assert f"k2d: {folder / 'broken.wav'}: not audio; convert it" in captured.err
    assert captured.err.endswith("k2d: failed on 1 of 3 recordings: 1 not audio\n")
    out = folder.parent / "out"
    made = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert made == ["below/two.srt", "below/two.txt", "one.srt", "one.txt"]
    assert (out / "below" / "two.txt").read_text(encoding="utf-8") == "".join(f"{text}\n" for text in WRITTEN)
    assert (out / "one.txt").read_text(encoding="utf-8").startswith("".join(f"{text}\n" for text in WRITTEN))
    assert (out / "one.srt").read_text(encoding="utf-8").startswith("1\n00:00:00,000 --> 00:00:0")
    (out / "one.txt").write_text("mine", encoding="utf-8")
    (out / "one.srt").unlink()
    assert k2d(*command) == 1
    assert "1 failed, 1 passed over, as transcribed already" in capsys.readouterr().out
    assert (out / "one.txt").read_text(encoding="utf-8") == "mine"
    assert (out / "one.srt").exists()
    assert k2d(*command, "--overwrite") == 1
    assert (out / "one.txt").read_text(encoding="utf-8") != "mine"


def test_beside_the_recording_in_every_format_of_a_run(workplace, folder, capsys):
    run = folder.parent / "run"
    shutil.copytree(workplace / "teacher", run / "student")
    (run / "stages.json").write_text("{}", encoding="utf-8")
    assert k2d(folder / "one.flac", "--model", run, "--format", "txt,srt,vtt,tsv,json", "--quiet", *FAST) == 0
    assert capsys.readouterr() == ("", "")
    names = {path.name for path in folder.iterdir() if path.stem == "one"}
    assert names == {"one.flac", "one.txt", "one.srt", "one.vtt", "one.tsv", "one.json"}
    content = json.loads((folder / "one.json").read_text(encoding="utf-8"))
    assert (content["language"], content["duration"]) == ("zh", 55.0)
    assert max(segment["end"] for segment in content["segments"]) <= 55.0
    assert k2d(folder / "one.flac", "--model", run) == 0
    out = capsys.readouterr().out
    assert out == "transcribe 0 recordings  1 passed over, as transcribed already (--overwrite does them again)\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("nowhere.flac --model teacher", "nowhere.flac: no such file or folder; give audio files, or folders of them"),
        ("empty --model teacher", "empty: no recordings below it; give a folder with audio files"),
        ("one.flac --model teacher --format txt,sub", "format 'sub': choose from txt, srt, vtt, tsv, json"),
        ("one.flac one.wav --model teacher", "one.txt: the name of two transcripts, of one.flac and of one.wav; rename one"),
        ("one.flac below/one.flac --model teacher --output out", "out/one.txt: the name of two transcripts, of one.flac and of below/one.flac"),
        ("one.flac --model nowhere", "model nowhere: no such folder, and not a Hub id"),
        ("one.flac --model bert", "model bert: no Whisper, but 'bert' by its config.json; give a Whisper"),
        ("one.flac --model teacher --language klingon", "language 'klingon' is unknown"),
        ("one.flac --model teacher --output one.wav", "one.wav: not a folder; choose another output folder"),
        ("one.flac --model teacher --word-times --engine transformers", "word_times: the engine transformers has none"),
        ("one.flac --model teacher --channel left", "transcribe: channel 'left': give mean, louder, or a number from 0 on"),
        ("one.flac --model teacher --track=-1", "transcribe: track: -1 is too small; at least 0"),
        ("one.flac --model teacher --line-columns 1", "transcribe: line_columns: 1 is too small; at least 2"),
        ("one.flac --model teacher --engine ray", "transcribe: engine: 'ray' is none of auto, transformers"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_any_work(workplace, tmp_path, monkeypatch, capsys, command, line):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(workplace / "teacher", "teacher")
    shutil.copytree(workplace / "teacher", "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "bert" / "config.json").write_text(json.dumps({**config, "model_type": "bert"}), encoding="utf-8")
    for name in ("empty", "below"):
        (tmp_path / name).mkdir()
    for name in ("one.flac", "one.wav", "below/one.flac"):
        soundfile.write(tmp_path / name, np.ones(1600, np.float32) / 9, 16000)
    before = sorted(tmp_path.rglob("*"))
    assert k2d(*command.split()) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(f"k2d: {line}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def sound(path, seconds):
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, round(seconds * 16000)), 16000)
    return path


def test_in_python_transcripts_come_back_and_no_file_is_written_unless_asked(tmp_path):
    script = {3.0: [(0.0, 5.0, " Hello.")], 4.0: [(0.5, 4.0, "今天")]}
    files = [sound(tmp_path / "b.wav", 4.0), sound(tmp_path / "a.wav", 3.0)]
    model = ScriptedTranscriber(script)
    done = transcribe(files, model, language="zh", on_progress=lambda count, note="": None)
    assert [one.text for one in done.transcripts] == ["今天", "Hello."]
    assert model.languages == ["zh", "zh"]
    assert done.transcripts[1].segments[0].end == 3.0  # no later than the recording's
    assert (done.seconds, done.failed, done.passed_over) == (7.0, [], [])
    assert done.speed > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav"]
    done = transcribe(tmp_path, model, format="srt", on_progress=lambda count, note="": None)
    assert [one.files for one in done.transcripts] == [(str(tmp_path / f"{name}.srt"),) for name in "ab"]
    assert done.transcripts[0].render("txt") == "Hello.\n"


def test_the_same_recording_twice_is_done_once(tmp_path):
    model = ScriptedTranscriber({3.0: [(0.0, 3.0, " Hello.")]})
    file = sound(tmp_path / "a.wav", 3.0)
    assert len(transcribe([file, str(file), tmp_path], model, on_progress=lambda count: None).transcripts) == 1
    assert len(model.calls) == 1


def test_silence_is_an_empty_transcript_and_no_failure(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    model = ScriptedTranscriber({})
    done = transcribe(tmp_path / "a.wav", model, format="txt", on_progress=lambda count: None)
    assert (done.transcripts[0].text, done.failed, model.calls) == ("", [], [])
    assert (tmp_path / "a.txt").read_bytes() == b""


def test_a_recording_on_which_the_engine_raises_is_named_and_the_others_are_done(tmp_path):
    class Raises(ScriptedTranscriber):
        def transcribe(self, audio, languages=None):
            if len(audio[0]) == 48000:
                raise RuntimeError("out of luck")
            return super().transcribe(audio, languages)

    for name, seconds in (("a", 2.0), ("b", 3.0), ("c", 4.0)):
        sound(tmp_path / f"{name}.wav", seconds)
    done = transcribe(tmp_path, Raises({}), format="txt", on_progress=lambda count: None)
    assert [one.recording for one in done.transcripts] == [str(tmp_path / "a.wav"), str(tmp_path / "c.wav")]
    assert [(one["reason"], "out of luck" in one["detail"]) for one in done.failed] == [("not transcribed", True)]
    assert not (tmp_path / "b.txt").exists()


def test_an_interrupted_folder_keeps_what_is_done_and_goes_on(tmp_path):
    for name, seconds in (("a", 2.0), ("b", 3.0)):
        sound(tmp_path / f"{name}.wav", seconds)
    script = {2.0: [(0.0, 2.0, " One.")], 3.0: [(0.0, 3.0, " Two.")]}
    with pytest.raises(KeyboardInterrupt):
        transcribe(
            tmp_path,
            ScriptedTranscriber(script, calls_before_interrupt=1),
            format="txt",
            on_progress=lambda count: None,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a.wav", "b.wav"]
    model = ScriptedTranscriber(script)
    done = transcribe(tmp_path, model, format="txt", on_progress=lambda count: None)
    assert (done.passed_over, model.calls) == ([str(tmp_path / "a.wav")], [[3.0]])
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "Two.\n"


def test_a_channel_or_track_is_named_and_what_cancels_is_said(tmp_path, caplog):
    left = np.random.default_rng(0).normal(0, 0.05, 3 * 16000)
    for name, right in (("exact", -1.0), ("near", -0.9), ("fine", 0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([left, right * left], axis=1), 16000)
    model = ScriptedTranscriber({3.0: [(0.0, 3.0, " Hello.")]})
    quiet = {"on_progress": lambda count: None}
    done = transcribe(tmp_path, model, **quiet)
    assert [one.recording for one in done.transcripts] == [str(tmp_path / "fine.wav"), str(tmp_path / "near.wav")]
    assert [one["reason"] for one in done.failed] == ["channels cancel"]
    assert done.out_of_phase == [str(tmp_path / "near.wav")]
    assert caplog.text.count("1 recording with channels out of phase") == 1
    assert (
        "exact.wav: channels cancel (they are out of phase: their mean is silence); set channel to louder"
        in caplog.text
    )
    caplog.clear()
    for channel in ("louder", 0):
        done = transcribe(tmp_path, model, channel=channel, **quiet)
        assert (len(done.transcripts), done.failed, done.out_of_phase) == (3, [], [])
    assert caplog.text == ""
    done = transcribe(tmp_path / "fine.wav", model, track=1, **quiet)
    assert "fine.wav: no such track (1, of 1, counted from 0); give the number" in done.failed[0]["detail"]


def test_with_the_fast_engine_the_command_loads_no_other_large_library(tmp_path):
    pytest.importorskip("faster_whisper")
    soundfile.write(tmp_path / "dev.wav", read_audio(LECTURE, 0.0, 3.0), 16000)
    command = ["transcribe", str(tmp_path / "dev.wav"), "--model", WHISPER_BASE, "--language", "en", "--quiet"]
    command += ["--beam-size", "1", "--dtype", "int8", "--engine", "faster-whisper", "--temperature-fallback", "false"]
    code = (
        f"import sys; from k2d_hf.cli import main; assert main({command!r}) == 0; "
        "print({'torch', 'transformers', 'datasets', 'pandas'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert (tmp_path / "dev.srt").is_file()


def test_a_loaded_model_without_word_times_is_refused(tmp_path):
    with pytest.raises(K2DError, match="word_times: the engine faster-whisper has none"):
        transcribe(sound(tmp_path / "a.wav", 1.0), ScriptedTranscriber({}), word_times=True)


def test_the_real_whisper_base_times_its_words_and_counts_its_seconds(tmp_path):
    pytest.importorskip("faster_whisper")
    soundfile.write(tmp_path / "dev.wav", read_audio(LECTURE, 0.0, 12.0), 16000)
    counts = []
    done = transcribe(
        tmp_path / "dev.wav",
        WHISPER_BASE,
        language="zh",
        word_times=True,
        format="srt",
        on_progress=counts.append,
    )
    (one,) = done.transcripts
    assert "pricing and case study" in one.text
    assert "".join(word.text for words in one.words for word in words) == "".join(s.text for s in one.segments)
    assert sum(counts) == 12
    assert len(counts) > 1
    first = (tmp_path / "dev.srt").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert first[0] == "1"
    assert " ".join(first[2:]) == "In this lecture, we will talk about pricing and case study"
