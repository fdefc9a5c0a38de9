"""Files in memory behind HTTP on loopback, in ranges, with the date of their last change and nothing else."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from local_server import answering


@contextmanager
def serving_files(files):
    """The address at which the contents of `files`, by name, are to be had; they may change meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body, status = files.get(self.path.partition("?")[0].strip("/")), 200
            headers = {"Last-Modified": "Sat, 28 Nov 2026 12:00:00 GMT", "Accept-Ranges": "bytes"}
            if body is None:
                body, status = b"", 404
            elif span := self.headers.get("Range"):
                first, _, last = span.removeprefix("bytes=").partition("-")
                end = min(int(last) + 1 if last else len(body), len(body))
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
                body, status = body[int(first) : end], 206
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with answering(Handler) as address:
        yield address
