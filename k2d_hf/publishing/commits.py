"""Files into a repository of the Hub in one commit: only what differs, and tried again where that can help.

Before each try the repository is looked at anew and the commit names the one it was seen at, so that an answer that got
lost on the way never becomes a second commit, and a commit of somebody else's in between is never undone unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.fingerprints import file_sha256
from k2d_hf.publishing import retry as patience
from k2d_hf.publishing.retry import limited_waiting, patiently, told
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TEXT = (".json", ".md", ".txt")


@dataclass(frozen=True)
class Destination:
    """A repository that may be written to.

    Attributes:
        repo_id: `user/name`.
        kind: `model` or `dataset`.
        private: whether only its owner may see it.
        exists: whether it is there already.
        revision: the branch; None is the main one.
        token: what lets us in.
        opens: whether it is there, and private, and the push is to make it public.
    """

    repo_id: str
    kind: str
    private: bool
    exists: bool
    revision: str | None
    token: str = field(repr=False)
    opens: bool = False

    @property
    def api(self) -> HfApi:
        """The client of the Hub."""
        from huggingface_hub import HfApi

        return HfApi(token=self.token, library_name="k2d_hf", library_version=__version__)

    @property
    def url(self) -> str:
        """Its page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{self.repo_id}{f' (branch {self.revision})' if self.revision else ''}"


@dataclass(frozen=True)
class PushResult:
    """What a push did.

    Attributes:
        repo_id: `user/name`.
        kind: `model` or `dataset`.
        url: the repository's page.
        private: whether only its owner may see it.
        commit: hash of the commit that holds what was pushed.
        uploaded: files that were new or had changed; empty where there was nothing to do and no commit was made.
        deleted: files of an earlier push that took their leave.
        unchanged: how many files were there already.
        opened: whether it was private before, and the push made it public.
    """

    repo_id: str
    kind: str
    url: str
    private: bool
    commit: str
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: int
    opened: bool = False

    def __str__(self) -> str:
        seen = "private" if self.private else f"public{', which it was not before' if self.opened else ''}"
        if not self.uploaded and not self.deleted:
            return f"{self.url} ({seen}) is up to date"
        gone = f", {len(self.deleted)} taken away" if self.deleted else ""
        total = len(self.uploaded) + self.unchanged
        return f"{len(self.uploaded)} of {total} files to {self.url} ({seen}{gone}, commit {self.commit[:7]})"


def push_files(
    destination: Destination,
    files: Mapping[str, Path],
    *,
    message: str,
    stale: Callable[[str, Iterable[str]], bool],
) -> PushResult:
    """Bring `files` to a repository, which is made where there is none, in one commit or in none.

    Where somebody else commits at the same time, ours goes on top of theirs if they left our files alone.

    Args:
        destination: where to.
        files: local files by their path in the repository.
        message: first line of the commit.
        stale: whether a file of the repository that is not among `files` has to go, given its path and those of the
            files that have changed.

    Raises:
        K2DError: if the Hub refuses, does not answer after several tries, or somebody else changed one of the files.
    """
    check_for_token(files, destination.token)
    with told(f"push to {destination.name}", destination.token), limited_waiting():
        _make(destination)
        result = _Push(destination, files, message, stale).go()
        if destination.opens:  # last, so that nobody sees what is there before
            patiently(
                lambda: destination.api.update_repo_settings(
                    destination.repo_id, private=False, repo_type=destination.kind
                ),
                destination.token,
            )
        return result


