"""Which track and which channel of a file is read: by every reader, in every stage, and in the keys of what is kept."""

import json
import logging

import numpy as np
import pytest
import soundfile
from datasets import Audio, Dataset
from media_files import KINDS, several_tracks, sweep
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, decode_audio, read_audio, read_recording
from k2d_hf.audio.selection import Energy, Mixer, Selection, selection_of
from k2d_hf.data.chunk_audio import chunk_key, chunk_seconds, read_chunk
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError
from k2d_hf.evaluation.evaluate import evaluate_model
from k2d_hf.evaluation.long_form import load_long_form
from k2d_hf.labelling.hypotheses import TeacherHypotheses, planned
from k2d_hf.labelling.teacher import LabellingReport, label_recordings
from k2d_hf.pipeline.planning.data_facts import inspect_data
from k2d_hf.pipeline.recipe import DataSettings
from k2d_hf.reporting.gathering import _recordings
from k2d_hf.reporting.stage_facts import read_lines
from k2d_hf.validation.auxiliary import validate_labels

SECONDS = 8.0
LEFT, RIGHT = 700, 150  # how far the tones of the channels rise
OF_SOUNDFILE = {
    "a.wav": ("WAV", "PCM_16"), "a.flac": ("FLAC", "PCM_16"), "a.ogg": ("OGG", "VORBIS"), "a.opus": ("OGG", "OPUS"),
    "a.mp3": ("MP3", "MPEG_LAYER_III"), "f.wav": ("WAV", "FLOAT"),
}  # fmt: skip
OF_PYAV = ("a.m4a", "alac.m4a", "pcm.mov", "a.mkv", "a.webm", "a.wma", "vorbis.mkv")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def stereo(rate, seconds=SECONDS, gain=0.5):
    """Two channels, [2, samples], the second of another tone and softer."""
    return np.stack([sweep(rate, seconds, LEFT), gain * sweep(rate, seconds, RIGHT)])


def two_channels(name):
    """The path of a stereo file of that kind."""
    if name in OF_SOUNDFILE:
        form, subtype = OF_SOUNDFILE[name]
        soundfile.write(name, stereo(48000).T, 48000, format=form, subtype=subtype)
    else:
        with open(name, "wb") as file:
            file.write(several_tracks(name, [stereo(KINDS[name][2])]))
    return name


def out_of_phase(name, left=1.0, right=-1.0, seconds=SECONDS):
    """A WAV whose channels are one sound with two signs."""
    sound = sweep(SAMPLE_RATE, seconds)
    soundfile.write(name, np.stack([left * sound, right * sound], axis=1), SAMPLE_RATE)
    return name


def likeness(sound, bend):
    inner = slice(SAMPLE_RATE, 7 * SAMPLE_RATE)
    return abs(np.corrcoef(sound[inner], sweep(SAMPLE_RATE, SECONDS, bend)[inner])[0, 1])


@pytest.mark.parametrize("name", [*OF_SOUNDFILE, *OF_PYAV])
def test_a_channel_is_read_alone_and_its_spans_are_cuts_of_it(name):
    if name in OF_PYAV:
        pytest.importorskip("av")
    path = two_channels(name)
    left, right, louder, mean = (read_audio(path, selection=Selection(channel=c)) for c in ("0", "1", "louder", "mean"))
    assert np.array_equal(louder, left)
    assert np.array_equal(mean, read_audio(path))
    # Some of these files begin with what their coder put before the sound, in both channels alike.
    assert likeness(left, LEFT) > 0.95 or name == "a.wma"
    assert likeness(right, RIGHT) > 0.9 or name == "a.wma"
    assert np.corrcoef(left, right)[0, 1] < 0.3
    assert mean == pytest.approx((left + right) / 2, abs=2e-5)
    for start, duration in ((1.23, 2.0), (6.5, None)):
        cut = right[round(start * SAMPLE_RATE) : None if duration is None else round((start + duration) * SAMPLE_RATE)]
        span = read_audio(path, start, duration, selection=Selection(channel="1"))
        assert span == pytest.approx(cut, abs=2e-2)
        assert len(span) == len(cut)


