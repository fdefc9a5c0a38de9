"""What the Hub of the tests holds: repositories of models and data sets, with branches, commits and large files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import yaml

LARGE = (".safetensors", ".bin", ".parquet", ".arrow", ".flac", ".wav")  # by .gitattributes, whatever their size
LARGE_BYTES = 10_000_000
PLURAL = {"model": "models", "dataset": "datasets"}


def git_oid(content):
    """The name of a file in git: SHA-1 of a header and the content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class File:
    """A file of a commit; a large one is a pointer in git, its content lies elsewhere."""

    content: bytes
    large: bool

    @cached_property
    def sha256(self):
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self):
        head = "version https://git-lfs.github.com/spec/v1\n"
        return f"{head}oid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @cached_property
    def oid(self):
        return git_oid(self.pointer if self.large else self.content)

    @property
    def known_by(self):
        """What a client compares before it uploads."""
        return self.sha256 if self.large else self.oid

    def entry(self, path):
        """The file as `tree` and `paths-info` list it."""
        entry = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid}
        if self.large:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        return entry


def is_large(path, size):
    return path.endswith(LARGE) or size >= LARGE_BYTES


@dataclass(frozen=True)
class Commit:
    """A commit with all files of the repository, by path."""

    parent: "Commit | None"
    title: str
    files: Mapping[str, File]

    @cached_property
    def sha(self):
        names = "".join(f"{path} {file.oid}\n" for path, file in sorted(self.files.items()))
        return hashlib.sha1(f"{self.parent.sha if self.parent else ''}\n{self.title}\n{names}".encode()).hexdigest()


@dataclass
class Repository:
    """A repository; `refusal` is the error code of one that nobody may read."""

    name: str
    kind: str = "model"
    private: bool = False
    refusal: str | None = None
    branches: dict[str, Commit] = field(default_factory=dict)

    def __post_init__(self):
        attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE)
        first = {".gitattributes": File(attributes.encode(), large=False)}
        self.branches.setdefault("main", Commit(None, "initial commit", first))

    def commit(self, title, changes, branch="main"):
        """Commit contents by path, None for a file that goes."""
        files = dict(self.branches[branch].files)
        for path, content in changes.items():
            files.pop(path, None)
            if content is not None:
                files[path] = File(content, is_large(path, len(content)))
        self.branches[branch] = Commit(self.branches[branch], title, files)
        return self.branches[branch]

    def log(self, branch="main"):
        """The commits of a branch, newest first."""
        commits, commit = [], self.branches[branch]
        while commit is not None:
            commits.append(commit)
            commit = commit.parent
        return commits

    def at(self, revision):
        """The commit that a branch or a hash names, None where there is none."""
        if revision in self.branches:
            return self.branches[revision]
        everything = [commit for branch in self.branches for commit in self.log(branch)]
        return next((commit for commit in everything if revision and commit.sha.startswith(revision)), None)

    def contents(self, branch="main"):
        """What a branch holds, by path, without what the Hub itself put there."""
        files = self.branches[branch].files
        return {path: file.content for path, file in sorted(files.items()) if path != ".gitattributes"}

    def titles(self, branch="main"):
        """What was committed, newest first, without the Hub's own first commit."""
        return [commit.title for commit in self.log(branch)][:-1]

    def info(self, commit):
        """The answer to model_info and dataset_info."""
        card = front_matter(commit.files["README.md"].content.decode()) if "README.md" in commit.files else {}
        info = {"_id": "0" * 24, "id": self.name, "sha": commit.sha, "private": self.private, "gated": False}
        info |= {"disabled": False, "author": self.name.split("/")[0], "downloads": 0, "likes": 0}
        info |= {"lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
        info |= {
            "cardData": card,
            "tags": card.get("tags", []),
            "siblings": [{"rfilename": path} for path in commit.files],
        }
        if self.kind == "model":
            info |= {"modelId": self.name}
            info |= {name: card[name] for name in ("pipeline_tag", "library_name") if name in card}
        return info


def front_matter(text):
    """The metadata of a card; ValueError where it is none."""
    if not text.startswith("---\n"):
        return {}
    try:
        metadata = yaml.safe_load(text.split("---\n", 2)[1])
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    if not isinstance(metadata, dict):
        raise ValueError("not a mapping")
    return metadata
