"""What the Hub of the tests can be asked, by method and path, and who may ask it."""

import json
import re
from typing import NamedTuple
from urllib.parse import unquote

WRITER, READER, STRANGER = "hf_tokenOfTheWriter", "hf_tokenOfTheReader", "hf_tokenOfTheStranger"
FINE_WRITER, FINE_READER = "hf_fineTokenToWrite", "hf_fineTokenToRead"
LOGINS = {WRITER: ("me", "write"), READER: ("me", "read"), STRANGER: ("stranger", "write")}
LOGINS |= {FINE_WRITER: ("me", "repo.write"), FINE_READER: ("me", "repo.content.read")}  # by permission
MEMBERS = {"me": {"lab": "write", "school": "read"}}  # organisations, and the role in them

# The kinds of requests, by method and path; failures are ordered by kind.
ROUTES = [
    ("front", "HEAD|GET", r"/"),
    ("whoami", "GET", r"/api/whoami-v2"),
    ("create", "POST", r"/api/repos/create"),
    ("delete", "DELETE", r"/api/repos/delete"),
    ("validate-yaml", "POST", r"/api/validate-yaml"),
    ("info", "GET", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)(/revision/(?P<revision>[^/]+))?"),
    ("tree", "GET", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(/(?P<path>.+))?"),
    ("paths-info", "POST", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)"),
    ("preupload", "POST", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)"),
    ("commit", "POST", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)"),
    ("settings", "PUT", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/settings"),
    ("refs", "GET", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/refs"),
    ("branch", "POST", r"/api/(?P<kind>\w+)/(?P<name>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)"),
    ("lfs-batch", "POST", r"/((?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("lfs-verify", "POST", r"/((?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/verify"),
    ("resolve", "HEAD|GET", r"/((?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("upload", "PUT", r"/storage/(?P<path>\w+)"),
    ("download", "HEAD|GET", r"/storage/(?P<path>\w+)"),
]


def route(method, path):
    """The kind of a request, None for one that the Hub does not know, and the named parts of its path."""
    for kind, methods, pattern in ROUTES:
        if method in methods.split("|") and (match := re.fullmatch(pattern, path)):
            parts = {"kind": None, "name": None, "revision": None, "path": None} | match.groupdict()
            return kind, {name: part and unquote(part) for name, part in parts.items()}
    return None, {}


class Request(NamedTuple):
    """A request as it came."""

    kind: str
    method: str
    path: str
    token: str | None
    query: dict
    given: dict  # the named parts of the path
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)
