"""What corpora come in: NIST SPHERE, plain and compressed by shorten, and the other kinds that libsndfile reads."""

import io

import numpy as np
import pytest
import soundfile
from media_files import KINDS, media, shortened, sweep
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio.media import AUDIO_EXTENSIONS, READ_BY_LIBSNDFILE
from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, decode_audio, read_audio
from k2d_hf.data.recordings import load_recordings
from k2d_hf.labelling.teacher import LabellingReport, label_recordings

SECONDS = 3.0
FORMATS = {
    ".sph": "NIST", ".nist": "NIST", ".voc": "VOC", ".ircam": "IRCAM", ".sf": "IRCAM", ".8svx": "SVX", ".iff": "SVX",
    ".snd": "AU", ".bwf": "WAV", ".w64": "W64", ".rf64": "RF64",
}  # fmt: skip


def written(form, **options):
    file = io.BytesIO()
    soundfile.write(file, sweep(SAMPLE_RATE, SECONDS), SAMPLE_RATE, format=form, **options)
    return file.getvalue()


@pytest.mark.parametrize("extension", FORMATS)
def test_a_folder_and_a_file_of_each_kind_is_a_source(tmp_path, extension):
    path = tmp_path / f"a{extension.upper()}"
    path.write_bytes(written(FORMATS[extension]))
    for source in (tmp_path, path):
        assert [row["recording"] for row in load_recordings(source)] == [str(path)]
    assert read_audio(path) == pytest.approx(sweep(SAMPLE_RATE, SECONDS), abs=2**-14)
    assert audio_duration(path) == SECONDS


def test_layers_of_mpeg_before_the_third_are_read(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setitem(KINDS, "a.mp2", ("mp2", "mp2", 44100))
    (tmp_path / "a.mp2").write_bytes(media("a.mp2", seconds=SECONDS))
    assert len(load_recordings(tmp_path)) == 1
    whole = read_audio(tmp_path / "a.mp2")
    assert len(whole) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.06)
    assert read_audio(tmp_path / "a.mp2", 1.0, 1.0) == pytest.approx(whole[16000:32000], abs=2e-5)


def test_each_ending_is_declared_once():
    assert len(set(AUDIO_EXTENSIONS)) == len(AUDIO_EXTENSIONS)
    assert {".wav", ".sph", ".mp3"} <= set(READ_BY_LIBSNDFILE)


def test_mu_law_of_telephone_corpora_has_its_channels(tmp_path):
    file = io.BytesIO()
    both = np.stack([sweep(8000, SECONDS), sweep(8000, SECONDS, 100)], axis=1)
    soundfile.write(file, both, 8000, format="NIST", subtype="ULAW")
    audio = decode_audio(file.getvalue(), "a.sph")
    assert np.corrcoef(audio, (sweep(SAMPLE_RATE, SECONDS) + sweep(SAMPLE_RATE, SECONDS, 100)) / 2)[0, 1] > 0.99
    assert len(audio) == SECONDS * SAMPLE_RATE


WHOLE = (20_000 * sweep(SAMPLE_RATE, SECONDS)).astype(int)


def test_shortened_sphere_is_read_to_the_bit_and_its_spans_are_cuts(tmp_path):
    pytest.importorskip("av")
    path = tmp_path / "a.sph"
    path.write_bytes(shortened(WHOLE))
    whole = read_audio(path)
    assert np.array_equal(whole * 2**15, WHOLE)
    assert audio_duration(path) == SECONDS
    for start, duration in ((0.0, 1.0), (1.23456, 0.7), (2.5, None), (9.0, 1.0)):
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        assert np.array_equal(read_audio(path, start, duration), whole[round(start * SAMPLE_RATE) : last])


PLAIN, PACKED = written("NIST"), shortened(WHOLE)
BAD = [
    ("plain_half.sph", PLAIN[: len(PLAIN) // 2], "truncated", "fewer bytes"),
    ("plain_last.sph", PLAIN[:-100], "truncated", "fewer bytes"),
    ("head.sph", PLAIN[:300], "truncated", ""),
    ("packed_half.sph", PACKED[: len(PACKED) // 2], "truncated", "decoding stops after"),
    ("packed_head.sph", PACKED[:1030], "truncated", ""),
    (
        "unknown.sph",
        PACKED.replace(b"embedded-shorten-v2.00", b"embedded-wavpack-v1.00"),
        "not supported",
        "its codec is not known",
    ),
    ("text.sph", b"NIST_1A\n   1024\n" + b"no header at all\n" * 99, "not audio", ""),
]


@pytest.mark.parametrize(("name", "content", "reason", "detail"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_file_is_named_with_its_reason(tmp_path, name, content, reason, detail):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True), caught.value
    assert "\n" not in str(caught.value)


def test_in_a_folder_the_others_go_on(tmp_path):
    for name, content, _, _ in BAD:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.sph").write_bytes(PLAIN)
    report = LabellingReport()
    chunks = label_recordings(
        load_recordings(tmp_path), ScriptedTranscriber({SECONDS: [(0.0, SECONDS, "三")]}), report=report
    )
    assert chunks["text"][:] == ["三"]
    assert {entry["recording"].rpartition("/")[2]: entry["reason"] for entry in report.skipped} == {
        name: reason for name, _, reason, _ in BAD
    }
