"""Samples in data sets are as loud as they were recorded, whatever type holds them."""

import numpy as np
import pytest
from datasets import Array2D, Dataset, Features, List, Value

from k2d_hf.audio.reader import read_audio
from k2d_hf.data.audio_values import float_samples
from k2d_hf.data.recordings import load_recordings
from k2d_hf.errors import K2DError

SOUND = 0.5 * np.sin(np.linspace(0, 60, 4000))
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "float32", "float64"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K2D_CACHE", str(tmp_path / "cache"))


def as_type(sound, kind):
    """The sound as a sound card would give it."""
    info = np.dtype(kind)
    if info.kind == "f":
        return sound.astype(kind)
    bits = 16 if kind == "int64" else 8 * info.itemsize
    whole = np.round(sound * 2 ** (bits - 1))
    return (whole + 2 ** (bits - 1) * (info.kind == "u")).astype(kind)


def read(source):
    return [read_audio(row["recording"]) for row in load_recordings(source)]


def data_of(array, feature):
    features = Features({"audio": {"array": feature, "sampling_rate": Value("int64")}})
    return Dataset.from_dict({"audio": [{"array": array, "sampling_rate": 16000}]}, features=features)


def tolerance(kind):
    return 2e-2 if kind.endswith("int8") else 2e-3


@pytest.mark.parametrize("kind", TYPES)
def test_whole_numbers_are_scaled_by_their_type(kind):
    data = data_of(as_type(SOUND, kind), List(Value(kind)))
    for source in (data, data.to_iterable_dataset(), data.with_format("torch") if kind != "uint32" else data):
        (audio,) = read(source)
        assert np.allclose(audio, SOUND, atol=tolerance(kind)), kind


@pytest.mark.parametrize("kind", ["int16", "uint8", "int64"])
def test_several_channels_are_scaled_and_mixed_whichever_come_first(kind):
    stereo = as_type(np.stack([SOUND, np.zeros_like(SOUND)]), kind)
    for array in (stereo, stereo.T):
        for feature in (List(List(Value(kind))), Array2D(array.shape, kind)):
            (audio,) = read(data_of(array, feature))
            assert np.allclose(audio, SOUND / 2, atol=tolerance(kind))


def test_numbers_of_python_have_the_depth_that_holds_them():
    for bits in (16, 24, 32):
        values = [round(value * 2 ** (bits - 1)) for value in SOUND]
        (audio,) = read(Dataset.from_list([{"audio": {"array": values, "sampling_rate": 16000}}]))
        assert np.allclose(audio, SOUND, atol=2e-3)
    (audio,) = read(Dataset.from_list([{"audio": {"array": [-32768, 32767] * 9, "sampling_rate": 16000}}]))
    assert audio.min() == -1


def test_arrays_of_a_stream_that_knows_no_types_keep_their_own():
    from datasets import IterableDataset

    for kind in ("int16", "int32", "uint8"):
        rows = [{"audio": {"array": as_type(SOUND, kind), "sampling_rate": 16000}}]
        (audio,) = read(IterableDataset.from_generator(lambda rows=rows: iter(rows)))
        assert np.allclose(audio, SOUND, atol=tolerance(kind))


def test_numbers_with_a_fraction_stay_as_they_are():
    (audio,) = read(Dataset.from_list([{"audio": {"array": [40.0, -40.5], "sampling_rate": 16000}}]))
    assert audio.tolist() == [40.0, -40.5]


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        ({"array": [1, 2]}, "row 0: an `array` with the `sampling_rate` None"),
        ({"array": [1, 2], "sampling_rate": 0}, "row 0: an `array` with the `sampling_rate` 0"),
        ({"array": [1, 2], "sampling_rate": "16k"}, "row 0: an `array` with the `sampling_rate` '16k'"),
        ({"array": ["a", "b"], "sampling_rate": 16000}, "row 0: an array of (<U1|object) with 1 dim"),
        ({"array": [[[1, 2]]], "sampling_rate": 16000}, "row 0: an array of int64 with 3 dimensions"),
        (
            {"array": [[1], [1, 2]], "sampling_rate": 16000},
            "row 0: samples that are no array|row 0: an array of object",
        ),
    ],
)
def test_samples_that_cannot_be_are_named_with_their_row(audio, words):
    with pytest.raises(K2DError, match=words) as caught:
        load_recordings(Dataset.from_list([{"audio": audio}]))
    assert "\n" not in str(caught.value)


def test_no_samples_are_none():
    assert (
        float_samples([], kind=None, where="here").shape == float_samples([], kind="int16", where="here").shape == (0,)
    )