def test_the_louder_channel_is_that_of_the_sound_and_not_of_an_offset(tmp_path):
    sound = stereo(SAMPLE_RATE, gain=0.1)
    sound[1] += 0.5
    soundfile.write("a.wav", sound.T, SAMPLE_RATE)
    reading = read_recording("a.wav", selection=Selection(channel="louder"))
    assert (reading.channel, reading.cancels) == (0, False)
    assert read_recording("a.wav", selection=Selection(channel="mean")).channel is None
    soundfile.write("mono.wav", sound[0], SAMPLE_RATE)
    assert read_recording("mono.wav", selection=Selection(channel="louder")).channel == 0


@pytest.mark.parametrize(
    ("left", "right", "cancels"),
    [(1, -1, True), (1, -0.8, True), (1, -0.4, False), (1, 0, False), (1, 1, False), (0, 0, False)],
)
def test_a_mean_that_cancels_is_known(left, right, cancels):
    mixer, sound = Mixer(None), np.random.default_rng(0).standard_normal((2000, 1)).astype(np.float32)
    for at in range(0, 2000, 500):
        mixer.mix(np.concatenate([left * sound, right * sound], axis=1)[at : at + 500] + np.float32(0.3))
    assert mixer.cancels == cancels


@pytest.mark.parametrize("channels", [2, 6, 32])
def test_channels_that_know_nothing_of_each_other_do_not_cancel(channels):
    mixer = Mixer(None)
    block = np.random.default_rng(1).standard_normal((8000, channels)).astype(np.float32)
    assert mixer.mix(block) == pytest.approx(block.mean(axis=1), abs=1e-6)
    assert not mixer.cancels
    energy = Energy()
    energy.add(block)
    assert energy.powers == pytest.approx(block.var(axis=0), rel=1e-3)
    assert energy.of_mean == pytest.approx(block.mean(axis=1).var(), rel=1e-3)


@pytest.mark.parametrize(
    ("track", "channel", "key"),
    [
        (None, None, ""), (None, "mean", ""), (None, "Louder", " channel louder"), (1, "mean", " track 1"),
        (None, 0, " channel 0"), (None, 1.0, " channel 1"), ("2", "03", " track 2 channel 03"), (1.0, " 1 ", " track 1 channel 1"),
    ],
)  # fmt: skip
def test_settings_and_rows_say_it_in_several_forms(track, channel, key):
    assert selection_of(track, channel).key == key


@pytest.mark.parametrize(
    ("track", "channel"), [(-1, None), ("x", None), (1.5, None), (None, "left"), (None, -1), (None, 0.5), (None, "1²"), (None, "")]
)  # fmt: skip
def test_what_can_be_none_is_one_line(track, channel):
    with pytest.raises(K2DError, match="track|channel") as caught:
        selection_of(track, channel)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["a.m4a", "a.mkv", "a.mov"])
