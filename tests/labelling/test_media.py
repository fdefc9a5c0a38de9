"""Recordings as people have them, read by PyAV: every kind, spans to the sample, and every way in which one can be bad."""

import builtins
import io
import json
import struct
import sys
import threading
from fractions import Fraction

import numpy as np
import pytest
import soundfile
from far_files import FarFileSystem, put
from media_files import KINDS, add_track, encode, media, sweep
from scripted_transcriber import ScriptedTranscriber

from k2d_hf.audio import media_file
from k2d_hf.audio.reader import SAMPLE_RATE, AudioError, audio_duration, decode_audio, decoded_duration, read_audio
from k2d_hf.data.recordings import load_recordings
from k2d_hf.files.background import Cancelled, set_cancel_event
from k2d_hf.labelling.teacher import LabellingReport, label_recordings

pytest.importorskip("av")
SECONDS = 30.0
# How much later the sound is than what was encoded, in samples at 16 kHz: these files do not say what a coder put
# before it, or, as FFmpeg writes AMR, a little too much.
NO_DELAY = {"a.aac", "a.amr", "amr.3gp", "a.wma", "a.avi", "a.flv", "a.mts", "a.mpg"}
SPANS = [
    (0, 1),
    (0.5, 0.25),
    (1.23456, 2.0),
    (6.5, 1),
    (17.3, 2.5),
    (12.99999, 1.7),
    (28.5, 1.5),
    (29.5, None),
    (40, 1),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    for kind in KINDS:
        (folder / kind).write_bytes(media(kind, seconds=SECONDS))
    return folder


@pytest.fixture
def opened(monkeypatch):
    """How often a file was begun at its start: once to read its head, and again where no search told a place."""
    times, begin = [], media_file.MediaFile._open
    monkeypatch.setattr(media_file.MediaFile, "_open", lambda self: (times.append(1), begin(self))[1])
    return times


def lag(sound, other, most=2400):
    """By how many samples `sound` is behind `other`."""
    size = 1 << (len(sound) + len(other)).bit_length()
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.conj(np.fft.rfft(other, size)), size)
    return int(np.argmax(np.concatenate([both[-most:], both[: most + 1]]))) - most


def assert_cuts(whole, read, spans=SPANS, tolerance=2e-2):
    """That spans are cuts of the whole: as long, and not a sample off; noise that a decoder makes up may differ."""
    for start, duration in spans:
        last = None if duration is None else round((start + duration) * SAMPLE_RATE)
        cut, span = whole[round(start * SAMPLE_RATE) : last], read(start, duration)
        assert len(span) == len(cut)
        if len(cut):
            assert lag(span, cut) == 0, (start, duration)
            assert np.abs(span - cut).max() < tolerance, (start, duration)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_sound_that_was_encoded(files, kind):
    whole, expected = read_audio(files / kind), sweep(SAMPLE_RATE, SECONDS)
    assert (whole.dtype, whole.ndim) == (np.float32, 1)
    assert len(whole) / SAMPLE_RATE == pytest.approx(SECONDS, abs=0.1)
    assert audio_duration(files / kind) == pytest.approx(len(whole) / SAMPLE_RATE, abs=0.03)
    late = lag(whole, expected)
    assert late == 0 or (kind in NO_DELAY and abs(late) < 0.15 * SAMPLE_RATE)
    inner = slice(SAMPLE_RATE, 28 * SAMPLE_RATE)
    assert np.corrcoef(np.roll(whole, -late)[inner], expected[inner])[0, 1] > (0.7 if "amr" in kind else 0.98)


@pytest.mark.parametrize("kind", KINDS)
def test_a_span_is_the_same_cut_of_the_whole(files, kind):
    assert_cuts(read_audio(files / kind), lambda *span: read_audio(files / kind, *span))


