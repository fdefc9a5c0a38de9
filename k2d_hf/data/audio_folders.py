"""Recordings in folders: the audio files below one, and by name or count whatever else may hold audio.

Read by `recordings.py` (K2D, before stage 1).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress

from k2d_hf.audio.media import AUDIO_EXTENSIONS, DECODED_BY_PYAV, is_silent, may_hold_sound
from k2d_hf.data.recording_rows import Row, file_row
from k2d_hf.files.extras import missing
from k2d_hf.files.paths import folder_of, joined, walk_files
from k2d_hf.files.shards import RECORD
from k2d_hf.files.storage import exists
from k2d_hf.formatting import counted, first_of

logger = logging.getLogger(__name__)

_LISTED = 3  # kinds and names that a warning lists


def has_audio(folder: str) -> bool:
    """Whether there is an audio file below a folder, known by its extension; hidden ones do not count."""
    return any(path.lower().endswith(AUDIO_EXTENSIONS) for path in walk_files(folder))


def audio_rows(folder: str, group_by: str | None = None) -> Iterator[Row]:
    """The recordings below a folder, sorted by path, known by their extensions.

    Audio and video of other kinds, archives and tables are among them, and after them folders that cannot be listed:
    labelling tries each, and skips it by name. Text, pictures, programs and finished shards are left out; hidden files,
    and those of unknown kinds, are counted in a warning.
    """
    hidden: list[str] = []
    unlisted: list[str] = []
    others: list[str] = []
    undecodable = 0
    install = missing("av")
    for path in walk_files(folder, hidden=hidden, unlisted=unlisted):
        if path.endswith(".parquet") and exists(joined(folder_of(path), RECORD)):
            continue
        if _may_be_recording(path):
            undecodable += install is not None and path.lower().endswith(DECODED_BY_PYAV)
            yield file_row(path, path, group_by)
        elif not is_silent(path):
            others.append(path)
    for path in unlisted:
        yield file_row(path, path, group_by)
    if undecodable:
        logger.warning("%s: %s will be skipped, as PyAV is missing: %s", folder, counted(undecodable, "file"), install)
    if others:
        logger.warning("%s: left out what is no audio by its name: %s", folder, extension_counts(others))
    _warn_of_hidden(folder, hidden)


def extension_counts(paths: Iterable[str]) -> str:
    """How many there are of each kind, the most frequent ones: `2 .m4a, 1 .txt`."""
    counts = Counter(os.path.splitext(path)[1].lower() or os.path.basename(path) for path in paths)
    more = f" and {len(counts) - _LISTED} other kinds" if len(counts) > _LISTED else ""
    return ", ".join(f"{count} {extension}" for extension, count in counts.most_common(_LISTED)) + more


def warn_of_others(folder: str) -> None:
    """Warn of files that may hold audio below a folder whose Parquet files are read."""
    others = [path for path in walk_files(folder) if not path.endswith(".parquet") and may_hold_sound(path)]
    if others:
        logger.warning("%s: its Parquet files are read, and not %s beside them", folder, extension_counts(others))


def _may_be_recording(path: str) -> bool:
    return path.lower().endswith(AUDIO_EXTENSIONS) or may_hold_sound(path)


def _warn_of_hidden(folder: str, hidden: list[str]) -> None:
    found: list[str] = []
    for path in hidden:
        with suppress(OSError):  # of a folder that cannot be listed
            found += filter(_may_be_recording, walk_files(path) if path.endswith("/") else [path])
    if found:
        names = [os.path.relpath(path, folder) if "://" not in path else path for path in found]
        logger.warning("%s: left out %d hidden recordings: %s", folder, len(found), first_of(names, _LISTED))
