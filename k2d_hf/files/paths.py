"""Paths and addresses: joined and split, and the files below a folder, local or remote."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

from k2d_hf.files.storage import as_os_errors, filesystem, is_address

logger = logging.getLogger(__name__)


def walk_files(
    folder: str | os.PathLike[str], *, hidden: list[str] | None = None, unlisted: list[str] | None = None
) -> Iterator[str]:
    """Files below a folder, one after the other, in the order of the parts of their paths; no more is held than a list
    of each folder on the way. Hidden files and folders are left out, and added to `hidden`, these with a slash at their
    end. A folder that several links lead to is entered once; one that cannot be listed is left out with a warning, and
    added to `unlisted`. Raises OSError if not even `folder` can be listed.
    """
    if is_address(folder):
        filesystem(folder)[0].invalidate_cache()  # of listings that may be out of date
    visited: set[str] = set()
    stack = [iter(_entries(os.fspath(folder), visited, hidden))]
    while stack:
        path, is_a_folder = next(stack[-1], ("", False))
        if not path:
            stack.pop()
        elif not is_a_folder:
            yield path
        else:
            try:
                stack.append(iter(_entries(path, visited, hidden)))
            except OSError as error:
                if unlisted is not None:
                    unlisted.append(path)
                logger.warning("%s: left out, it cannot be listed (%s)", path, error.strerror or error)


def _entries(folder: str, visited: set[str], hidden: list[str] | None) -> list[tuple[str, bool]]:
    """Path, and whether it is a folder, of what is in a folder, sorted; nothing of one that was visited."""
    if is_address(folder):
        system, inside = filesystem(folder)
        with as_os_errors(folder):
            listed = system.ls(inside, detail=True)
        # a folder of an object store can hold a file of its own name, which is empty
        found = {os.path.basename(about["name"].rstrip("/")): about for about in listed if about["name"] != inside}
        names = {name: about["type"] == "directory" for name, about in found.items()}
    else:
        real = os.path.realpath(folder)
        if real in visited:
            return []
        visited.add(real)
        with os.scandir(folder) as entries:
            names = {entry.name: _leads_to_folder(entry) for entry in entries}
    if hidden is not None:
        hidden += [joined(folder, name) + "/" * names[name] for name in sorted(names) if name.startswith(".")]
    return [(joined(folder, name), names[name]) for name in sorted(names) if name and not name.startswith(".")]


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def joined(folder: str, path: str) -> str:
    """A path as seen from a folder, either of which may be an address; what is absolute stays."""
    if is_address(path) or not is_address(folder):
        return path if is_address(path) else os.path.join(folder, path)
    if os.path.isabs(path):
        return path
    kind, inside, archives = _parts(folder)
    return f"{kind}://{posixpath.normpath(posixpath.join(inside, path))}{archives}"


def folder_of(path: str) -> str:
    """The folder that a file is in."""
    if not is_address(path):
        return os.path.dirname(path)
    kind, inside, archives = _parts(path)
    return f"{kind}://{posixpath.dirname(inside)}{archives}"


def name_of(path: str) -> str:
    """The name of a file, whichever slash is before it; of one in an archive, its own; of one on the web, decoded.

    So a recording has the same name wherever it is kept. The query of an address, which may hold a key, is not in it.
    """
    link = path.partition("::")[0] if is_address(path) else path
    if link.startswith(("http://", "https://")):
        link = unquote(link.partition("?")[0].partition("#")[0])
    return link.replace("\\", "/").rpartition("/")[2]


def _parts(address: str) -> tuple[str, str, str]:
    """Kind and path of an address, and what it is in, as in `zip://a.wav::s3://bucket/a.zip`."""
    link, chained, archives = address.partition("::")
    kind, _, inside = link.partition("://")
    return kind, inside, chained + archives
