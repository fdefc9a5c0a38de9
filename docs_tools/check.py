"""Checks the built pages: no link leads nowhere, nothing is fetched from elsewhere; links to elsewhere are listed."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {
    "img": "src",
    "script": "src",
    "link": "href",
    "source": "src",
    "iframe": "src",
    "audio": "src",
    "use": "href",
}
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)['"]?(https?:)?//""")


class Page(HTMLParser):
    """The ids, links and fetched files of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names and where it leads."""
        given = {name: value for name, value in attrs if value}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if FETCHED.get(tag, "") in given and given.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(given[FETCHED[tag]])


def faults(site: Path) -> tuple[list[str], list[str]]:
    """What is wrong with a built site, a line each, and the addresses elsewhere that its pages link to."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    wrong: list[str] = [] if pages else [f"{site}: no pages; build them first"]
    elsewhere: set[str] = set()
    for path, page in pages.items():
        for link in page.links + page.fetched:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.fetched:
                    wrong.append(f"{path}: fetches {link}; keep it in docs/assets")
                elif parts.scheme in ("http", "https"):
                    elsewhere.add(link)
                continue
            if path.name == "404.html":  # whose links are from the root of a server
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            known = next((other for name, other in pages.items() if name.resolve() == target), None)
            if not target.is_file():
                wrong.append(f"{path}: {link} leads to no file")
            elif known and parts.fragment and unquote(parts.fragment) not in known.ids | {"__top"}:
                wrong.append(f"{path}: {link} leads to no heading")
    for path in sorted(site.rglob("*.css")):
        if IN_STYLE.search(path.read_text(encoding="utf-8")):
            wrong.append(f"{path}: a style fetches from elsewhere")
    return wrong, sorted(elsewhere)


def main() -> int:
    """Check the site that is named; status 1 where something is wrong."""
    wrong, elsewhere = faults(Path(sys.argv[1]))
    print("\n".join(["not checked, as they are elsewhere:", *(f"  {link}" for link in elsewhere)]))
    print("\n".join(wrong) if wrong else f"{sys.argv[1]}: all links lead somewhere, nothing is fetched from elsewhere")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
