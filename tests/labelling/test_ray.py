"""On a Ray cluster the same work is done as in one process, and a worker that dies loses nothing."""

import os
import signal

import numpy as np
import pytest
import soundfile
from scripted_whisper import write_scripted_whisper

from k2d_hf import AuxiliaryHypotheses, TeacherHypotheses, label_recordings, load_recordings, validate_labels
from k2d_hf.errors import K2DError
from k2d_hf.labelling.teacher import LabellingReport
from k2d_hf.transcription.settings import WorkersSettings

pytestmark = pytest.mark.slow

OPTIONS = {"language": "zh", "beam_size": 1, "batch_size": 2}


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two cores on this machine."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, processor):
    """Ten recordings, one of them broken, and a model that transcribes the others."""
    folder = tmp_path_factory.mktemp("corpus")
    for at in range(9):
        noise = np.random.default_rng(at).normal(0, 0.05, 16000 * (4 + at))
        soundfile.write(folder / f"{at}.wav", noise, 16000)
    (folder / "broken.wav").write_text("not audio")
    model = write_scripted_whisper(
        tmp_path_factory.mktemp("model") / "teacher", processor, (2.0, "今天講 machine learning"), (5.0, "很重要")
    )
    return load_recordings(folder), model


def workers():
    """Process ids of Ray's workers that hold a model."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline") as file:
                command = file.read()
        except OSError:
            continue
        if command.startswith("ray::MapWorker"):
            found.append(int(name))
    return found


def test_rows_equal_those_of_one_process_though_a_worker_is_killed(cluster, corpus, tmp_path):
    recordings, model = corpus
    here, there = LabellingReport(), LabellingReport()
    expected = label_recordings(recordings, model, engine="transformers", report=here, shard_size=1, **OPTIONS)
    done, killed = [], []

    def kill_the_first(count, note=""):
        done.append(count)
        if not killed and workers():
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    chunks = label_recordings(
        recordings, model, engine="ray+transformers", workers=2, report=there, shard_size=1,
        shards_dir=tmp_path / "shards", on_progress=kill_the_first, **OPTIONS,
    )  # fmt: skip
    assert chunks[:] == expected[:]
    assert here == there
    assert killed
    assert sum(done) == len(recordings)
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == len(recordings)
    judged = validate_labels(expected, model, engine="transformers", shard_size=4, batch_size=2)
    spread = validate_labels(expected, model, engine="ray+transformers", workers=2, shard_size=4, batch_size=2)
    assert spread[:] == judged[:]


def test_several_auxiliaries_take_turns_on_the_cluster(cluster, corpus, tmp_path, processor):
    recordings, model = corpus
    other = write_scripted_whisper(tmp_path / "other", processor, (2.0, "今天講 machine learnings"), (5.0, "不重要"))
    chunks = label_recordings(recordings.select([0, 1]), model, engine="transformers", **OPTIONS)
    given = {"more_auxiliaries": [other], "batch_size": 2}
    judged = validate_labels(chunks, model, engine="transformers", **given)
    assert validate_labels(chunks, model, engine="ray+transformers", workers=1, **given)[:] == judged[:]
    assert judged["auxiliary_text"][0] != judged["more_auxiliaries"][0][0]["text"]


def test_map_batches_takes_the_steps_themselves(cluster, corpus):
    import ray

    recordings, model = corpus
    few = recordings.select([0, 1, len(recordings) - 1])  # of which one is broken
    chunks = label_recordings(few, model, engine="transformers", **OPTIONS)
    expected = validate_labels(chunks, model, engine="transformers", batch_size=2)
    plain = {"engine": "transformers", "batch_size": 2}
    one = ray.data.ActorPoolStrategy(size=1)
    rows = ray.data.from_arrow(few.with_format("arrow")[:])
    for step, settings in ((TeacherHypotheses, {**plain, **OPTIONS}), (AuxiliaryHypotheses, plain)):
        given = {"fn_constructor_args": (str(model),), "fn_constructor_kwargs": settings, "compute": one}
        rows = rows.map_batches(step, batch_size=2, batch_format="pyarrow", **given)
    assert sorted(rows.take_all(), key=lambda row: row["recording"]) == sorted(
        expected.to_list(), key=lambda row: row["recording"]
    )


def test_what_is_finished_needs_no_cluster(corpus, tmp_path, monkeypatch):
    recordings, model = corpus
    good = recordings.filter(lambda row: "broken" not in row["recording"])
    expected = label_recordings(good, model, engine="transformers", shards_dir=tmp_path, **OPTIONS)
    monkeypatch.setattr("ray.init", lambda *args, **kwargs: pytest.fail("a cluster was asked for"))
    assert label_recordings(good, model, engine="ray+transformers", shards_dir=tmp_path, **OPTIONS)[:] == expected[:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 3}, r"the Ray cluster has 2 CPU, 0 GPU: no room for 3 workers of 1 CPU; set workers"),
        ({"worker_gpus": 1.0}, r"no room for 1 workers of 1 CPU, 1 GPU"),
    ],
)
def test_a_cluster_without_room_is_an_error(cluster, settings, message):
    from k2d_hf.transcription.ray_cluster import room

    with pytest.raises(K2DError, match=message):
        room(WorkersSettings("ray", **settings))


@pytest.mark.parametrize(("gpus", "asked", "count"), [(2, 0.0, 1), (2, 1.0, 0), (0, 0.0, 0)])
def test_gpus_that_no_worker_uses_are_a_warning(monkeypatch, caplog, gpus, asked, count):
    from k2d_hf.transcription.ray_cluster import room

    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, **({"GPU": float(gpus)} if gpus else {})})
    room(WorkersSettings("ray", worker_gpus=asked))
    warnings = [record.getMessage() for record in caplog.records if "GPU" in record.getMessage()]
    assert len(warnings) == count
    assert all("the Ray cluster has 2 GPU" in line and "set worker_gpus" in line for line in warnings)