def test_of_several_tracks_one_is_named_or_the_file_says_which(tmp_path, kind):
    pytest.importorskip("av")
    rate = KINDS[kind][2]
    sounds = [sweep(rate, 3.0, bend) for bend in (700, 150)] + [sweep(rate, 5.0, 300)]
    (tmp_path / kind).write_bytes(several_tracks(kind, sounds))
    for number, seconds in ((0, 3.0), (1, 3.0), (2, 5.0), (None, 3.0)):
        reading = read_recording(kind, selection=Selection(track=number))
        assert reading.tracks == 3
        assert len(reading.samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.05)
        assert audio_duration(kind, Selection(track=number)) == pytest.approx(seconds, abs=0.05)
        expected = sweep(SAMPLE_RATE, seconds, {0: 700, 1: 150, 2: 300, None: 700}[number])[8000:40000]
        assert np.corrcoef(reading.samples[8000:40000], expected)[0, 1] > 0.95
        span = read_audio(kind, 1.0, 1.0, selection=Selection(track=number))
        assert span == pytest.approx(reading.samples[16000:32000], abs=2e-2)
    with pytest.raises(AudioError, match=r"no such track \(3, of 3, counted from 0\); give the number") as caught:
        read_audio(kind, selection=Selection(track=3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dispositions", "chosen"),
    [
        (("visual_impaired", "default"), 1),
        (("comment", "dub"), 1),
        (("original", "default"), 1),
        (("default", "visual_impaired"), 0),
        (("visual_impaired", "comment"), 0),
    ],
)
def test_a_track_for_the_blind_or_a_comment_on_the_film_is_not_the_usual_one(dispositions, chosen):
    pytest.importorskip("av")
    rate = KINDS["a.mkv"][2]
    content = several_tracks("a.mkv", [sweep(rate, 1.0), sweep(rate, 2.0)], dispositions)
    assert len(decode_audio(content, "a.mkv")) / SAMPLE_RATE == pytest.approx(1.0 + chosen, abs=0.05)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
@pytest.mark.parametrize(
    ("selection", "line"),
    [
        (Selection(track=1), "no such track (1, of 1, counted from 0); give the number of one that it has, or leave track out"),
        (Selection(channel="2"), "no such channel (2, of 2, counted from 0); give the number of one that it has, or leave channel out"),
    ],
)  # fmt: skip
def test_a_track_or_channel_that_does_not_exist_is_one_line(name, selection, line):
    path = two_channels(name)
    for read in (lambda: read_audio(path, selection=selection), lambda: audio_duration(path, selection)):
        with pytest.raises(AudioError) as caught:
            read()
        assert str(caught.value) == f"{path}: {line}"


SCRIPT = {8.0: [(0.5, 4.0, "今天講"), (4.5, 7.0, "GPU")], 6.0: [(0.0, 6.0, "六")]}


def labelled(source, *, report=None, **options):
    return label_recordings(
        load_recordings(source, **options), ScriptedTranscriber(SCRIPT, language="zh"), report=report
    )


def test_out_of_phase_a_recording_is_named_with_what_to_do_and_louder_reads_it(tmp_path, caplog):
    (tmp_path / "in").mkdir()
    exact, near = out_of_phase("in/exact.wav"), out_of_phase("in/near.wav", right=-0.9)
    sweep_only = sweep(SAMPLE_RATE, SECONDS)
    soundfile.write("in/fine.wav", sweep_only, SAMPLE_RATE)
    report = LabellingReport()
    chunks = labelled("in", report=report)
    assert set(chunks["recording"]) == {str(tmp_path / near), str(tmp_path / "in/fine.wav")}
    ((entry,),) = [report.skipped]
    assert (entry["recording"], entry["reason"]) == (str(tmp_path / exact), "channels cancel")
    assert entry["detail"].endswith("; set channel to louder, or to the number of one (0, 1, ...)")
    (line,) = [record.message for record in caplog.records if "out of phase" in record.message]
    assert line.startswith(
        "1 recording with channels out of phase, whose mean is next to nothing: set channel to louder"
    )
    assert line.endswith(str(tmp_path / near))
    assert report.figures()["out_of_phase"] == 1
    caplog.clear()
    chunks = labelled("in", channel="louder")
    assert len(chunks) == 3
    assert chunks["audio_channel"][1:] == ["0", "0"]  # what was louder is known, and not looked for again
    assert "out of phase" not in caplog.text
    expected = read_audio(near, 0.5, 6.5, selection=Selection(channel="0"))
    assert np.array_equal(read_chunk(chunks.filter(lambda row: row["recording"].endswith("near.wav"))[0]), expected)


def test_chunks_are_of_the_channel_that_was_labelled_in_every_later_stage(tmp_path):
    path = two_channels("a.wav")
    (usual,), (right,) = labelled(path), labelled(path, channel=1)
    assert set(right) - set(usual) == {"audio_track", "audio_channel"}
    assert (right["audio_track"], right["audio_channel"]) == (None, "1")
    assert np.array_equal(read_chunk(right), read_audio(path, 0.5, 6.5, selection=Selection(channel="1")))
    assert chunk_key(right) == f"{chunk_key(usual)} channel 1"
    assert chunk_seconds({**right, "start": None, "duration": None}) == SECONDS
    heard = []

    class Hears(ScriptedTranscriber):
        def transcribe_chunks(self, audio, languages=None):
            heard.extend(audio)
            return super().transcribe_chunks(audio, languages)

    chunks = labelled(path, channel=1)
    validated = validate_labels(chunks, Hears({6.5: "今天講GPU"}))
    assert np.array_equal(heard[0], read_chunk(right))
    assert validated["audio_channel"][:] == ["1"]


def test_the_collator_takes_the_channel_of_the_chunk(processor):
    from k2d_hf import K2DDataCollator

    path = two_channels("a.wav")
    (chunk,) = labelled(path, channel=1)
    cut = read_audio(path, 0.5, 6.5, selection=Selection(channel="1"))
    collator = K2DDataCollator(processor)
    soundfile.write("cut.wav", cut, SAMPLE_RATE, subtype="FLOAT")
    alone = {**chunk, "recording": "cut.wav", "start": 0.0, "audio_channel": None}
    features = [collator([row])["input_features"] for row in (chunk, alone, {**chunk, "audio_channel": None})]
    assert np.array_equal(features[0], features[1])
    assert not np.array_equal(features[0], features[2])


def test_keys_of_finished_work_tell_tracks_and_channels_apart():
    row = {"recording": "a.wav"}
    rows = [
        row,
        {**row, "audio_channel": "0"},
        {**row, "audio_track": 1},
        {**row, "audio_track": 1, "audio_channel": "0"},
    ]
    items = [item for item, _ in planned(rows, given="zh", file_key=str)]
    assert [item.key for item in items] == ["a.wav", "a.wav channel 0", "a.wav track 1", "a.wav track 1 channel 0"]
    assert not any(item.repeated for item in items)


def test_another_channel_is_labelled_anew_and_the_same_one_is_found(tmp_path):
    two_channels("a.wav")
    calls = []
    for channel in ("mean", 1, 1, "louder"):
        model = ScriptedTranscriber(SCRIPT, language="zh")
        model.fingerprint = "one"
        chunks = label_recordings(load_recordings("a.wav", channel=channel), model, shards_dir="shards")
        calls.append((len(model.calls), chunks[0].get("audio_channel")))
    assert calls == [(1, None), (1, "1"), (0, "1"), (1, "0")]


def test_rows_of_a_manifest_name_their_own_and_a_channels_name_is_none(tmp_path):
    two_channels("a.wav")
    rows = [{"audio": "a.wav", "audio_channel": 1}, {"audio": "a.wav", "audio_channel": "mean"}, {"audio": "a.wav"}]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({**row, "channel": "K2D TV"}) + "\n" for row in rows))
    recordings = load_recordings("m.jsonl", channel=0)
    assert recordings.column_names == ["recording", "reference", "language", "audio_track", "audio_channel"]
    assert recordings["audio_channel"][:] == ["1", "mean", "0"]
    chunks = label_recordings(recordings, ScriptedTranscriber(SCRIPT, language="zh"))
    assert chunks["audio_channel"][:] == ["1", None, "0"]
    (tmp_path / "m.csv").write_text("audio,audio_track,audio_channel\na.wav,0,1\na.wav,,\n")
    assert load_recordings("m.csv").to_list() == [
        {"recording": str(tmp_path / "a.wav"), "reference": None, "language": None, "audio_track": track, "audio_channel": channel}
        for track, channel in ((0, "1"), (None, None))
    ]  # fmt: skip
    streamed = load_recordings("m.csv", streaming=True)
    assert [row["audio_channel"] for row in streamed] == ["1", None]
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.wav", "audio_channel": "left"}))
    with pytest.raises(K2DError, match=r"m\.jsonl, line 1: channel 'left': give mean, louder, or a number from 0 on"):
        load_recordings("m.jsonl")


