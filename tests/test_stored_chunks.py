"""The same chunks, however they are stored: the same rows, targets, losses and pushes in every stage, bit for bit."""

import io
import os
import shutil
import zlib

import numpy as np
import pytest
import soundfile
import torch
from datasets import Audio, Dataset, load_dataset
from distillation.tiny_training import trainer_for
from far_files import put
from file_server import serving_files
from fresh_process import PythonProcess
from hub_server import WRITER, LocalHub, serving
from scripted_transcriber import ScriptedTranscriber

from k2d_hf import K2DDataCollator, create_student, label_recordings, validate_labels
from k2d_hf.data.chunk_audio import chunk_key, read_chunk
from k2d_hf.data.chunk_files import load_chunks
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError
from k2d_hf.files.content_keys import content_key
from k2d_hf.publishing.data_set import open_chunks, write_data_set
from k2d_hf.transcription.transcribers import DecodingOptions

NAME = "a talk.wav"
TEXTS = ("今天我們來看 attention", "這個 model", "Let us look at the encoder", "我們用 GPU 來 train")
FOLLOWED = ("path", "file", "memory", "http", "stream")  # of which a window can be read beyond the chunk's end
KINDS = (*FOLLOWED, "embedded", "audio column", "samples", "stream of embedded")
ORDER = {"train_sampling_strategy": "sequential", "group_by_label_length": False}


class Listener:
    """A transcriber that writes the sum of its input as a number, and counts."""

    engine, batches_recordings, calls_at_once, parameters = "transformers", True, 1, 1

    def __init__(self):
        self.options = DecodingOptions()
        self.transcribed = 0

    def transcribe_chunks(self, audio, languages=None):
        self.transcribed += len(audio)
        return [str(zlib.crc32(samples.tobytes())) for samples in audio]


def sound(seed):
    """12 s, of 16 bits, some of it at the edges."""
    samples = np.random.default_rng(seed).integers(-30000, 30000, 12 * 16000).astype(np.int16)
    samples[5000:5400] = np.tile([-32768, 32767], 200)
    return samples


def wav(samples):
    content = io.BytesIO()
    soundfile.write(content, samples, 16000, format="WAV", subtype="PCM_16")
    return content.getvalue()


def rows_of(recording):
    """What validation gives of a recording: four chunks, which follow each other but for a pause."""
    rows = []
    for index, text in enumerate(TEXTS):
        parts = [{"start": 0.0, "end": 1.0, "text": text[:4]}, {"start": 1.0, "end": 2.5, "text": text[4:]}]
        rows.append(
            {
                **{"recording": recording, "start": 3.0 * index, "duration": 2.5, "segments": parts, "text": text},
                **{"previous_text": TEXTS[index - 1] if index else None, "next_start": 3.0 if index < 3 else None},
                **{"language": "zh", "distance": 0.1 * index, "keep": True, "drop_reason": None},
            }
        )
    return rows


class Stored:
    """One recording and its chunks in all the ways of storing them."""

    def __init__(self, folder, files, address):
        self.folder, self.files, self.address = folder, files, address
        self.path = folder / NAME
        self.replace(sound(0))

    def replace(self, samples):
        """Put other sound everywhere, under the same names."""
        content = wav(samples)
        self.path.write_bytes(content)
        self.files[NAME.replace(" ", "%20")] = content
        put(f"memory://stored/{NAME}", content)

    def _pushed(self):
        """What `k2d push --data` makes of the chunks, as files of Parquet."""
        place = self.folder / "pushed"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        Dataset.from_list(rows_of(str(self.path))).save_to_disk(place / "validated")
        (place / "out").mkdir()
        files = write_data_set(open_chunks(place / "validated"), place / "out", repo_id="me/talks", facts={})
        (place / "data").mkdir()
        for name, file in files.items():
            if name.endswith(".parquet"):
                shutil.copy(file, place / name)
        return place

    def of(self, kind):
        """The chunks, as a data set or a stream."""
        recordings = {
            "file": f"file://{self.path}",
            "memory": f"memory://stored/{NAME}",
            "http": f"{self.address}/{NAME.replace(' ', '%20')}?key=secret",
        }
        rows = Dataset.from_list(rows_of(recordings.get(kind, str(self.path))))
        if kind in ("path", *recordings):
            return rows
        if kind == "stream":
            rows.to_parquet(self.folder / "rows.parquet")
            return load_dataset("parquet", data_files=str(self.folder / "rows.parquet"), split="train", streaming=True)
        if kind in ("embedded", "stream of embedded"):
            return load_chunks(self._pushed(), streaming=kind != "embedded")
        if kind == "audio column":  # one that would decode, as `load_dataset` gives it
            return load_chunks(self._pushed()).cast_column("audio", Audio(sampling_rate=16000))
        named = rows.remove_columns("recording").add_column("recording", [NAME] * len(rows))
        arrays = [{"array": read_chunk(row), "sampling_rate": 16000, "path": None} for row in rows]
        return named.add_column("audio", arrays)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture(scope="module")
