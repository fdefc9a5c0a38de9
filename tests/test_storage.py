"""Files here and far away: written whole or not at all, known by their content's key, and one kind of error."""

import errno
import os
import uuid

import pytest
from far_files import FarFileSystem, put

from k2d_hf.errors import K2DError
from k2d_hf.files.storage import (
    enough_room,
    exists,
    file_key,
    files_below,
    filesystem,
    is_address,
    open_to_read,
    remove_file,
    remove_folder,
    size,
    write_atomic,
)


@pytest.fixture(params=["disk", "address"])
def folder(request, tmp_path):
    return str(tmp_path / "in") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/in"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://b/a.wav", True), ("memory://a", True), ("/in/a.wav", False), ("a.wav", False), ("C:\\a.wav", False)],
)
def test_an_address_is_known_by_its_kind(path, expected):
    assert is_address(path) is expected


def test_what_is_written_is_read_listed_and_removed(folder):
    for name, content in [("b/2.txt", b"two"), ("a/1.txt", b"one"), ("a/1.bin", b"")]:
        write_atomic(f"{folder}/{name}", content)
    write_atomic(f"{folder}/a/1.txt", b"another")
    assert files_below(folder, ".txt") == [f"{folder}/a/1.txt", f"{folder}/b/2.txt"]
    assert len(files_below(folder)) == 3
    with open_to_read(f"{folder}/a/1.txt") as file:
        assert (file.read(), file.seek(2), file.read(3), file.tell()) == (b"another", 2, b"oth", 5)
    remove_file(f"{folder}/a/1.bin")
    remove_file(f"{folder}/a/1.bin")
    assert not exists(f"{folder}/a/1.bin")
    remove_folder(folder)
    remove_folder(folder)
    assert not exists(folder)
    assert files_below(folder) == []


def test_a_changed_file_has_another_key_and_one_that_is_not_there_its_path(folder):
    path = f"{folder}/a.txt"
    assert file_key(path) == path
    keys = set()
    for content in (b"one", b"other"):
        write_atomic(path, content)
        keys |= {file_key(path), file_key(path)}
    assert len(keys) == 2
    assert all(key.startswith(f"{path} ") for key in keys)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"os.{failing}", full)
    with pytest.raises(K2DError, match=r"a\.txt: no room on its disk \(No space left on device: it takes 3 bytes"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_other_errors_than_a_full_disk_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), enough_room(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("address", ["nosuchkind://a", "nosuchkind://"])
def test_an_address_of_an_unknown_kind_says_so(address):
    with pytest.raises(K2DError, match="nosuchkind.*cannot be reached"):
        filesystem(address)


def test_what_a_library_raises_while_it_reads_is_an_os_error_on_one_line():
    put("far://storage/a.bin", bytes(3_000_000))
    FarFileSystem.begin(breaks_after=1_500_000)
    with open_to_read("far://storage/a.bin", fetch=1 << 20) as file:
        assert len(file.read(1000)) == 1000
        with pytest.raises(OSError, match=r"far://storage/a\.bin: ConnectionLost: peer went away with a second line$"):
            file.read()


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (123_456, "123 kB"), (2.5e9, "2.5 GB"), (1e16, "10000 TB")],
)
def test_bytes_as_people_read_them(count, expected):
    assert size(count) == expected
