"""Students and validated chunks to the Hub: checks before any work, and the files of a push."""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from k2d_hf.errors import K2DError
from k2d_hf.models.adapters import read_adapter
from k2d_hf.models.checkpoint import is_adapter
from k2d_hf.models.exporting import export_formats
from k2d_hf.models.hub import HUB_NOT_REACHABLE, HUB_REACHABLE, ensure_hub_state
from k2d_hf.models.sources import merged_checkpoint
from k2d_hf.publishing.adapter_files import adapter_card, adapter_files, merged_card
from k2d_hf.publishing.card_use import Place, is_ours, turned_to
from k2d_hf.publishing.commits import Destination, PushResult, check_for_token, push_files, will_hold
from k2d_hf.publishing.retry import hub_requests, status_of, with_retries
from k2d_hf.publishing.student_files import CARD, CTRANSLATE2, GGML, completed, is_stale, student_files
from k2d_hf.version import __version__

logger = logging.getLogger(__name__)

_REPO_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*", re.ASCII)
_NO_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{")
_WRITERS = ("write", "contributor", "admin")  # roles in an organisation that may push


def push_student(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    ctranslate2: bool = False,
    ggml: bool = False,
    merge: bool = False,
    message: str | None = None,
    token: str | None = None,
) -> PushResult:
    """Publish a student on the Hub: its weights, settings, processor and card, and nothing else of its folder.

    Where the Hub has it all already there is no commit. Files of an earlier student that this one does not have are
    deleted from the repository; files that are not a student's are left alone. The card goes up with the repository's
    name in its code, and with the use of another engine where its folder is there; the one in `folder` stays as it is.

    Args:
        folder: a complete checkpoint, as `k2d distil` and `k2d run` write it, or an adapter with its `base.json`, as
            `k2d_hf.models.adapters.save_adapter` writes it, which goes up as it is, with a card that says how to load
            it.
        repo_id: `user/name`; the repository is made where there is none.
        private: whether only its owner may see it. A repository that is public already is then refused; one that is
            private becomes public where this is False, once the student is there.
        revision: the branch, made where there is none; None is the main one.
        ctranslate2: whether a folder `ctranslate2` with the same student for faster-whisper goes with it.
        ggml: likewise a folder `ggml` for whisper.cpp, in f16.
        merge: whether an adapter is merged with its base, so that the repository holds a complete checkpoint.
        message: first line of the commit.
        token: an access token; that of `hf auth login` or `HF_TOKEN` if None.

    Raises:
        K2DError: before any work, if the folder is not a complete student, or holds an adapter whose base the Hub does
            not have (unless it is merged), or the token may not write; later, if the Hub does not answer in several
            tries or somebody else changes the same files at the same time.
    """
    folder, adapter = Path(folder), None
    if is_adapter(folder):
        if not merge:
            of_whole = [name for name, wanted in (("ctranslate2", ctranslate2), ("ggml", ggml)) if wanted]
            return _push_adapter(folder, of_whole, repo_id, private, revision, message, token)
        read_adapter(folder)
        adapter = folder
    files = {} if adapter is not None else student_files(folder)
    formats = export_formats()
    exports = {name: formats[name] for name, wanted in (("ctranslate2", ctranslate2), ("ggml", ggml)) if wanted}
    for one in exports.values():
        one.check_installed()
    destination = open_destination(repo_id, kind="model", private=private, revision=revision, token=token)
    if adapter is not None:
        folder = merged_checkpoint(adapter)
        files = student_files(folder)
    if CARD not in files and adapter is None:
        logger.warning("%s has no %s, so the repository gets no card; k2d run writes one", folder, CARD)
    message = message or f"Student, by k2d_hf {__version__}"
    with tempfile.TemporaryDirectory(prefix="k2d-push-") as temporary:
        if adapter is not None:
            files |= _card_of_merged(destination, files, adapter, Path(temporary))
        files = completed(folder, files, Path(temporary))
        for name, one in exports.items():
            exported = one.export(folder, Path(temporary) / name)
            files |= {f"{name}/{file.name}": file for file in sorted(exported.iterdir())}
        files |= _card(destination, files, Path(temporary))
        return push_files(destination, files, message=message, stale=is_stale)


def _push_adapter(
    folder: Path,
    exports: Sequence[str],
    repo_id: str,
    private: bool,
    revision: str | None,
    message: str | None,
    token: str | None,
) -> PushResult:
    """Publish an adapter as it is; arguments are those of `push_student`."""
    if exports:
        raise K2DError(
            f"push: {exports[0]} is of whole weights, and {folder} holds an adapter; add --merge (hub.merge)"
        )
    files = adapter_files(folder)
    destination = open_destination(repo_id, kind="model", private=private, revision=revision, token=token)
    with tempfile.TemporaryDirectory(prefix="k2d-push-") as temporary:
        card = adapter_card(_text_of_card(files, destination), Place(repo_id, revision), folder)
        files |= _written(card, Path(temporary))
        message = message or f"Adapter, by k2d_hf {__version__}"
        return push_files(destination, files, message=message, stale=is_stale)


def _card_of_merged(
    destination: Destination, files: Mapping[str, Path], adapter: Path, scratch: Path
) -> dict[str, Path]:
    """The card of a whole model that was made of an adapter's folder, written to `scratch`."""
    config = json.loads(files["generation_config.json"].read_text(encoding="utf-8"))
    place = Place(destination.repo_id, destination.revision)
    (scratch / "merged").mkdir()
    return _written(merged_card(_text_of_card(files, destination), place, config, adapter), scratch / "merged")


def _text_of_card(files: Mapping[str, Path], destination: Destination) -> str:
    """The card among some files, which must not hold the token; empty where there is none."""
    if CARD not in files:
        return ""
    check_for_token({CARD: files[CARD]}, destination.token)
    return files[CARD].read_text(encoding="utf-8")


def _written(card: str, scratch: Path) -> dict[str, Path]:
    (scratch / CARD).write_text(card, encoding="utf-8")
    return {CARD: scratch / CARD}


def _card(destination: Destination, files: Mapping[str, Path], scratch: Path) -> dict[str, Path]:
    """The card with code that loads the student from that repository, written to `scratch`."""
    text = _text_of_card(files, destination)
    if not is_ours(text):
        return {}
    config = json.loads(files["generation_config.json"].read_text(encoding="utf-8"))
    held = {name: will_hold(destination, files, name, stale=is_stale) for name in (CTRANSLATE2, GGML)}
    place = Place(destination.repo_id, destination.revision, held[CTRANSLATE2], held[GGML])
    return _written(turned_to(text, place, config), scratch)


def push_data(
    chunks_dir: str | Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    kept_only: bool = True,
    facts: Mapping[str, str] | None = None,
    message: str | None = None,
    token: str | None = None,
    on_start: Callable[[int], Any] | None = None,
    on_progress: Callable[[int], Any] | None = None,
) -> PushResult:
    """Publish validated chunks as a data set of its own: audio inside, with a card, and no path of this machine.

    The data set is written to a temporary folder first (below `TMPDIR`), 60 to 85 MB for an hour of speech.

    Args:
        chunks_dir: what `k2d validate` wrote.
        repo_id: `user/name`; a name of its own among data sets.
        private: as in `push_student`.
        revision: likewise.
        kept_only: whether chunks that validation dropped stay out.
        facts: more lines for the card's table, such as the names of teacher and auxiliary.
        message: first line of the commit.
        token: as in `push_student`.
        on_start: called with the number of chunks to write.
        on_progress: called with the number of chunks written since.

    Raises:
        K2DError: as `push_student`, or if there are no chunks to push, or no room for them.
    """
    from k2d_hf.publishing.data_set import is_stale_data, open_chunks, write_data_set

    chunks = open_chunks(chunks_dir, kept_only=kept_only)
    destination = open_destination(repo_id, kind="dataset", private=private, revision=revision, token=token)
    if on_start is not None:
        on_start(chunks.count)
    with tempfile.TemporaryDirectory(prefix="k2d-push-") as temporary:
        files = write_data_set(
            chunks, Path(temporary), repo_id=repo_id, revision=revision, facts=facts or {}, on_progress=on_progress
        )
        message = message or f"Validated chunks, by k2d_hf {__version__}"
        return push_files(destination, files, message=message, stale=is_stale_data)


def open_destination(
    repo_id: str, *, kind: str = "model", private: bool = True, revision: str | None = None, token: str | None = None
) -> Destination:
    """Check, before any work, whether the token may write to a repository; nothing is made yet.

    `kind` is `model` or `dataset`, the other arguments are those of `push_student`.

    Raises:
        K2DError: for what is no `user/name`, offline mode, a missing, unknown or read-only token, a user or
            organisation that the token does not write for, or a public repository with `private`.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    check_repo_id(repo_id)
    state = ensure_hub_state()
    if state != HUB_REACHABLE:
        fix = "try again when it is" if state == HUB_NOT_REACHABLE else "unset it"
        raise K2DError(f"push to {repo_id}: {state}; {fix}")
    token = token or get_token()
    if not token:
        raise K2DError(f"push to {repo_id}: no token; run `hf auth login`, or set HF_TOKEN to one that may write")
    new = Destination(repo_id, kind, private, exists=False, revision=revision, token=token)
    with hub_requests(f"push to {repo_id}", token):
        try:
            login = with_retries(new.api.whoami, token)
        except Exception as error:
            if status_of(error) == 401:
                raise K2DError(
                    f"push to {repo_id}: the Hub does not know the token; get one that may write from "
                    "huggingface.co/settings/tokens, then `hf auth login`, or set HF_TOKEN"
                ) from None
            raise
        _check_rights(login, repo_id)
        try:
            info = with_retries(new.info, token)
        except RepositoryNotFoundError:
            return new
    if private and not info.private:
        raise K2DError(
            f"push to {repo_id}: it is public already, and private was asked for; give --public (private=False) to "
            "push there all the same, or choose another name"
        )
    return replace(new, exists=True, opens=bool(info.private) and not private)


def check_repo_id(repo_id: str, *, where: str = "push") -> None:
    """Raise K2DError for what is not of the form `user/name`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        if not _REPO_ID.fullmatch(repo_id):
            raise HFValidationError
    except HFValidationError:
        raise K2DError(
            f"{where}: {repo_id!r} is no name of a repository; write USER/NAME, of letters, digits, single dashes, "
            "dots and underscores"
        ) from None


def check_revision(revision: str | None, *, where: str = "push") -> None:
    """Raise K2DError for an invalid name of a branch (`git check-ref-format`)."""
    if revision is None:
        return
    parts = revision.split("/")
    wrong = _NO_BRANCH.search(revision) or any(p.startswith(".") or p.endswith((".", ".lock")) or not p for p in parts)
    if wrong or revision in ("@", "HEAD") or revision.startswith("-"):
        raise K2DError(f"{where}: {revision!r} is no name of a branch; write letters, digits, dots and single slashes")


def _check_rights(login: Mapping[str, Any], repo_id: str) -> None:
    """Whether the token may write there, as far as the Hub's answer has it."""
    access = login.get("auth", {}).get("accessToken", {})
    owner, user = repo_id.split("/")[0], login["name"]
    granted = [name for scope in access.get("fineGrained", {}).get("scoped", []) for name in scope["permissions"]]
    if access.get("role") == "read" or (access.get("role") == "fineGrained" and "repo.write" not in granted):
        raise K2DError(
            f"push to {repo_id}: the token of {user} may only read; make one that may write at "
            "huggingface.co/settings/tokens, then `hf auth login`, or set HF_TOKEN"
        )
    roles = {org["name"].lower(): org.get("roleInOrg", "write") for org in login.get("orgs", [])}
    if owner.lower() != user.lower() and roles.get(owner.lower()) not in _WRITERS:
        writes = [user, *(name for name, role in roles.items() if role in _WRITERS)]
        raise K2DError(f"push to {repo_id}: the token does not write for {owner}, but for {', '.join(writes)}")
