"""Keys of files by their content, and a cache of digests, so that each local file is read once.

A digest is valid for a size, both times of change and an inode. A program can set back the time of change of the
content, but not that of the inode. So a file that was replaced under the same name, size and date is found, and one
whose permissions changed is read again and found to be the same.
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
KEPT_FROM = 1 << 22  # bytes of a file whose digest is kept for later runs; of a smaller one it takes milliseconds
# Nanoseconds that a file must have been left alone: the clocks of file systems tick every few milliseconds.
AT_REST = 100_000_000
# Fields of stores that change with the content. The date of HTTP is not among them: it counts in seconds.
STAMPS = (
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_settings", "blob_id", "oid", "checksum"),
    *("mtime", "LastModified", "last_modified", "modificationTime", "created"),
)
_DIGESTS = "digests.sqlite"
_TABLE = "digests"
_TIMEOUT = 2.0  # s, of another process that writes to it
_known: dict[str, str] = {}  # digests by name and state, of this process


def content_key(path: str | os.PathLike[str]) -> str:
    """Key of a file's content: path, size, time of change, and a digest of what is in it.

    Of a remote file, a field of its store stands for the digest; where it has none, the file is read. Of one that does
    not exist, cannot be read, or is a device or a pipe, it is the path alone.
    """
    given = os.fspath(path)
    path = without_file_scheme(given)
    try:
        if is_address(path):
            return f"{given} {_remote_state(path)}"
        stat = os.stat(path)
        if not S_ISREG(stat.st_mode):  # a device has no end, and a pipe may wait for ever
            return given
        return f"{given} {stat.st_size} {stat.st_mtime_ns} {_local_digest(path, stat)}"
    except (OSError, ValueError, K2DError):
        return given


def digest_of(content: bytes | memoryview) -> str:
    """Digest of what is in memory already."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _remote_state(path: str) -> str:
    system, inside = filesystem(path)
    with as_os_errors(path):
        about = system.info(inside)
    stamp = next((about[name] for name in STAMPS if about.get(name)), None)
    return f"{about.get('size', '')} {_read_digest(path) if stamp is None else stamp}"


def _local_digest(path: str, stat: os.stat_result) -> str:
    """Digest of a local file, which is read only where it is not cached."""
    name, state = os.path.abspath(path), file_state(stat)
    key = f"{name}\0{state}"
    if key in _known:
        return _known[key]
    digest = kept_digest(_TABLE, name, state) if stat.st_size >= KEPT_FROM else None
    if digest is None:
        digest = _read_digest(path)
        if file_state(os.stat(path)) != state or time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < AT_REST:
            return digest  # it is being written, or may be once more within one tick of the clock
        if stat.st_size >= KEPT_FROM:
            keep_digest(_TABLE, name, state, digest)
    _known[key] = digest
    return digest


def file_state(stat: os.stat_result) -> str:
    """For which state of a file its digest is valid: size, times of change of content and inode in ns, inode."""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _read_digest(path: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open_to_read(path, fetch=READ_AT_ONCE) as file:
        while block := file.read(READ_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def kept_digest(table: str, name: str, state: str) -> str | None:
    """The digest that an earlier call kept for a file in this state."""
    path = cache_root() / _DIGESTS
    if not path.exists():
        return None
    with suppress(sqlite3.Error, UnicodeError), closing(sqlite3.connect(path, timeout=_TIMEOUT)) as database:
        row = database.execute(f"SELECT digest FROM {table} WHERE name = ? AND state = ?", (name, state)).fetchone()
        return row[0] if row else None
    return None


def keep_digest(table: str, name: str, state: str, digest: str, *, forget_missing: bool = False) -> None:
    """Keep a digest for later runs; where that is impossible, they read the file again.

    The table is one for each kind of digest, the name the absolute path of a file, the state that of `file_state`.
    `forget_missing` deletes the digests of files that are gone.
    """
    path = cache_root() / _DIGESTS
    with suppress(sqlite3.Error, UnicodeError, OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_digest(path, table, (name, state, digest), forget_missing)
        except sqlite3.OperationalError:  # locked, or not to be written: it stays
            return
        except sqlite3.DatabaseError:  # damaged: a new one takes its place
            path.unlink(missing_ok=True)
            _write_digest(path, table, (name, state, digest), forget_missing)


def _write_digest(path: Path, table: str, row: tuple[str, str, str], forget_missing: bool) -> None:
    with closing(sqlite3.connect(path, timeout=_TIMEOUT)) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} (name TEXT PRIMARY KEY, state TEXT, digest TEXT)")
        if forget_missing:
            names = database.execute(f"SELECT name FROM {table}").fetchall()
            gone = [row for row in names if not os.path.exists(row[0])]
            database.executemany(f"DELETE FROM {table} WHERE name = ?", gone)
        database.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)", row)
