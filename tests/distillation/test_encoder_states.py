"""Encoder states on disk: found again by weights and chunk, complete or not there, and never more than the disk holds."""

import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from full_disk import files_of_at_most

from distillation.tiny_training import another
from k2d_hf.distillation.models import encode
from k2d_hf.distillation.targets.encoder_states import EncoderStates, lack_of_disk, weights_digest
from k2d_hf.errors import K2DError


@pytest.fixture
def encoder(tiny_whisper):
    return tiny_whisper.model.encoder


def test_states_come_back_within_half_precision(tmp_path, tiny_whisper, encoder, chunks):
    states = EncoderStates(tmp_path, encoder)
    features = torch.randn(3, 80, 3000, generator=torch.Generator().manual_seed(0))
    calls = []

    def run_encoder(batch):
        calls.append(len(batch))
        return encode(tiny_whisper, features[: len(batch)])

    states.write_all(chunks.select([0, 1, 2]), run_encoder, batch_size=2)
    back = states.batch([chunks[0], chunks[1]])
    assert calls == [2, 1]
    assert (back.shape, back.dtype) == ((2, 1500, 32), torch.float16)
    torch.testing.assert_close(back.float(), encode(tiny_whisper, features[:2]), rtol=1e-3, atol=1e-3)


def test_only_what_is_not_there_is_missing(tmp_path, encoder, chunks):
    states = EncoderStates(tmp_path, encoder)
    assert states.missing(chunks) == list(range(8))
    states.write(chunks[3], np.zeros((4, 2)))
    assert states.missing(chunks) == [0, 1, 2, 4, 5, 6, 7]
    assert EncoderStates(tmp_path, encoder).missing(chunks.select([3])) == []


def test_a_write_that_stops_half_way_leaves_nothing_to_be_found(tmp_path, encoder, chunks):
    states = EncoderStates(tmp_path, encoder)
    with files_of_at_most(1000), pytest.raises(K2DError, match="no room on its disk"):
        states.write(chunks[0], np.zeros((1000, 2)))
    assert states.missing(chunks.select([0])) == [0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("change", [{"start": 0.5}, {"duration": 2.5}], ids=str)
def test_another_span_is_another_chunk(tmp_path, encoder, chunks, change):
    states = EncoderStates(tmp_path, encoder)
    assert states.path({**chunks[0], **change}) != states.path(chunks[0])


def test_other_words_for_a_span_are_the_same_chunk(tmp_path, encoder, chunks):
    states = EncoderStates(tmp_path, encoder)
    assert states.path({**chunks[0], "text": "other"}) == states.path(chunks[0])


def test_a_recording_that_changed_is_another(tmp_path, encoder, noise_file):
    path = tmp_path / "lecture.flac"
    shutil.copy(noise_file, path)
    chunk = {"recording": str(path), "start": 0.0, "duration": 1.0}
    states = EncoderStates(tmp_path, encoder)
    before = states.path(chunk)
    os.utime(path, (1, 1))
    assert states.path(chunk) != before


def test_other_weights_have_other_files(tmp_path, tiny_whisper, encoder, chunks):
    other = another(tiny_whisper).model.encoder
    assert weights_digest(encoder) == weights_digest(encoder)
    assert EncoderStates(tmp_path, other).path(chunks[0]) != EncoderStates(tmp_path, encoder).path(chunks[0])


@pytest.mark.parametrize(
    ("chunks", "free", "reason"),
    [
        (1000, 400e6, None),
        (1000, 191e6, "1000 chunks need 0.1 GB, and 0.2 GB are free"),
        (1, 100e3, "1 chunks need 0.0 GB"),
        (0, 0, None),
    ],
)
def test_half_of_the_free_disk_may_be_used(tiny_whisper, tmp_path, monkeypatch, chunks, free, reason):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, free))
    found = lack_of_disk(chunks, tiny_whisper.config, tmp_path / "not" / "there" / "yet")
    assert found is None if reason is None else reason in found
