"""Where the package keeps what it can make again: converted checkpoints, audio unpacked from data sets, rows in work.

One root for all of them, so that a user can move it, measure it or delete it as a whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from k2d_hf.errors import K2DError


def cache_root() -> Path:
    """Return `$K2D_CACHE`, else `$XDG_CACHE_HOME/k2d_hf`, else `~/.cache/k2d_hf`; the folder may not exist yet."""
    if own := os.environ.get("K2D_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().absolute() if shared else Path.home() / ".cache") / "k2d_hf"


def keep_in_cache(content: bytes | Callable[[], bytes], folder: str, extension: str, *, identity: bytes) -> Path:
    """Return a file below the cache root that holds `content`, named by the hash of `identity`; written once.

    Content that takes work to make is given as a function, which is called only where the file is not there.
    """
    target = cache_root() / folder / (hashlib.sha256(identity).hexdigest()[:32] + extension)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(content() if callable(content) else content)
        os.replace(partial, target)  # whole or not there, also when the run is killed
    return target


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder below the cache root for as long as a `with` lasts.

    What a killed process leaves there does no harm, and goes when the next one on the same host asks for a folder.

    Raises:
        K2DError: if the cache cannot be written.
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
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
