"""The Hub of the tests as a server on loopback: `with serving(LocalHub()) as address`."""

import json
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs

from hub_protocol import LocalHub
from hub_requests import FINE_READER, FINE_WRITER, READER, STRANGER, WRITER, Request, route
from local_server import answering

__all__ = ["FINE_READER", "FINE_WRITER", "READER", "STRANGER", "WRITER", "LocalHub", "serving"]


@contextmanager
def serving(hub):
    """The address at which `hub` answers; its large files lie at another, as the real Hub's do."""
    with ExitStack() as stack:
        hub.storage = stack.enter_context(_listening(hub, stored=True))
        hub.address = stack.enter_context(_listening(hub))
        stack.callback(hub.released.set)
        yield hub.address


@contextmanager
def _listening(hub, stored=False):
    class Handler(_Handler):
        def handle_one_request(self):
            self.hub, self.stored = hub, stored
            super().handle_one_request()

    with answering(Handler) as address:
        yield address


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        hub = self.hub
        path, _, query = self.path.partition("?")
        kind, given = route(self.command, path)
        if not self.stored:
            hub.requests.append(f"{self.command} {self.path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        failure = hub.take_failure(kind)
        length = int(self.headers.get("Content-Length", 0))
        if failure == "cut":
            self.rfile.read(length // 2)
            return
        body = self.rfile.read(length)
        request = Request(kind, self.command, path, token, parse_qs(query), given, body)
        hub.asked.append(request)
        if kind in hub.before:
            hub.before.pop(kind)()
        if isinstance(failure, int):  # a gateway that shows what it was sent
            shown = json.dumps({"error": f"out of order, for {self.headers.get('Authorization')}"})
            self._send(failure, {}, shown.encode())
            return
        answer = hub.answer(request) if kind else (404, {}, b"")
        if failure == "hang":
            hub.released.wait(60)
        if failure not in ("drop", "hang"):
            self._send(*answer)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _send(self, status, headers, body):
        span = self.headers.get("Range")
        if status == 200 and span:
            first, _, last = span.removeprefix("bytes=").partition("-")
            whole, body = len(body), body[int(first) : int(last) + 1 if last else None]
            status, headers = 206, headers | {"Content-Range": f"bytes {first}-{int(first) + len(body) - 1}/{whole}"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass
