"""Files into a repository of the Hub in one commit: only those that differ, with retries.

Before each try the repository is listed anew and the commit names its parent, so that a lost answer never becomes a
second commit, and a commit of somebody else's in between is never undone silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.models.fingerprints import file_sha256
from k2d_hf.publishing import retry
from k2d_hf.publishing.retry import hub_requests, with_retries
from k2d_hf.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# Whether a file of the repository that is not pushed has to go, by its path and those of the files that have changed.
Stale = Callable[[str, Iterable[str]], bool]
_TEXT = (".json", ".md", ".txt")


@dataclass(frozen=True)
class Destination:
    """A repository that may be written to."""

    repo_id: str
    kind: str  # `model` or `dataset`
    private: bool
    exists: bool
    revision: str | None  # the branch; None is the main one
    token: str = field(repr=False)
    opens: bool = False  # whether it exists, is private, and becomes public with the push

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

    def info(self, revision: str | None = None) -> Any:
        """What the Hub has on it, or on one of its branches."""
        limit = retry.REQUEST_SECONDS
        return self.api.repo_info(self.repo_id, repo_type=self.kind, revision=revision, timeout=limit)


@dataclass(frozen=True)
class PushResult:
    """The result of a push."""

    repo_id: str
    kind: str  # `model` or `dataset`
    url: str  # the repository's page
    private: bool
    commit: str  # hash of the commit that holds what was pushed
    uploaded: tuple[str, ...]  # files that were new or had changed; without any there was no commit
    deleted: tuple[str, ...]  # files of an earlier push
    unchanged: int  # how many files were there already
    opened: bool = False  # whether it was private before, and the push made it public

    def __str__(self) -> str:
        access = "private" if self.private else f"public{', which it was not before' if self.opened else ''}"
        if not self.uploaded and not self.deleted:
            return f"{self.url} ({access}) is up to date"
        gone = f", {len(self.deleted)} deleted" if self.deleted else ""
        total = len(self.uploaded) + self.unchanged
        return f"{len(self.uploaded)} of {total} files to {self.url} ({access}{gone}, commit {self.commit[:7]})"


def push_files(destination: Destination, files: Mapping[str, Path], *, message: str, stale: Stale) -> PushResult:
    """Bring `files`, by path in the repository, to one that is made where there is none, in one commit or in none.

    Where somebody else commits at the same time, ours goes on top of theirs if they left our files alone.

    Raises:
        K2DError: if the Hub refuses, does not answer after several tries, or somebody else changed one of the files.
    """
    from huggingface_hub.errors import RevisionNotFoundError

    where, token = destination, destination.token
    repository: dict[str, Any] = {"repo_id": where.repo_id, "repo_type": where.kind}
    check_for_token(files, token)
    with hub_requests(f"push to {where.name}", token):
        if not where.exists:
            with_retries(partial(where.api.create_repo, **repository, private=where.private, exist_ok=True), token)
        if where.revision is not None:
            try:
                with_retries(partial(where.info, where.revision), token)
            except RevisionNotFoundError:
                make = partial(where.api.create_branch, **repository, branch=where.revision, exist_ok=True)
                with_retries(make, token)
        result = _Push(where, files, stale).run(message)
        if where.opens:  # last, so that the old files never become public
            with_retries(partial(where.api.update_repo_settings, **repository, private=False), token)
        return result


def will_hold(destination: Destination, files: Mapping[str, Path], folder: str, *, stale: Stale) -> bool:
    """Whether a push of `files`, as for `push_files`, leaves files in a folder of the repository (`name/`)."""
    from huggingface_hub.errors import RevisionNotFoundError

    if any(path.startswith(folder) for path in files):
        return True
    if not destination.exists:
        return False
    push = _Push(destination, files, stale)
    with hub_requests(f"push to {destination.name}", destination.token):
        try:
            _, remote = with_retries(push.list_files, destination.token)
        except RevisionNotFoundError:
            return False
    _, gone = push.differences(remote)
    return any(path.startswith(folder) and path not in gone for path in remote)


@dataclass
class _Push:
    """One push of `files` to a repository."""

    destination: Destination
    files: Mapping[str, Path]
    stale: Stale

    def run(self, message: str) -> PushResult:
        where = self.destination
        head, remote = with_retries(self.list_files, where.token)
        uploaded, deleted = self.differences(remote)
        first = {path: remote.get(path) for path in (*self.files, *deleted)}

        def attempt() -> str:
            head, remote = self.list_files()
            changed, gone = self.differences(remote)
            for path in (*changed, *gone):
                if remote.get(path) != first.get(path):
                    raise K2DError(
                        f"{where.name}: somebody else has changed {path} in the meantime; see its history, then push "
                        "again if yours is to replace it"
                    )
            return self._commit(changed, gone, head, message) if changed or gone else head

        if uploaded or deleted:
            head = with_retries(attempt, where.token)
            _, remote = with_retries(lambda: self.list_files(head), where.token)
            # the Hub silently ignores the files in a `.gitignore` of the repository
            if missing := [path for path in self.files if path not in remote]:
                raise K2DError(
                    f"{where.name}: the Hub did not take {', '.join(missing)}; is there a .gitignore in the "
                    "repository? Remove it, then push again"
                )
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

    def list_files(self, commit: str | None = None) -> tuple[str, dict[str, tuple[str, bool]]]:
        """Commit, and each file's hash in it with whether that is a SHA-256 (of a large file) or git's own."""
        from huggingface_hub.hf_api import RepoFile

        where = self.destination
        commit = commit or str(where.info(where.revision).sha)
        tree = where.api.list_repo_tree(where.repo_id, repo_type=where.kind, revision=commit, recursive=True)
        entries = [entry for entry in tree if isinstance(entry, RepoFile)]
        return commit, {e.path: (e.lfs.sha256, True) if e.lfs else (e.blob_id, False) for e in entries}

    def differences(self, remote: Mapping[str, tuple[str, bool]]) -> tuple[list[str], list[str]]:
        """Files to upload and files to delete."""
        from huggingface_hub.utils.sha import git_hash

        def differs(path: str, file: Path) -> bool:
            if path not in remote:
                return True
            digest, large = remote[path]
            return digest != (file_sha256(file) if large else git_hash(file.read_bytes()))

        changed = sorted(path for path, file in self.files.items() if differs(path, file))
        return changed, sorted(path for path in remote if path not in self.files and self.stale(path, changed))

    def _commit(self, changed: list[str], gone: list[str], head: str, message: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        add = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(self.files[path])) for path in changed]
        delete = [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in gone]
        done = self.destination.api.create_commit(
            self.destination.repo_id,
            [*add, *delete],
            commit_message=message,
            repo_type=self.destination.kind,
            revision=self.destination.revision,
            parent_commit=head,
        )
        return done.oid


def check_for_token(files: Mapping[str, Path], token: str) -> None:
    """Raise K2DError for a text file that holds the token."""
    for path, file in files.items():
        if path.endswith(_TEXT) and token.encode() in file.read_bytes():
            raise K2DError(f"{file}: holds your access token; take it out, and get a new one if others have seen it")