@pytest.mark.parametrize("kind", ["a.m4a", "pcm.mov", "opus.mp4", "a.mkv", "a.webm", "amr.3gp", "a.aac", "a.amr"])
def test_a_span_is_searched_and_not_decoded_from_the_start(files, kind, opened):
    read_audio(files / kind, 20.0, 1.0)
    assert len(opened) == 1


@pytest.mark.parametrize("kind", ["a.m4a", "a.mkv", "a.webm"])
def test_a_variable_bit_rate_moves_no_span(kind):
    rate = KINDS[kind][2]
    loud = np.random.default_rng(1).standard_normal(round(rate * 10)).astype(np.float32) * 0.2
    sound = np.concatenate([0 * loud, loud, 0.001 * loud]) + sweep(rate, 30.0)
    content = media(kind, sound)
    whole = decode_audio(content, kind)
    put(f"memory://vbr/{kind}", content)
    assert_cuts(whole, lambda *span: read_audio(f"memory://vbr/{kind}", *span), tolerance=0.3)


@pytest.mark.parametrize("rate", [22050, 44100, 48000])
def test_encoder_delay_and_an_edit_list_that_begins_late_are_left_out(tmp_path, rate, monkeypatch):
    monkeypatch.setitem(KINDS, "any.m4a", ("ipod", "aac", rate))
    content = bytearray(media("any.m4a", seconds=20.0))
    at = content.index(b"elst") + 4
    skipped = struct.unpack(">i", content[at + 12 : at + 16])[0]
    assert skipped == 1024  # samples that the encoder put before the sound
    assert lag(decode_audio(bytes(content), "a.m4a"), sweep(SAMPLE_RATE, 20.0)) == 0
    # Cut by an editor, as telephones do: the file keeps what comes before the first half second.
    content[at + 8 : at + 12] = struct.pack(">i", 19_500)
    content[at + 12 : at + 16] = struct.pack(">i", 1024 + rate // 2)
    (tmp_path / "cut.m4a").write_bytes(content)
    whole = read_audio(tmp_path / "cut.m4a")
    assert lag(whole, sweep(SAMPLE_RATE, 20.0)[SAMPLE_RATE // 2 :]) == 0
    assert len(whole) == pytest.approx(19.5 * SAMPLE_RATE, abs=1)
    assert_cuts(whole, lambda *span: read_audio(tmp_path / "cut.m4a", *span), [(0, 1), (7.1, 2), (19.0, None)])


def moved(by):
    """Packets whose time stamps are later by `by(number)` seconds; None drops a packet."""

    def shift(number, packet):
        if by(number) is None:
            return None
        delay = round(Fraction(by(number)) / packet.time_base)
        packet.pts, packet.dts = packet.pts + delay, packet.dts + delay
        return packet

    return shift


TREMBLE = np.random.default_rng(2).integers(0, 5, 4000)
STAMPS = {
    "lost packets": lambda number: None if 400 <= number < 425 else Fraction(0),
    "a pause": lambda number: Fraction(0) if number < 500 else Fraction(7, 3),
    "trembling": lambda number: Fraction(int(TREMBLE[number]), 1000),
    "drift": lambda number: Fraction(number, 20_000),
}


@pytest.mark.parametrize("kind", ["a.webm", "a.mkv", "a.m4a"])
@pytest.mark.parametrize("stamps", STAMPS)
def test_time_stamps_that_jump_or_tremble_move_no_span(tmp_path, kind, stamps):
    path = tmp_path / kind
    path.write_bytes(media(kind, seconds=SECONDS, shift=moved(STAMPS[stamps])))
    whole = read_audio(path)
    assert_cuts(whole, lambda *span: read_audio(path, *span), tolerance=0.1)
    if stamps == "lost packets":
        late = sweep(SAMPLE_RATE, SECONDS)[20 * SAMPLE_RATE : 21 * SAMPLE_RATE]
        assert abs(lag(whole[20 * SAMPLE_RATE : 21 * SAMPLE_RATE], late)) <= SAMPLE_RATE // 1000
    if stamps == "a pause":
        assert len(whole) / SAMPLE_RATE == pytest.approx(SECONDS + 7 / 3, abs=0.1)


@pytest.mark.parametrize("kind", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("tracks", [1, 2])
def test_of_a_film_the_first_track_of_sound_is_read(kind, tracks):
    content = media(kind, video=True, tracks=tracks)
    whole = decode_audio(content, kind)
    assert lag(whole, sweep(SAMPLE_RATE, 8.0)) == 0
    assert decoded_duration(content, kind) == pytest.approx(8.0, abs=0.03)


@pytest.mark.parametrize("codec", ["aac", "flac", "pcm_s16le", "pcm_f32le", "alac"])
def test_channels_are_averaged(codec):
    import av

    file, left = io.BytesIO(), sweep(48000, 3.0)
    with av.open(file, "w", format="matroska") as container:
        stream = add_track(container, codec, 48000, channels=2, bit_rate=192_000)
        container.mux(list(encode(container, stream, np.stack([left, 0.5 * left]))))
    whole, expected = decode_audio(file.getvalue(), "a.mka"), 0.75 * sweep(SAMPLE_RATE, 3.0)
    inner = slice(1600, 40_000)
    assert np.std(whole[inner]) == pytest.approx(np.std(expected[inner]), rel=0.01)
    assert np.corrcoef(whole[inner], expected[inner])[0, 1] > 0.99


def claiming_hours():
    content = bytearray(media("a.mkv", seconds=1.0))
    at = content.index(b"00:00:01")
    content[at : at + 2] = b"10"
    return bytes(content)


HOURS = 10 * 3600
# Boxes of MPEG-4 with a length, and where it and its ticks a second are, behind the box's name.
LENGTHS = {b"mvhd": (20, 16), b"tkhd": (24, None), b"mdhd": (20, 16)}


def lying(kind, *boxes):
    """A second of sound, whose header has ten hours in these boxes."""
    content = bytearray(media(kind, seconds=1.0))
    for box in boxes:
        at = content.index(box)
        length, ticks = LENGTHS[box]
        rate = 1000 if ticks is None else struct.unpack(">I", content[at + ticks : at + ticks + 4])[0]
        content[at + length : at + length + 4] = struct.pack(">I", HOURS * rate)
    return bytes(content)


def slow(kind):
    """A second of sound, of which each sample lasts for hours by the table of times."""
    content = bytearray(media(kind, seconds=1.0))
    at = content.index(b"stts") + 16
    content[at : at + 4] = struct.pack(">I", HOURS * 1024)
    return bytes(content)


@pytest.mark.parametrize("kind", ["a.m4a", "a.mov", "pcm.mov"])
@pytest.mark.parametrize("boxes", [[b"mvhd"], [b"tkhd"], [b"mdhd"], [*LENGTHS]])
def test_a_header_that_promises_hours_beside_a_table_of_a_second_hides_and_adds_nothing(kind, boxes):
    content, true = lying(kind, *boxes), media(kind, seconds=1.0)
    assert np.array_equal(decode_audio(content, kind), decode_audio(true, kind))
    assert decoded_duration(content, kind) == decoded_duration(true, kind) == pytest.approx(1.0, abs=0.001)


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}


def test_a_film_in_fragments_as_cameras_and_meetings_write_it(tmp_path):
    content = media("a.mp4", options=FRAGMENTS)
    assert content.count(b"moof") > 10
    whole = decode_audio(content, "a.mp4")
    assert len(whole) / SAMPLE_RATE == pytest.approx(8.0, abs=0.03)
    assert abs(lag(whole, sweep(SAMPLE_RATE, 8.0))) <= round(1024 * SAMPLE_RATE / 48000)  # what the coder put before it
    (tmp_path / "a.mp4").write_bytes(content)
    assert_cuts(whole, lambda *span: read_audio(tmp_path / "a.mp4", *span), [(0, 1), (3.3, 1.2), (7.0, None)])


PHONE = media("a.m4a")
STREAMED = media("a.m4a", options={"movflags": "faststart"})
ENCRYPTION = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
LOST = "fewer bytes"
BAD = [
    ("film.mp4", media("a.mp4", video=True, silent=True), "no samples", "no track of sound"),
    ("film.mkv", media("a.mkv", video=True, silent=True), "no samples", "no track of sound"),
    ("shop.mp4", media("a.mp4", options=ENCRYPTION), "encrypted", ""),
    ("shop.m4p", PHONE.replace(b"mp4a", b"drms", 1), "encrypted", ""),
    ("hours.mkv", claiming_hours(), "truncated", "1.0 s of 36001.0 s"),
    ("hours.m4a", slow("a.m4a"), "no samples", "there is none in its track of sound"),
    ("fragments.mp4", media("a.mp4", options=FRAGMENTS)[:-2000], "truncated", LOST),
    ("half.m4a", PHONE[: len(PHONE) // 2], "truncated", LOST),
    ("no_index.m4a", PHONE[: PHONE.index(b"moov") - 4], "truncated", "moov"),
    ("half.mp4", STREAMED[: len(STREAMED) // 2], "truncated", LOST),
    ("last_byte.mp4", STREAMED[:-1], "truncated", LOST),
    *((f"half {kind}", media(kind)[:20_000], "truncated", LOST) for kind in ("a.mkv", "a.webm", "a.avi", "a.wma")),
    *((f"half {kind}", media(kind)[:-9], "truncated", "decoding stops after") for kind in ("a.aac", "a.amr", "a.mts")),
    ("head.webm", media("a.webm")[:40], "not audio", "End of file"),
    ("text.m4a", b"this is not a recording\n" * 99, "not audio", ""),
    ("noise.mp4", np.random.default_rng(0).bytes(9999), "not audio", ""),
    ("brand.mp4", b"\0\0\0\x1cftypM4A " + bytes(999), "truncated", "moov"),
    ("playlist.m4a", b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n", "not audio", ""),
]


@pytest.mark.parametrize(("name", "content", "reason", "detail"), BAD, ids=[row[0] for row in BAD])
def test_a_bad_file_is_named_with_its_reason(tmp_path, name, content, reason, detail):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError) as caught:
        read_audio(path)
    assert (caught.value.reason, detail in caught.value.detail) == (reason, True), caught.value
    assert str(caught.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(caught.value)


def test_how_far_a_broken_file_can_be_decoded_is_named(tmp_path):
    (tmp_path / "a.aac").write_bytes(media("a.aac")[:-1])
    with pytest.raises(AudioError, match=r"decoding stops after [78]\.\d s"):
        read_audio(tmp_path / "a.aac")


def test_the_sound_part_of_a_truncated_file_can_still_be_read_as_a_span(tmp_path):
    (tmp_path / "a.m4a").write_bytes(STREAMED[: len(STREAMED) // 2])
    span = read_audio(tmp_path / "a.m4a", 0.5, 1.0)
    assert span == pytest.approx(decode_audio(STREAMED, "a.m4a")[8000:24000], abs=2e-6)


def test_in_a_folder_the_others_go_on(tmp_path):
    (tmp_path / "in").mkdir()
    for name, content, _, _ in BAD:
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in" / "good.m4a").write_bytes(PHONE)
    report = LabellingReport()
    transcriber = ScriptedTranscriber({8.0: [(0.0, 8.0, "八")]})
    chunks = label_recordings(load_recordings(str(tmp_path / "in")), transcriber, report=report)
    assert chunks["text"][:] == ["八"]
    reasons = {entry["recording"].rpartition("/")[2]: entry["reason"] for entry in report.skipped}
    assert reasons == {name: reason for name, _, reason, _ in BAD}


@pytest.mark.parametrize("kind", ["a.m4a", "a.mkv", "a.webm", "a.aac"])
@pytest.mark.parametrize("where", ["memory", "far"])
def test_an_address_gives_the_same_samples_as_a_file(files, kind, where):
    address = put(f"{where}://media/{kind}", (files / kind).read_bytes())
    FarFileSystem.begin()
    assert audio_duration(address) == audio_duration(files / kind)
    for span in [(0.0, None), (1.23, 1.5), (20.0, 1.0), (40.0, 1.0)]:
        assert np.array_equal(read_audio(address, *span), read_audio(files / kind, *span))


@pytest.mark.parametrize("kind", ["a.m4a", "pcm.mov", "a.mkv"])
def test_a_span_of_a_large_file_fetches_little_more_than_itself(kind):
    rate = KINDS[kind][2]
    content = media(kind, np.tile(sweep(rate, 30.0), 20))
    address = put(f"far://media/long-{kind}", content)
    FarFileSystem.begin()
    assert len(read_audio(address, 400.0, 20.0)) == 20 * SAMPLE_RATE
    assert FarFileSystem.fetched < len(content) / 6


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("kind", ["a.m4a", "a.mkv", "a.aac"])
def test_a_network_that_breaks_is_not_taken_for_a_bad_recording(monkeypatch, kind, share):
    monkeypatch.setattr("k2d_hf.audio.reader.WHOLE_FETCH", 4096)
    content = media(kind)
    address = put(f"far://media/broken-{kind}", content)
    FarFileSystem.begin(breaks_after=share * len(content))
    with pytest.raises(AudioError, match="not readable.*ConnectionLost: peer went away"):
        read_audio(address)


def test_decoding_ends_where_it_is_cancelled(files):
    cancelled = threading.Event()
    set_cancel_event(cancelled)
    try:
        cancelled.set()
        with pytest.raises(Cancelled):
            read_audio(files / "a.m4a")
    finally:
        set_cancel_event(threading.Event())


def test_without_pyav_one_line_has_the_command(files, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'")
        return real(name, *arguments, **keywords)

    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AudioError, match=r"a\.m4a: no decoder; pip install av, or convert it") as caught:
        read_audio(files / "a.m4a")
    assert "\n" not in str(caught.value)


def test_what_libsndfile_reads_stays_with_it(tmp_path, opened):
    soundfile.write(tmp_path / "a.m4a", sweep(16000, 1.0), 16000, format="FLAC")
    assert len(read_audio(tmp_path / "a.m4a")) == SAMPLE_RATE
    assert opened == []


def test_one_such_file_is_a_source_as_are_folders_of_them(tmp_path):
    for name in ("a.m4a", "B.MP4", "c.WebM"):
        (tmp_path / name).write_bytes(PHONE)
        assert [row["recording"] for row in load_recordings(str(tmp_path / name))] == [str(tmp_path / name)]
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio": "a.m4a", "offset": 2.0, "duration": 3.0}))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.mkv").write_bytes(PHONE)
    assert len(load_recordings(str(tmp_path / "d"))) == 1
    transcriber = ScriptedTranscriber({3.0: [(0.0, 3.0, "三")]})
    assert label_recordings(load_recordings(str(tmp_path / "m.jsonl")), transcriber)["text"][:] == ["三"]


def test_a_folder_warns_beforehand_where_pyav_is_missing(tmp_path, monkeypatch, caplog):
    for name in ("a.m4a", "b.MKV", "c.flac"):
        (tmp_path / name).write_bytes(PHONE)
    assert len(load_recordings(str(tmp_path))) == 3
    assert "PyAV" not in caplog.text
    monkeypatch.setattr("k2d_hf.data.audio_folders.missing", lambda module: f"pip install {module}")
    assert len(load_recordings(str(tmp_path))) == 3
    assert f"{tmp_path}: 2 files will be skipped, as PyAV is missing: pip install av" in caplog.text
