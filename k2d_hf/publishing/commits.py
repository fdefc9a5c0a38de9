"""Files into a repository of the Hub in one commit: only those that differ, with retries.

Before each try the repository is listed anew and the commit names its parent, so that a lost answer never becomes a
second commit, and a commit of somebody else's in between is never undone silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.fingerprints import file_sha256
from k2d_hf.publishing import retry
from k2d_hf.publishing.retry import readable_errors, request_timeout, with_retries
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
        exists: whether it exists already.
        revision: the branch; None is the main one.
        token: an access token.
        opens: whether it exists, is private, and becomes public with the push.
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
        """Its name in errors."""
        return f"{self.repo_id}{f' (branch {self.revision})' if self.revision else ''}"


@dataclass(frozen=True)
class PushResult:
    """The result of a push.

    Attributes:
        repo_id: `user/name`.
        kind: `model` or `dataset`.
        url: the repository's page.
        private: whether only its owner may see it.
        commit: hash of the commit that holds what was pushed.
        uploaded: files that were new or had changed; empty where there was nothing to do and no commit was made.
        deleted: files of an earlier push that were removed.
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
        access = "private" if self.private else f"public{', which it was not before' if self.opened else ''}"
        if not self.uploaded and not self.deleted:
            return f"{self.url} ({access}) is up to date"
        gone = f", {len(self.deleted)} deleted" if self.deleted else ""
        total = len(self.uploaded) + self.unchanged
        return f"{len(self.uploaded)} of {total} files to {self.url} ({access}{gone}, commit {self.commit[:7]})"


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
    with readable_errors(f"push to {destination.name}", destination.token), request_timeout():
        _make(destination)
        result = _Push(destination, files, message, stale).run()
        if destination.opens:  # last, so that the old files never become public
            with_retries(
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
    with readable_errors(f"push to {destination.name}", destination.token), request_timeout():
        try:
            _, remote = with_retries(push.list_files, destination.token)
        except RevisionNotFoundError:
            return False
    _, gone = push.differences(remote)
    return any(path.startswith(folder) and path not in gone for path in remote)


class _Push:
    """One push of `files` to a repository."""

    def __init__(
        self, destination: Destination, files: Mapping[str, Path], message: str, stale: Callable[..., bool]
    ) -> None:
        self.destination = destination
        self.files = files
        self.message = message
        self.stale = stale
        self.hashes: dict[tuple[str, bool], str] = {}

    def run(self) -> PushResult:
        token = self.destination.token
        head, remote = with_retries(self.list_files, token)
        uploaded, deleted = self.differences(remote)
        first = {path: remote.get(path) for path in (*self.files, *deleted)}

        def attempt() -> str:
            head, remote = self.list_files()
            changed, gone = self.differences(remote)
            for path in (*changed, *gone):
                if remote.get(path) != first.get(path):
                    raise K2DError(
                        f"{self.destination.name}: somebody else has changed {path} in the meantime; see its "
                        "history, then push again if yours is to replace it"
                    )
            return self._commit(changed, gone, head) if changed or gone else head

        if uploaded or deleted:
            head = with_retries(attempt, token)
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

    def list_files(self, revision: str | None = None) -> tuple[str, dict[str, tuple[str, bool]]]:
        """Commit, and each file's hash in it with whether that is a SHA-256 (of a large file) or git's own."""
        from huggingface_hub.hf_api import RepoFile

        where, api = self.destination, self.destination.api
        if revision is None:
            info = api.repo_info(
                where.repo_id, repo_type=where.kind, revision=where.revision, timeout=retry.REQUEST_SECONDS
            )
            revision = str(info.sha)
        tree = api.list_repo_tree(where.repo_id, repo_type=where.kind, revision=revision, recursive=True)
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        return revision, {e.path: (e.lfs.sha256, True) if e.lfs else (e.blob_id, False) for e in entries}

    def differences(self, remote: Mapping[str, tuple[str, bool]]) -> tuple[list[str], list[str]]:
        """Files to upload and files to delete."""
        changed = [path for path in self.files if path not in remote or not self._is(path, *remote[path])]
        gone = [path for path in remote if path not in self.files and self.stale(path, changed)]
        return sorted(changed), sorted(gone)

    def _is(self, path: str, digest: str, large: bool) -> bool:
        if (path, large) not in self.hashes:
            from huggingface_hub.utils.sha import git_hash

            file = self.files[path]
            self.hashes[path, large] = file_sha256(file) if large else git_hash(file.read_bytes())
        return self.hashes[path, large] == digest

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
        """The Hub silently ignores the files in a `.gitignore` of the repository."""
        _, remote = with_retries(lambda: self.list_files(commit), self.destination.token)
        if missing := [path for path in self.files if path not in remote]:
            raise K2DError(
                f"{self.destination.name}: the Hub did not take {', '.join(missing)}; is there a .gitignore in the "
                "repository? Remove it, then push again"
            )


def _make(destination: Destination) -> None:
    """Make repository and branch where they do not exist."""
    from huggingface_hub.errors import RevisionNotFoundError

    where, api, token = destination, destination.api, destination.token
    repository: dict[str, Any] = {"repo_id": where.repo_id, "repo_type": where.kind}
    if not where.exists:
        with_retries(lambda: api.create_repo(**repository, private=where.private, exist_ok=True), token)
    if where.revision is None:
        return
    branch, limit = where.revision, retry.REQUEST_SECONDS
    try:
        with_retries(lambda: api.repo_info(**repository, revision=branch, timeout=limit), token)
    except RevisionNotFoundError:
        with_retries(lambda: api.create_branch(**repository, branch=branch, exist_ok=True), token)


def check_for_token(files: Mapping[str, Path], token: str) -> None:
    """Raise K2DError for a text file that holds the token."""
    for path, file in files.items():
        if path.endswith(_TEXT) and token.encode() in file.read_bytes():
            raise K2DError(f"{file}: holds your access token; take it out, and get a new one if others have seen it")