def will_hold(
    destination: Destination, files: Mapping[str, Path], folder: str, *, stale: Callable[[str, Iterable[str]], bool]
) -> bool:
    """Whether a push of `files` leaves files in a folder of the repository: of these, or of an earlier push.

    Args:
        destination: where to.
        files: as for `push_files`.
        folder: path in the repository, with a slash at its end.
        stale: as for `push_files`.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    if any(path.startswith(folder) for path in files):
        return True
    if not destination.exists:
        return False
    push = _Push(destination, files, "", stale)
    with told(f"push to {destination.name}", destination.token), limited_waiting():
        try:
            _, seen = patiently(push.look, destination.token)
        except RevisionNotFoundError:
            return False
    _, gone = push.differences(seen)
    return any(path.startswith(folder) and path not in gone for path in seen)


class _Push:
    """One push: what the repository looked like at first, and what it is to hold."""

    def __init__(
        self, destination: Destination, files: Mapping[str, Path], message: str, stale: Callable[..., bool]
    ) -> None:
        self.destination = destination
        self.files = files
        self.message = message
        self.stale = stale
        self.hashes: dict[tuple[str, bool], str] = {}

    def go(self) -> PushResult:
        token = self.destination.token
        head, seen = patiently(self.look, token)
        uploaded, deleted = self.differences(seen)
        first = {path: seen.get(path) for path in (*self.files, *deleted)}

        def attempt() -> str:
            head, seen = self.look()
            changed, gone = self.differences(seen)
            for path in (*changed, *gone):
                if seen.get(path) != first.get(path):
                    raise K2DError(
                        f"{self.destination.name}: somebody else has changed {path} in the meantime; look at its "
                        "history, then push again if yours is to replace it"
                    )
            return self._commit(changed, gone, head) if changed or gone else head

        if uploaded or deleted:
            head = patiently(attempt, token)
            self._check_arrived(head)
        where = self.destination
        return PushResult(
            repo_id=where.repo_id,
            kind=where.kind,
            url=where.url,
            private=where.private,
            commit=head,
            uploaded=tuple(uploaded),
            deleted=tuple(deleted),
            unchanged=len(self.files) - len(uploaded),
            opened=where.opens,
        )

    def look(self, revision: str | None = None) -> tuple[str, dict[str, tuple[str, bool]]]:
        """Commit, and each file's hash in it with whether that is a SHA-256 (of a large file) or git's own."""
        from huggingface_hub.hf_api import RepoFile

        where, api = self.destination, self.destination.api
        if revision is None:
            info = api.repo_info(
                where.repo_id, repo_type=where.kind, revision=where.revision, timeout=patience.REQUEST_SECONDS
            )
            revision = str(info.sha)
        tree = api.list_repo_tree(where.repo_id, repo_type=where.kind, revision=revision, recursive=True)
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        return revision, {e.path: (e.lfs.sha256, True) if e.lfs else (e.blob_id, False) for e in entries}

    def differences(self, seen: Mapping[str, tuple[str, bool]]) -> tuple[list[str], list[str]]:
        """Files to upload and files to delete."""
        changed = [path for path in self.files if path not in seen or not self._is(path, *seen[path])]
        gone = [path for path in seen if path not in self.files and self.stale(path, changed)]
        return sorted(changed), sorted(gone)

    def _is(self, path: str, remote: str, large: bool) -> bool:
        if (path, large) not in self.hashes:
            file = self.files[path]
            self.hashes[path, large] = file_sha256(file) if large else _git_hash(file)
        return self.hashes[path, large] == remote

    def _commit(self, changed: list[str], gone: list[str], head: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        add = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(self.files[path])) for path in changed]
        delete = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in gone]
        done = self.destination.api.create_commit(
            self.destination.repo_id,
            [*add, *delete],
            commit_message=self.message,
            repo_type=self.destination.kind,
            revision=self.destination.revision,
            parent_commit=head,
        )
        return done.oid

    def _check_arrived(self, commit: str) -> None:
        """The Hub leaves out, without a word, what a `.gitignore` in the repository names."""
        _, seen = patiently(lambda: self.look(commit), self.destination.token)
        if missing := [path for path in self.files if path not in seen]:
            raise K2DError(
                f"{self.destination.name}: the Hub did not take {', '.join(missing)}; is there a .gitignore in the "
                "repository? Remove it, then push again"
            )


def _make(destination: Destination) -> None:
    """Make repository and branch where they are not there; both may be asked for twice."""
    from huggingface_hub.errors import RevisionNotFoundError

    where, api, token = destination, destination.api, destination.token
    repository: dict[str, Any] = {"repo_id": where.repo_id, "repo_type": where.kind}
    if not where.exists:
        patiently(lambda: api.create_repo(**repository, private=where.private, exist_ok=True), token)
    if where.revision is None:
        return
    branch, limit = where.revision, patience.REQUEST_SECONDS
    try:
        patiently(lambda: api.repo_info(**repository, revision=branch, timeout=limit), token)
    except RevisionNotFoundError:
        patiently(lambda: api.create_branch(**repository, branch=branch, exist_ok=True), token)


def check_for_token(files: Mapping[str, Path], token: str) -> None:
    """Raise K2DError for a text file that holds the token."""
    for path, file in files.items():
        if path.endswith(_TEXT) and token.encode() in file.read_bytes():
            raise K2DError(f"{file}: holds your access token; take it out, and get a new one if others have seen it")


def _git_hash(file: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
