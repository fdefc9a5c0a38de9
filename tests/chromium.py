"""Headless Chromium for tests of pages: opens a file, says what it asked the network for and what went wrong.

Spoken to over its debugging pipe (JSON ended by NUL), so no driver and no port are needed.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE = 60.0  # s


def find_chromium() -> str:
    """The browser's program; without one the test fails and says what to install."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        raise AssertionError(
            f"no browser among {', '.join(NAMES)}: pages are tested in Chromium; install it "
            "(Debian, Ubuntu: apt-get install chromium)"
        )
    return found


class Chromium:
    """One browser with one tab, as a context manager."""

    def __enter__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self.write = os.pipe()
        self.read, from_browser = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, find_chromium(), *FLAGS, f"--user-data-dir={self.profile.name}"],
            pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.buffer, self.events, self.number, self.session = b"", [], 0, None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *exception):
        os.close(self.write)
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.read)
        self.profile.cleanup()

    def ask(self, method, **parameters):
        """The answer to one request; events that come meanwhile are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open(self, path: Path):
        """Load a file of this machine, to the end."""
        self.events.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str):
        """The value of an expression of JavaScript; a promise is waited for."""
        result = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def resize(self, width: int, height: int, *, dark: bool = False):
        """Make the window as large as a screen, in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, top: float = 0, height: float | None = None):
        """A picture of the page from `top`, or of what the window shows.

        What fits into the window is scrolled there: for a picture of more the browser widens the page by what overflows
        within it, and boxes that were scrolled to their end no longer are.
        """
        clip, beyond = {}, False
        if height is not None:
            width, most = self.evaluate("[document.documentElement.clientWidth, innerHeight]")
            clip = {"clip": {"x": 0, "y": top, "width": width, "height": height, "scale": 1}}
            beyond = height > most
            self.evaluate(f"scrollTo(0, {top})")
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=beyond, **clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the page's console says of errors and warnings, and what its scripts threw."""
        found = []
        for event in self.events:
            content = event.get("params", {})
            if event.get("method") == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
                found.append(content["entry"]["text"])
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(content["exceptionDetails"]["text"])
            if event.get("method") == "Runtime.consoleAPICalled":
                found.append(str(content["args"]))
        return found

    def requested(self) -> list[str]:
        """The beginnings of all addresses that were asked for, but for what the page carries in itself."""
        sent = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url[:200] for url in sent if not url.startswith("data:")]

    def _next(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self.read, 1 << 20) if ready else b""
            assert data, f"Chromium said nothing for {PATIENCE:.0f} s" if not ready else "Chromium stopped"
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)
