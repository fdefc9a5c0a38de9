"""Where the package keeps what it can make again: converted checkpoints, audio unpacked from data sets.

One root for all of them, so that a user can move it, measure it or delete it as a whole.
"""

import hashlib
import os
from pathlib import Path


def cache_root() -> Path:
    """Return `$K2D_CACHE`, else `$XDG_CACHE_HOME/k2d_hf`, else `~/.cache/k2d_hf`; the folder may not exist yet."""
    if own := os.environ.get("K2D_CACHE"):
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().absolute() if shared else Path.home() / ".cache") / "k2d_hf"


def keep_in_cache(content: bytes, folder: str, extension: str, *, identity: bytes) -> Path:
    """Return a file below the cache root that holds `content`, named by the hash of `identity`; written once."""
    target = cache_root() / folder / (hashlib.sha256(identity).hexdigest()[:32] + extension)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(content)
        os.replace(partial, target)  # whole or not there, also when the run is killed
    return target