def http():
    files = {}
    with serving_files(files) as address:
        yield files, address


@pytest.fixture
def stored(tmp_path, http, cache):
    return Stored(tmp_path, *http)


@pytest.fixture
def collator(processor):
    return K2DDataCollator(processor, language="zh", previous_text_probability=0.5)


def plain(rows):
    """Rows without the columns that say where the sound is."""
    return [{name: value for name, value in row.items() if name not in ("recording", "audio")} for row in rows]


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture
def train(tiny_whisper, processor, tmp_path):
    """Two epochs of training, in the order of the rows."""

    def run(rows, **settings):
        student = create_student(tiny_whisper, language="zh")
        settings = {"per_device_train_batch_size": 4, "max_steps": 2, "learning_rate": 1e-3, **ORDER, **settings}
        settings = {"previous_text_probability": 0.5, **settings}
        settings |= {"shuffle_buffer": 0, "encoder_states_dir": str(tmp_path / "states")}
        trainer = trainer_for(student, rows, processor, tmp_path / "run", **settings)
        trainer.train()
        return trainer

    return run


@pytest.fixture(scope="module")
def expected():
    """What chunks of a local recording give, by stage."""
    return {}


def compare(expected, stage, value):
    """The value of the first kind of storage is what all others must have."""
    reference = expected.setdefault(stage, value)
    assert value == reference, stage


@pytest.mark.parametrize("kind", KINDS)
def test_every_stage_gives_the_same(stored, kind, expected, collator, train, tiny_whisper, tmp_path):
    rows = stored.of(kind)
    streamed = kind.startswith("stream")
    validated = validate_labels(rows, Listener())
    compare(expected, "validated", plain(validated))
    targets = add_soft_targets(stored.of(kind), tiny_whisper, collator, encoder_states_dir=tmp_path / "states")
    compare(expected, "targets", plain(targets))
    assert len(list((tmp_path / "states").rglob("*.npy"))) == len(TEXTS)
    trainer = train(rows, teacher_model=tiny_whisper)
    compare(expected, "online", losses(trainer))
    compare(expected, "evaluated", trainer.evaluate(stored.of(kind))["eval_loss"])
    compare(expected, "predicted", trainer.predict(stored.of(kind)).metrics["test_loss"])
    if not streamed:  # a stream has no list of what is to be kept
        trainer = train(targets, keep_encoder_states=True)
        assert trainer.data_collator.encoder_states is not None
        compare(expected, "kept", losses(trainer))
        assert len(list((tmp_path / "states").rglob("*.npy"))) == len(TEXTS)  # those of the targets


@pytest.mark.parametrize("kind", FOLLOWED)
def test_windows_go_on_beyond_the_chunk(stored, kind, expected, train, tiny_whisper):
    settings = {"teacher_model": tiny_whisper, "timestamp_probability": 1.0, "max_steps": 1}
    transcribed = losses(train(stored.of(kind), full_windows=True, **settings))
    compare(expected, "windows", transcribed)
    if kind == "path":
        assert transcribed != losses(train(stored.of(kind), **settings))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FOLLOWED])
def test_a_window_that_cannot_be_read_is_refused(stored, kind, train, tiny_whisper):
    with pytest.raises(K2DError, match="full_windows: .*carries its own sound, which ends with it") as caught:
        train(stored.of(kind), teacher_model=tiny_whisper, full_windows=True)
    assert "\n" not in str(caught.value)


def test_a_stream_without_the_starts_of_what_follows_has_no_windows(stored, train, tiny_whisper):
    rows = stored.of("stream").remove_columns("next_start")
    with pytest.raises(K2DError, match=r"full_windows needs the column next_start \(training\): label again"):
        train(rows, teacher_model=tiny_whisper, full_windows=True)


def test_the_label_of_a_stream_counts_the_start_that_the_window_cuts_off(stored, train, tiny_whisper, processor):
    settings = {"full_windows": True, "timestamp_probability": 1.0, "previous_text_probability": 0.0}
    collator = K2DDataCollator(processor, language="zh", **settings)
    collator.max_tokens = len(collator.example(rows_of(str(stored.path))[0])[0]) - 1
    trainer = train(stored.of("stream"), teacher_model=tiny_whisper, collator=collator, max_steps=1, **settings)
    assert trainer.train_dataset.counted.sum(0).tolist()[2] >= 1
    rows = trainer_for(tiny_whisper, stored.of("path"), processor, stored.folder, collator=collator, kl_weight=0.0)
    assert len(rows.train_dataset) == 4 - trainer.train_dataset.counted.sum(0).tolist()[2]


@pytest.mark.parametrize("kind", ["path", "memory", "http", "embedded", "samples"])
def test_they_are_pushed_alike(stored, kind, expected, tmp_path):
    stored.of(kind).save_to_disk(tmp_path / "validated")
    (tmp_path / "out").mkdir()
    files = write_data_set(open_chunks(tmp_path / "validated"), tmp_path / "out", repo_id="me/talks", facts={})
    compare(expected, "pushed", {name: file.read_bytes() for name, file in files.items()})


