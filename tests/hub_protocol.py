"""How the Hub of the tests answers: the real one's protocol, as huggingface_hub speaks it, and failures on demand."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass
from fnmatch import fnmatch
from urllib.parse import parse_qs

from hub_repositories import PLURAL, Repository, front_matter, is_large
from hub_requests import LOGINS, MEMBERS

SINGULAR = {plural: kind for kind, plural in PLURAL.items()}
WRITES = ("preupload", "commit", "branch", "settings", "lfs-batch", "lfs-verify")


class Refusal(Exception):
    """An answer that is an error: status, error code and message as the Hub words them."""


@dataclass
class Failure:
    """An order to fail: a status, `cut` in the middle of what is sent, `drop` after the work, or `hang` after it."""

    kind: str
    how: int | str
    times: int | None


class LocalHub:
    """What the server holds and what it was asked.

    Args:
        models: files by path, or a refusal such as `GatedRepo`, by repository.
        front_page: status of the front page, by which a client finds out whether the Hub answers.
    """

    def __init__(self, models=None, front_page=200):
        self.front_page = front_page
        self.repositories = {}
        self.objects = {}  # large files, by SHA-256
        self.requests = []  # "GET /api/...", in order, those to the storage left out
        self.asked = []  # all of them, as Request
        self.failures = []
        self.before = {}  # by kind: a function that is called once, when the next request of the kind has come
        self.released = threading.Event()
        self.lock = threading.RLock()
        self.address = self.storage = ""
        for name, files in (models or {}).items():
            repository = self.add(Repository(name, refusal=files if isinstance(files, str) else None))
            if not isinstance(files, str):
                repository.commit("files", files)

    def add(self, repository):
        self.repositories[repository.kind, repository.name] = repository
        return repository

    def repository(self, name, kind="model"):
        return self.repositories[kind, name]

    def fail(self, kind, how, times=1):
        """Fail the next requests of a kind, all of them if `times` is None."""
        self.failures.append(Failure(kind, how, times))

    def take_failure(self, kind):
        for failure in self.failures:
            if failure.kind == kind and failure.times != 0:
                failure.times = None if failure.times is None else failure.times - 1
                return failure.how
        return None

    def kinds(self):
        """The kinds of requests, in order, without those that the libraries make before they come to the matter."""
        return [request.kind for request in self.asked if request.kind not in ("front", None)]

    def forget(self):
        """Forget what was asked and what was to fail."""
        self.requests, self.asked, self.failures, self.before = [], [], [], {}

    def answer(self, request):
        """Status, headers and body."""
        try:
            with self.lock:
                answer = getattr(self, "_" + request.kind.replace("-", "_"))(request)
        except Refusal as refusal:
            status, code, message = refusal.args
            headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
            return status, headers, json.dumps({"error": message}).encode()
        if isinstance(answer, (dict, list)):
            return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
        return answer

    def _user(self, request):
        if request.token is None:
            return None, None
        if request.token not in LOGINS:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        return LOGINS[request.token]

    def _may_write(self, request, owner):
        user, role = self._user(request)
        if user is None:
            raise Refusal(401, None, "Invalid username or password.")
        if role not in ("write", "repo.write") or (owner != user and MEMBERS.get(user, {}).get(owner) != "write"):
            raise Refusal(403, None, f"You don't have the rights to write under the namespace {owner}")

    def _found(self, request):
        """The repository that a request names, where its sender may see it."""
        kind = SINGULAR[request.given["kind"] or "models"]
        found = self.repositories.get((kind, request.given["name"]))
        user, _ = self._user(request)
        owner = request.given["name"].split("/")[0]
        if found is None or (found.private and owner != user and owner not in MEMBERS.get(user, {})):
            raise Refusal(401 if user is None else 404, "RepoNotFound", "Repository not found")
        if found.refusal is not None:
            raise Refusal(403 if found.refusal == "GatedRepo" else 401, found.refusal, "Access is restricted")
        if request.kind in WRITES:
            self._may_write(request, owner)
        return found

    def _commit_of(self, request):
        found = self._found(request)
        commit = found.at(request.given["revision"] or "main")
        if commit is None:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {request.given['revision']}")
        return found, commit

    def _front(self, request):
        return self.front_page, {}, b""

    def _whoami(self, request):
        user, role = self._user(request)
        if user is None:
            raise Refusal(401, None, "Invalid username or password.")
        members = MEMBERS.get(user, {}).items()
        orgs = [{"type": "org", "name": name, "roleInOrg": part} for name, part in members]
        access = {"displayName": "a token", "role": "fineGrained" if "." in role else role}
        if "." in role:
            access["fineGrained"] = {"scoped": [{"entity": {"type": "user", "name": user}, "permissions": [role]}]}
        auth = {"type": "access_token", "accessToken": access}
        return {"type": "user", "id": "1" * 24, "name": user, "orgs": orgs, "auth": auth}

    def _create(self, request):
        asked = request.json
        owner = asked.get("organization") or self._user(request)[0]
        kind, name = asked.get("type", "model"), f"{owner}/{asked['name']}"
        self._may_write(request, owner)
        url = f"{self.address}/{'' if kind == 'model' else PLURAL[kind] + '/'}{name}"
        if (kind, name) in self.repositories:
            message = f"You already created this {kind} repo"
            return 409, {"X-Error-Message": message}, json.dumps({"error": message, "url": url}).encode()
        self.add(Repository(name, kind, private=asked.get("visibility") == "private" or asked.get("private") is True))
        return {"url": url, "name": name, "id": "2" * 24}

    def _delete(self, request):
        asked = request.json
        name = f"{asked['organization']}/{asked['name']}"
        self._may_write(request, asked["organization"])
        if self.repositories.pop((asked.get("type", "model"), name), None) is None:
            raise Refusal(404, "RepoNotFound", "Repository not found")
        return {}

    def _validate_yaml(self, request):
        try:
            front_matter(request.json["content"])
        except ValueError as error:
            return 400, {}, json.dumps({"errors": [{"message": str(error)}], "warnings": []}).encode()
        return {"errors": [], "warnings": []}

    def _info(self, request):
        found, commit = self._commit_of(request)
        return found.info(commit)

    def _tree(self, request):
        _, commit = self._commit_of(request)
        prefix = f"{request.given['path']}/" if request.given["path"] else ""
        below = {path: file for path, file in commit.files.items() if path.startswith(prefix)}
        if prefix and not below:
            raise Refusal(404, "EntryNotFound", f"{prefix} does not exist")
        recursive = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        shown = {path: file.entry(path) for path, file in below.items() if recursive or "/" not in path[len(prefix) :]}
        for path in below:
            for folder in _folders(path, len(prefix), recursive):
                shown[folder] = _folder_entry(folder)
        return [shown[path] for path in sorted(shown)]

    def _paths_info(self, request):
        _, commit = self._commit_of(request)
        form = parse_qs(request.body.decode())
        entries = [commit.files[path].entry(path) for path in form.get("paths", []) if path in commit.files]
        folders = {folder for path in commit.files for folder in _folders(path, 0, True)}
        return entries + [_folder_entry(path) for path in form.get("paths", []) if path in folders]

    def _preupload(self, request):
        _, commit = self._commit_of(request)
        ignored = commit.files[".gitignore"].content.decode().split() if ".gitignore" in commit.files else []
        answers = []
        for file in request.json["files"]:
            there = commit.files.get(file["path"])
            mode = "lfs" if is_large(file["path"], file["size"]) else "regular"
            skipped = any(fnmatch(file["path"], pattern) for pattern in ignored)
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": skipped}
            answers.append(answer | ({"oid": there.known_by} if there else {}))
        return {"files": answers}

    def _lfs_batch(self, request):
        self._found(request)
        objects = []
        for asked in request.json["objects"]:
            href = f"{self.storage}/storage/{asked['oid']}"
            verify = self.address + request.path.replace("/objects/batch", "/verify")
            actions = {"upload": {"href": href}, "verify": {"href": verify}}
            there = asked["oid"] in self.objects
            objects.append({**asked, "authenticated": True} | ({} if there else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    def _lfs_verify(self, request):
        self._found(request)
        asked = request.json
        if len(self.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, None, f"object {asked['oid']} was not uploaded")
        return {}

    def _commit(self, request):
        found = self._found(request)
        branch = request.given["revision"]
        if branch not in found.branches:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {branch}")
        head = found.branches[branch]
        title, changes = "", {}
        for line in request.body.splitlines():
            key, value = (item := json.loads(line))["key"], item["value"]
            if key == "header":
                title = value["summary"]
                if not head.sha.startswith(value.get("parentCommit", "")):
                    raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                changes[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refusal(400, None, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                changes[value["path"]] = self.objects[value["oid"]]
            elif key == "deletedFile":
                if value["path"] not in head.files:
                    raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
                changes[value["path"]] = None
            elif key == "deletedFolder":
                changes |= {path: None for path in head.files if path.startswith(value["path"].rstrip("/") + "/")}
        commit = found.commit(title, changes, branch)
        return {
            "success": True,
            "commitOid": commit.sha,
            "commitUrl": f"{self.address}/{found.name}/commit/{commit.sha}",
        }

    def _settings(self, request):
        found, asked = self._found(request), request.json
        found.private = asked["visibility"] == "private" if "visibility" in asked else asked["private"]
        return {"private": found.private}

    def _refs(self, request):
        branches = self._found(request).branches.items()
        listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": head.sha} for name, head in branches]
        return {"branches": listed, "converts": [], "tags": []}

    def _branch(self, request):
        found, name = self._found(request), request.given["revision"]
        if name in found.branches:
            raise Refusal(409, None, f"Reference already exists: refs/heads/{name}")
        found.branches[name] = found.at(request.json.get("startingPoint", "main"))
        return {}

    def _resolve(self, request):
        _, commit = self._commit_of(request)
        file = commit.files.get(request.given["path"])
        headers = {"X-Repo-Commit": commit.sha}
        if file is None:
            return 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
        headers["ETag"] = f'"{file.oid}"'
        if not file.large:
            return 200, headers, file.content
        self.objects[file.sha256] = file.content
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        return 302, headers | linked | {"Location": f"{self.storage}/storage/{file.sha256}"}, b""

    def _upload(self, request):
        if hashlib.sha256(request.body).hexdigest() != request.given["path"]:
            raise Refusal(400, None, "the content is not what its name says")
        self.objects[request.given["path"]] = request.body
        return {}

    def _download(self, request):
        content = self.objects[request.given["path"]]
        return 200, {"ETag": f'"{request.given["path"]}"', "Accept-Ranges": "bytes"}, content


def _folders(path, start, recursive):
    """The folders that a listing from `start` on shows for a file."""
    ends = [index for index, letter in enumerate(path) if letter == "/" and index >= start]
    return [path[:end] for end in (ends if recursive else ends[:1])]


def _folder_entry(path):
    return {"type": "directory", "path": path, "size": 0, "oid": hashlib.sha1(path.encode()).hexdigest()}
