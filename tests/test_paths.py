"""Paths and addresses: joined, and the files below a folder in one order, here and far away."""

import uuid

import fsspec
import pytest

from k2d_hf.files.paths import folder_of, joined, name_of, walk_files
from k2d_hf.files.storage import is_file, is_folder

FILES = ["b.wav", "a/x.wav", "a.wav", "a b/空 🎧.wav", ".hidden/c.wav", "a/.d.wav"]
IN_ORDER = ["a/x.wav", "a b/空 🎧.wav", "a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("folder", "path", "expected"),
    [
        ("/in", "a.wav", "/in/a.wav"),
        ("/in", "/x/a.wav", "/x/a.wav"),
        ("/in", "s3://b/a.wav", "s3://b/a.wav"),
        ("s3://b", "a.wav", "s3://b/a.wav"),
        ("s3://b/in", "../a b/空.wav", "s3://b/a b/空.wav"),
        ("s3://b/in/", "/x/a.wav", "/x/a.wav"),
        ("memory://", "a.wav", "memory://a.wav"),
        ("zip://in::s3://b/all.zip", "a.wav", "zip://in/a.wav::s3://b/all.zip"),
    ],
)
def test_a_path_as_seen_from_a_folder(folder, path, expected):
    assert joined(folder, path) == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/in/a b/空.wav", "空.wav"),
        ("a.wav", "a.wav"),
        ("C:\\in\\a.wav", "a.wav"),
        ("s3://b/in/a.wav", "a.wav"),
        ("zip://in/a.wav::s3://b/all.zip", "a.wav"),
        ("/in/a::b.wav", "a::b.wav"),
    ],
)
def test_the_name_of_a_file(path, name):
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/in/m.csv", "/in"),
        ("s3://b/in/m.csv", "s3://b/in"),
        ("memory://m.csv", "memory://"),
        ("zip://in/m.csv::s3://b/all.zip", "zip://in::s3://b/all.zip"),
    ],
)
def test_the_folder_of_a_file(path, expected):
    assert folder_of(path) == expected


@pytest.fixture(params=["disk", "address"])
def folder(request, tmp_path):
    base = str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}/in"
    for name in FILES:
        with fsspec.open(f"{base}/{name}", "wb", auto_mkdir=True) as file:
            file.write(b"x")
    return base


def test_files_come_in_the_order_of_the_parts_of_their_paths_without_hidden_ones(folder):
    assert list(walk_files(folder)) == list(walk_files(f"{folder}/")) == [f"{folder}/{name}" for name in IN_ORDER]
    assert is_folder(folder)
    assert not is_file(folder)
    assert is_file(f"{folder}/a.wav")


def test_a_folder_that_is_not_there_is_an_error(folder):
    with pytest.raises(FileNotFoundError):
        list(walk_files(f"{folder}/gone"))


def test_links_that_lead_in_a_circle_or_nowhere_do_no_harm(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"x")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "in" / "self.wav").symlink_to("self.wav")
    (tmp_path / "in" / "gone.wav").symlink_to("nowhere.wav")
    found = [path.removeprefix(f"{tmp_path}/in/") for path in walk_files(str(tmp_path / "in"))]
    assert found == ["a.wav", "gone.wav", "self.wav"]


def test_a_folder_below_that_cannot_be_listed_is_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    import os

    for name in ("a/x.wav", "b/y.wav"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("/a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", refusing)
    assert list(walk_files(str(tmp_path))) == [str(tmp_path / "b/y.wav")]
    assert f"{tmp_path / 'a'}: left out, it cannot be listed (Permission denied)" in caplog.text
