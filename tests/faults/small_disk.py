"""A disk with little room: a file system of its own in memory where one may be mounted, else a limit to file sizes."""

import subprocess
from contextlib import contextmanager

PLENTY = 256_000_000  # bytes


class SmallDisk:
    """A folder on a disk with so many bytes of room.

    Where nothing may be mounted, no file may be larger than `largest_file` instead: the system then says of each
    write that goes on what it says of a quota.
    """

    def __init__(self, folder, room, largest_file):
        self.folder, self.largest_file = folder, 0
        folder.mkdir()
        self.mounted = _succeeds("mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", str(folder))
        if not self.mounted:
            self.largest_file = largest_file

    def grow(self):
        """Give it plenty of room."""
        self.largest_file = 0
        if self.mounted:
            assert _succeeds("mount", "-o", f"remount,size={PLENTY}", str(self.folder))


@contextmanager
def small_disk(folder, room, *, largest_file):
    """A `SmallDisk` for as long as a `with` lasts."""
    disk = SmallDisk(folder, room, largest_file)
    try:
        yield disk
    finally:
        if disk.mounted:
            _succeeds("umount", "--lazy", str(folder))


def _succeeds(*command):
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False
