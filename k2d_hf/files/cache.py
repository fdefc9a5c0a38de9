"""The cache, of what can be made again: converted checkpoints, audio unpacked from data sets, rows in work.

One root for all of them, so that a user can move it, measure it or delete it as a whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from k2d_hf.errors import K2DError

JOINED = "long-form"
"""Folder of recordings that were joined of utterances."""

_DIGITS = 32  # of a hash, hexadecimal
_LONGEST_NAME = 180  # bytes, beside the hash; file systems allow 255, and what is written aside needs some
_KEPT = re.compile(rf"[0-9a-f]{{{_DIGITS}}}(-(?P<name>.+?))?(?P<extension>\.[^.%]*)?", re.DOTALL)
# In the name of a file, on one system or another; and what has no bytes.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f%/\\:*?"<>|\ud800-\udfff]')


def cache_root() -> Path:
    """Return `$K2D_CACHE`, else `$XDG_CACHE_HOME/k2d_hf`, else `~/.cache/k2d_hf`; the folder may not exist yet."""
    if own := os.environ.get("K2D_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().absolute() if shared else Path.home() / ".cache") / "k2d_hf"


def keep_in_cache(
    content: bytes | Callable[[], bytes], folder: str, extension: str, *, identity: bytes, name: str = ""
) -> Path:
    """Return a file in a `folder` below the cache root, named by the hash of what its content depends on; written once.

    Content that takes work to make is given as a function, which is called only where the file is not there. The name,
    any text, follows the hash, and `name_of_kept` returns it.
    """
    suffix = "-" + _file_name(name, _LONGEST_NAME - len(extension)) if name else ""
    target = cache_root() / folder / (hashlib.sha256(identity).hexdigest()[:_DIGITS] + suffix + extension)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(content() if callable(content) else content)
        os.replace(partial, target)  # atomically, also when the run is killed
    return target


def name_of_kept(path: str) -> str | None:
    """The name that `keep_in_cache` was given for a file, "" if none; None of files that are not of the cache.

    It ends as the file does, but for joined recordings, which are named after no file.
    """
    folder, file = os.path.split(path)
    kept = _KEPT.fullmatch(file)
    if kept is None or os.path.dirname(folder) != str(cache_root()):
        return None
    if not kept["name"]:
        return ""
    return unquote(kept["name"]) + ("" if os.path.basename(folder) == JOINED else kept["extension"] or "")


def _file_name(name: str, longest: int) -> str:
    """A name that every file system takes, from which `unquote` makes the name again; cut where it is too long."""
    safe_name = ""
    for character in name:
        unsafe = _UNSAFE.match(character)
        safe = "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass")) if unsafe else character
        if len((safe_name + safe).encode()) > longest:
            break
        safe_name += safe
    return safe_name


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below the cache root for as long as a `with` lasts; K2DError if the cache cannot be written.

    What a killed process leaves there is removed when the next one on the same host makes a folder.
    """
    parent, host = cache_root() / "scratch", socket.gethostname()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for left_behind in parent.glob(f"*@{host}"):
            owner = left_behind.name.partition("-")[0]
            if owner.isdigit() and not _is_running(int(owner)):
                shutil.rmtree(left_behind, ignore_errors=True)
        folder = tempfile.TemporaryDirectory(
            prefix=f"{os.getpid()}-", suffix=f"@{host}", dir=parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise K2DError(f"{parent}: cannot be written ({error.strerror}); set K2D_CACHE to a folder that can") from None
    with folder as path:
        yield Path(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True
