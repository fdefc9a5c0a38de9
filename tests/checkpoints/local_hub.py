"""A Hub on this machine that speaks the real one's protocol, and processes of their own to ask it."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMIT = "c0ffee" * 6 + "c0ff"


def run_python(code, home, **environment):
    """Run code in a fresh interpreter with its own HF_HOME; gives what it assigned to `result`, and the seconds.

    huggingface_hub reads its settings at import, so only a new process sees another endpoint.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and "proxy" not in k.lower()}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json; print(json.dumps(result))"],
        env={**inherited, "HF_HOME": str(home / "hf"), "PYTHONPATH": str(ROOT), **environment},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), time.monotonic() - started


class LocalHub:
    """What the server serves and what it was asked: `models` maps a repository to its files or to a refusal."""

    def __init__(self, models=None, front_page=200):
        self.models = models or {}
        self.front_page = front_page
        self.requests = []

    def answer(self, path):
        """Status, headers and body for a path."""
        if path == "/":
            return self.front_page, {}, b""
        parts = path.partition("?")[0].strip("/").removeprefix("api/models/").split("/")
        repository, rest = "/".join(parts[:2]), parts[2:]
        files = self.models.get(repository, "RepoNotFound")
        if isinstance(files, str):
            return (403 if files == "GatedRepo" else 401), {"X-Error-Code": files}, b""
        if rest[:1] in ([], ["revision"]):
            if rest[1:] not in ([], ["main"]):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            return 200, {}, json.dumps({"id": repository, "sha": COMMIT, "siblings": []}).encode()
        if rest[0] == "tree":
            tree = [{"type": "file", "path": n, "size": len(b), "oid": _digest(b)} for n, b in files.items()]
            return 200, {"Content-Type": "application/json"}, json.dumps(tree).encode()
        body = files["/".join(rest[2:])]
        return 200, {"ETag": f'"{_digest(body)}"', "X-Repo-Commit": COMMIT}, body


def _digest(content):
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serving(hub):
    """The address at which `hub` answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, body = hub.answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