def test_what_was_pushed_is_pushed_again_without_a_commit(stored, tmp_path):
    hub = LocalHub()
    pushed = stored.of("embedded")
    stored.of("path").save_to_disk(tmp_path / "validated")
    code = (
        "from k2d_hf.cli import main\nresult = [main(['push', '--data', data, '--repo-id', 'me/talks']) for data in %r]"
    )
    (tmp_path / "client").mkdir()
    with serving(hub), PythonProcess(tmp_path / "client", HF_ENDPOINT=hub.address, HF_TOKEN=WRITER) as python:
        done = python.run(code % [str(tmp_path / "validated"), str(tmp_path / "pushed")])
    assert done.result == [0, 0], done.said
    assert done.said.count("is up to date") == 1
    assert len(pushed) == 4


def replaced(stored):
    """Other sound under the same name, of the same size and date."""
    stat = stored.path.stat()
    stored.replace(sound(1))
    os.utime(stored.path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (stored.path.stat().st_size, stored.path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)


@pytest.mark.parametrize("kind", ["path", "file", "memory", "http"])
def test_a_recording_that_was_replaced_is_labelled_again(stored, kind, tmp_path):
    teacher = ScriptedTranscriber({12.0: [(0.0, 2.0, TEXTS[1])]})
    recordings = Dataset.from_dict({"recording": stored.of(kind)["recording"][:1]})
    for calls in (1, 1):
        label_recordings(recordings, teacher, shards_dir=tmp_path / "shards")
        assert len(teacher.calls) == calls
    replaced(stored)
    label_recordings(recordings, teacher, shards_dir=tmp_path / "shards")
    assert len(teacher.calls) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_audio_that_was_replaced_is_transcribed_again(stored, kind, tmp_path):
    listener, options = Listener(), {"shards_dir": tmp_path / "shards"}
    before = validate_labels(stored.of(kind), listener, **options)
    assert listener.transcribed == 4
    assert plain(validate_labels(stored.of(kind), listener, **options)) == plain(before)
    assert listener.transcribed == 4
    replaced(stored)
    after = validate_labels(stored.of(kind), listener, **options)
    assert listener.transcribed == 8
    assert all(one["auxiliary_text"] != other["auxiliary_text"] for one, other in zip(before, after, strict=True))


def test_a_file_of_the_same_size_and_date_has_another_key(tmp_path, cache, monkeypatch):
    path = tmp_path / "large.bin"
    monkeypatch.setattr("k2d_hf.files.content_keys.KEPT_FROM", 1)
    monkeypatch.setattr("k2d_hf.files.content_keys.AT_REST", 0)
    keys = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        os.utime(path, ns=(1, 1))
        keys.append(content_key(path))
        assert content_key(path) == keys[-1]
    assert keys[0] == keys[2] != keys[1]


def test_a_file_is_read_once_for_all_runs_and_again_only_where_it_may_have_changed(tmp_path, cache, monkeypatch):
    from k2d_hf.files import content_keys

    path = tmp_path / "large.bin"
    path.write_bytes(bytes(content_keys.KEPT_FROM))
    os.utime(path, ns=(1, 1))
    monkeypatch.setattr(content_keys, "AT_REST", 0)
    key = content_key(path)
    monkeypatch.setattr(content_keys, "_known", {})  # another run
    monkeypatch.setattr(content_keys, "_read_digest", lambda path: pytest.fail("read again"))
    assert content_key(path) == key
    monkeypatch.undo()
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))
    path.chmod(0o600)
    assert content_key(path) == key


def test_chunks_without_sound_have_a_key_and_say_so_when_they_are_read(tmp_path):
    gone = {"recording": str(tmp_path / "gone.flac"), "start": 1.0, "duration": 2.0}
    assert chunk_key(gone) != chunk_key({**gone, "start": 2.0})
    with pytest.raises(K2DError, match="an utterance without a name: no such file"):
        read_chunk({"text": "a", "audio": None})
    assert chunk_key({"text": "a", "audio": None})
    with pytest.raises(K2DError, match="int is no audio"):
        read_chunk({**gone, "audio": 3})


def test_encoder_states_are_known_by_the_sound_alone(stored, tiny_whisper, tmp_path):
    from k2d_hf.distillation.targets.encoder_states import EncoderStates

    states = EncoderStates(tmp_path / "states", tiny_whisper.model.encoder)
    paths = {kind: states.path(stored.of(kind)[0]) for kind in ("path", "embedded", "samples")}
    stored.replace(sound(1))
    assert all(states.path(stored.of(kind)[0]) != path for kind, path in paths.items())
    assert torch.equal(
        torch.from_numpy(read_chunk(stored.of("path")[0])), torch.from_numpy(read_chunk(stored.of("embedded")[0]))
    )