def test_the_map_step_takes_them_of_rows_with_audio_of_any_form(tmp_path):
    path = two_channels("a.wav")
    with open(path, "rb") as file:
        content = file.read()
    rows = Dataset.from_dict(
        {
            "audio": [{"bytes": content, "path": "a.wav"}, {"bytes": None, "path": path}],
            "audio_channel": ["1", "louder"],
        }
    ).cast_column("audio", Audio(decode=False))
    step = TeacherHypotheses(ScriptedTranscriber(SCRIPT, language="zh"))
    chunks = rows.map(step, batched=True, remove_columns=rows.column_names, new_fingerprint="x")
    assert chunks["audio_channel"][:] == ["1", "0"]
    left, right = (read_audio(path, 0.5, 6.5, selection=Selection(channel=c)) for c in "01")
    assert np.array_equal(read_chunk(chunks[0]), right)
    assert np.array_equal(read_chunk(chunks[1]), left)
    utterance = {"audio": {"bytes": content, "path": None}, "text": "x", "audio_channel": "1"}
    assert np.array_equal(read_chunk(utterance), read_audio(path, selection=Selection(channel="1")))
    assert chunk_key(utterance) != chunk_key({**utterance, "audio_channel": None})


def test_a_published_chunk_carries_its_channel_as_its_sound(tmp_path):
    from k2d_hf.publishing.data_set import open_chunks, write_data_set

    path = two_channels("a.wav")
    validated = validate_labels(labelled(path, channel=1), ScriptedTranscriber({6.5: "今天講GPU"}))
    validated.save_to_disk("validated")
    (tmp_path / "out").mkdir()
    files = write_data_set(open_chunks("validated"), tmp_path / "out", repo_id="me/chunks", facts={})
    (row,) = Dataset.from_parquet([str(one) for name, one in files.items() if name.endswith("parquet")]).cast_column(
        "audio", Audio(decode=False)
    )
    assert "audio_channel" not in row
    expected = read_audio(path, 0.5, 6.5, selection=Selection(channel="1"))
    assert read_chunk(row) == pytest.approx(expected, abs=2**-15)


