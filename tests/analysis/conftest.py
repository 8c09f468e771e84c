"""Made-up studies, and a headless Chromium spoken to over a pipe (the DevTools protocol, no driver)."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.report import ReportContent, gather_report, render_html
from analysis.synthetic import SyntheticStudy, write_study

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


class Chromium:
    """One browser process; commands and events are JSON, ended by a zero byte, on two pipes."""

    def __init__(self, program: str) -> None:
        self.profile = Path(tempfile.mkdtemp())
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()
        # The browser reads descriptor 3 and writes descriptor 4; sh knows no descriptor above 9.
        place = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        settings = (f"--user-data-dir={self.profile}", "--remote-debugging-pipe")
        self.process = subprocess.Popen(
            ["bash", "-c", place, program, *CHROMIUM_FLAGS, *settings],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.asked = 0
        self.unread = b""
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        """The result of a command; events that come before it are kept."""
        self.asked += 1
        message: dict[str, Any] = {"id": self.asked, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next(time.monotonic() + 120.0)
            if found.get("id") == self.asked:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self.events.append(found)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self.unread:
            if not select.select([self.read_end], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self.read_end, 1 << 20)
            if not part:
                raise RuntimeError("Chromium has ended")
            self.unread += part
        message, self.unread = self.unread.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, width: int = 1280, height: int = 800, *, phone: bool = False) -> Window:
        return Window(self, width, height, phone)

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, OSError):
            self.ask("Browser.close")
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.read_end)
        os.close(self.write_end)
        shutil.rmtree(self.profile, ignore_errors=True)


class Window:
    """One page: open a file, run a script, take a picture, read what it complained of."""

    def __init__(self, browser: Chromium, width: int, height: int, phone: bool) -> None:
        self.browser = browser
        self.target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def ask(self, method: str, **params: Any) -> Any:
        return self.browser.ask(method, self.session, **params)

    def open(self, page: Path) -> None:
        """Open a file and wait until its scripts have begun."""
        address = page.resolve().as_uri()
        self.ask("Page.navigate", url=address)
        self.wait_for(f"return location.href === {address!r} && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return what a function body returns in the page."""
        answer = self.ask(
            "Runtime.evaluate", expression=f"(() => {{{script}}})()", returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 120.0) -> None:
        """Until ``script`` returns true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.1)

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.run("return 0")
        own = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [event["params"] for event in own if event["method"] == method]

    def errors(self) -> list[str]:
        """Uncaught exceptions, and what was logged as an error or a warning."""
        thrown = [
            str(event["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")
        ]
        logged = [event["entry"] for event in self._events("Log.entryAdded")]
        called = self._events("Runtime.consoleAPICalled")
        return [
            *thrown,
            *(str(entry) for entry in logged if entry["level"] in ("error", "warning")),
            *(str(call["args"]) for call in called if call["type"] in ("error", "warning")),
        ]

    def requests(self) -> list[str]:
        """Addresses on a network that the page asked for."""
        urls = [e["request"]["url"] for e in self._events("Network.requestWillBeSent")]
        return [url for url in urls if url.startswith(("http", "ws", "ftp", "//"))]

    def picture(self, path: Path, *, whole_page: bool = False) -> None:
        """A PNG of the window, or of the page to its end."""
        more: dict[str, Any] = {}
        if whole_page:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            area = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            more = {"clip": area, "captureBeyondViewport": True}
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", **more)["data"]))

    def close(self) -> None:
        self.browser.ask("Target.closeTarget", targetId=self.target)


@pytest.fixture(scope="session")
def browsers() -> Iterator[Chromium]:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("headless Chromium is absent: install chromium")
    started = Chromium(program)
    yield started
    started.close()


@pytest.fixture(scope="session")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three made-up studies: a ratio with a running and a failed trial, three and four sources."""
    folder = tmp_path_factory.mktemp("runs")
    write_study(folder, SyntheticStudy(name="ratio", running=1, failed=1))
    write_study(
        folder, SyntheticStudy(name="three", sources=("wiki", "chat", "math"), trials=18, items=0)
    )
    four = ("wiki", "chat", "math", "code")
    write_study(
        folder,
        SyntheticStudy(name="four", sources=four, trials=20, stages=("stable", "anneal"), items=0),
    )
    return folder


@pytest.fixture(scope="session")
def content(runs_dir: Path) -> ReportContent:
    """The report of the study "ratio"."""
    return gather_report(runs_dir, "ratio", surrogates=("linear", "scheffe"))


@pytest.fixture(scope="session")
def page(content: ReportContent) -> str:
    """Its page."""
    return render_html(content)
