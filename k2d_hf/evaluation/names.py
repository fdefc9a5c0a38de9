"""What recordings are called in transcripts: as data set, session or path has it, never by a hash of the cache."""

from __future__ import annotations

from collections.abc import Sequence

from k2d_hf.files.cache import name_of_kept


def recording_names(paths: Sequence[str]) -> list[str]:
    """A name for each row.

    A file of one's own is called by its path. Audio out of a data set is called by the file name that this has for it,
    else by its row, such as `row 3`, counted from 0; a joined recording by what its utterances have in common. Where
    different sounds share a name, the row is added.
    """
    names = [_name(path, row) for row, path in enumerate(paths)]
    sounds: dict[str, set[str]] = {}
    for name, path in zip(names, paths, strict=True):
        sounds.setdefault(name, set()).add(path)
    return [name if len(sounds[name]) == 1 else f"{name} (row {row})" for row, name in enumerate(names)]


def _name(path: str, row: int) -> str:
    kept = name_of_kept(path)
    return path if kept is None else kept or f"row {row}"
