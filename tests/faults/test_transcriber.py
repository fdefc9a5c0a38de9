"""A transcriber that raises, gives nothing or hangs on one recording or chunk: that one is named, the others go on."""

import threading

import pytest
from datasets import Dataset
from scripted_transcriber import ScriptedTranscriber

from faults.sounds import write_recordings
from k2d_hf import load_recordings
from k2d_hf.labelling.teacher import LabellingReport, label_recordings
from k2d_hf.validation.auxiliary import validate_labels

pytestmark = pytest.mark.slow

LENGTHS = 2, 3, 4, 5  # s
BAD = 4.0
SEGMENTS = {float(length): [(0.0, float(length), f"我有 {length} words")] for length in LENGTHS}
TEXTS = {length: segments[0][2] for length, segments in SEGMENTS.items()}
TIME_LIMIT = 0.3  # s
FAULTS = ["raises", "gives nothing", "gives too few", "hangs"]
REASONS = {"hangs": "timed out"}
ENGINES = ["transformers", "faster-whisper"]  # the one takes several recordings at once, the other one by one


class Faulty(ScriptedTranscriber):
    """As scripted, but for what holds the bad recording or chunk."""

    def __init__(self, script, fault, **options):
        super().__init__(script, **options)
        self.fault, self.released = fault, threading.Event()

    def _disturbed(self, audio, languages, results):
        if BAD not in self.calls[-1]:
            return results
        match self.fault:
            case "raises":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case "gives nothing":
                return None
            case "gives too few":
                return results[:-1]
            case "hangs":
                self.released.wait(60)
        return results

    def transcribe(self, audio, languages=None):
        return self._disturbed(audio, languages, super().transcribe(audio, languages))

    def transcribe_chunks(self, audio, languages=None):
        return self._disturbed(audio, languages, super().transcribe_chunks(audio, languages))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return load_recordings(write_recordings(tmp_path_factory.mktemp("spoken"), LENGTHS))


def label(recordings, teacher, folder, report):
    return label_recordings(recordings, teacher, shards_dir=folder, report=report, time_limit=TIME_LIMIT, shard_size=2)


def validate(chunks, auxiliary, folder):
    return validate_labels(chunks, auxiliary, shards_dir=folder, time_limit=TIME_LIMIT, shard_size=2, batch_size=2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_recording_on_which_the_teacher_fails_is_skipped_and_tried_again_by_the_next_run(
    recordings, tmp_path, fault, engine
):
    whole = label(recordings, ScriptedTranscriber(SEGMENTS), tmp_path / "whole", LabellingReport()).to_list()
    teacher, report = Faulty(SEGMENTS, fault, engine=engine), LabellingReport()
    rows = label(recordings, teacher, tmp_path / "shards", report).to_list()
    teacher.released.set()
    assert [(entry["recording"][-6:], entry["reason"]) for entry in report.skipped] == [
        ("02.wav", REASONS.get(fault, "not transcribed"))
    ]
    assert rows == [row for row in whole if row["duration"] != BAD]
    mended = ScriptedTranscriber(SEGMENTS, engine=engine)
    assert label(recordings, mended, tmp_path / "shards", LabellingReport()).to_list() == whole
    assert mended.calls == [[BAD]]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_chunk_on_which_the_auxiliary_fails_is_dropped_and_tried_again_by_the_next_run(recordings, tmp_path, fault):
    texts = list(TEXTS.values())
    lengths = [float(length) for length in LENGTHS]
    columns = {"recording": recordings["recording"], "start": [0.0] * len(texts), "duration": lengths, "text": texts}
    chunks = Dataset.from_dict(columns)
    whole = validate(chunks, ScriptedTranscriber(TEXTS), tmp_path / "whole").to_list()
    auxiliary = Faulty(TEXTS, fault)
    rows = validate(chunks, auxiliary, tmp_path / "shards").to_list()
    auxiliary.released.set()
    (bad,) = [row for row in rows if row["duration"] == BAD]
    assert (bad["keep"], bad["drop_reason"]) == (False, REASONS.get(fault, "not transcribed"))
    assert [row for row in rows if row != bad] == [row for row in whole if row["duration"] != BAD]
    mended = ScriptedTranscriber(TEXTS)
    assert validate(chunks, mended, tmp_path / "shards").to_list() == whole
    assert mended.calls == [[BAD]]
