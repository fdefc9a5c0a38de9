"""Keys of files that change when what is in them does, whatever their sizes and dates say.

A file here is read once. Its digest is remembered by what the system says of it: size, both times of change, inode.
A program can set back the time of change of the content, but not that of the inode. So a file that was replaced under
the same name, size and date is found, and one whose permissions changed is read again and found to be the same.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from stat import S_ISREG

from k2d_hf.errors import K2DError
from k2d_hf.files.cache import cache_root
from k2d_hf.files.storage import as_os_errors, filesystem, is_address, open_to_read, without_file_scheme

READ_AT_ONCE = 1 << 22  # bytes
KEPT_FROM = 1 << 22  # bytes of a file whose digest is kept for later runs; of a smaller one it is made in milliseconds
# Nanoseconds that a file must have been left alone: the clocks of file systems tick every few milliseconds.
AT_REST = 100_000_000
# What tells one content of a file from the next, as stores call it. The date of HTTP does not: it counts in seconds.
STAMPS = (
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_settings", "blob_id", "oid", "checksum"),
    *("mtime", "LastModified", "last_modified", "modificationTime", "created"),
)
_DIGESTS = "digests.sqlite"
_known: dict[str, str] = {}  # digests by name and state, of this process


def content_key(path: str | os.PathLike[str]) -> str:
    """Key of a file's content: path, size, time of change, and a digest of what is in it.

    Of a file that is far away, what its store says stands for the digest; where it says too little, the file is read.
    Of one that is not there, cannot be read, or is no file but a device or a pipe, it is the path alone.
    """
    given = os.fspath(path)
    path = without_file_scheme(given)
    try:
        if is_address(path):
            return f"{given} {_far_state(path)}"
        stat = os.stat(path)
        if not S_ISREG(stat.st_mode):  # a device has no end, and a pipe may wait for ever
            return given
        return f"{given} {stat.st_size} {stat.st_mtime_ns} {_digest_here(path, stat)}"
    except (OSError, ValueError, K2DError):
        return given


def digest_of(content: bytes | memoryview) -> str:
    """Digest of what is in memory already."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _far_state(path: str) -> str:
    system, inside = filesystem(path)
    with as_os_errors(path):
        about = system.info(inside)
    stamp = next((about[name] for name in STAMPS if about.get(name)), None)
    return f"{about.get('size', '')} {_read_digest(path) if stamp is None else stamp}"


def _digest_here(path: str, stat: os.stat_result) -> str:
    """Digest of a file of this machine, read only where it is not known."""
    name, state = os.path.abspath(path), _state(stat)
    key = f"{name}\0{state}"
    if key in _known:
        return _known[key]
    digest = _kept(name, state) if stat.st_size >= KEPT_FROM else None
    if digest is None:
        digest = _read_digest(path)
        if _state(os.stat(path)) != state or time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < AT_REST:
            return digest  # it is being written, or may be once more within one tick of the clock
        if stat.st_size >= KEPT_FROM:
            _keep(name, state, digest)
    _known[key] = digest
    return digest


def _state(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _read_digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_to_read(path, fetch=READ_AT_ONCE) as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _kept(name: str, state: str) -> str | None:
    """The digest that an earlier run made of a file in this state."""
    path = cache_root() / _DIGESTS
    if not path.exists():
        return None
    with suppress(sqlite3.Error, UnicodeError), closing(_opened(path)) as table:
        row = table.execute("SELECT digest FROM digests WHERE name = ? AND state = ?", (name, state)).fetchone()
        return row[0] if row else None
    return None


def _keep(name: str, state: str, digest: str) -> None:
    """Keep a digest for later runs; where that cannot be, they read the file again."""
    path = cache_root() / _DIGESTS
    with suppress(sqlite3.Error, UnicodeError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_opened(path)) as table, table:
            table.execute("PRAGMA synchronous = OFF")
            table.execute("CREATE TABLE IF NOT EXISTS digests (name TEXT PRIMARY KEY, state TEXT, digest TEXT)")
            table.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (name, state, digest))


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=2.0)