def test_several_tracks_are_counted_and_said_unless_one_is_named(tmp_path, caplog):
    pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    sounds = [sweep(44100, SECONDS), sweep(44100, 6.0)]
    (tmp_path / "in/two.m4a").write_bytes(several_tracks("a.m4a", sounds))
    (tmp_path / "in/one.m4a").write_bytes(several_tracks("a.m4a", sounds[:1]))
    report = LabellingReport()
    chunks = labelled("in", report=report)
    assert len(chunks) == 2
    assert report.figures()["several_tracks"] == 1
    (line,) = [record.message for record in caplog.records if "several tracks" in record.message]
    assert line == (
        "1 recording with several tracks of sound, of which the file's usual one was taken: set track for another; "
        f"{tmp_path}/in/two.m4a"
    )
    caplog.clear()
    report = LabellingReport()
    chunks = labelled("in", report=report, track=1)
    assert (chunks["text"][:], chunks["audio_track"][:]) == (["六"], [1])
    assert [(entry["recording"][-7:], entry["reason"]) for entry in report.skipped] == [("one.m4a", "no such track")]
    assert "several tracks" not in caplog.text
    assert np.array_equal(read_chunk(chunks[0]), read_audio("in/two.m4a", 0.0, 6.0, selection=Selection(track=1)))
    facts = inspect_data(DataSettings("in", track=1))
    assert (facts.recordings, facts.note) == (2, "1 cannot be read")
    assert facts.seconds == pytest.approx(6.0, abs=0.05)


def test_evaluation_reads_joins_and_names_the_channel(tmp_path, caplog):
    path = two_channels("a.wav")
    out_of_phase("b.wav", right=-0.9)
    out_of_phase("c.wav")
    rows = [
        {"audio": name, "text": "今天講GPU", "session": "s", "audio_channel": channel}
        for name, channel in ((path, "1"), (path, "0"), ("b.wav", None), ("c.wav", None))
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    caplog.set_level(logging.WARNING)
    evaluated = evaluate_model(
        ScriptedTranscriber(SCRIPT, language="zh"), load_recordings("m.jsonl"), on_progress=lambda n: None
    )
    assert [row["reason"] for row in evaluated.skipped] == ["channels cancel"]
    assert [row.get("audio_channel") for row in evaluated.transcripts] == ["1", "0", None]
    assert "1 recording with channels out of phase" in caplog.text
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({**row, "model": "teacher"}) + "\n" for row in evaluated.transcripts)
    )
    facts = _recordings(read_lines(tmp_path / "t.jsonl"))
    assert [fact.recording for fact in facts] == ["a.wav, channel 1", "a.wav, channel 0", "b.wav"]
    assert [fact.selection.channel for fact in facts] == ["1", "0", "mean"]
    joined = {
        channel: read_audio(load_long_form("two.jsonl", join_by="session")["recording"][0])
        for channel in ("0", "1")
        if (tmp_path / "two.jsonl").write_text(json.dumps({**rows[0], "audio_channel": channel}))
    }
    for channel, audio in joined.items():
        assert audio == pytest.approx(read_audio(path, selection=Selection(channel=channel)), abs=2**-14)
