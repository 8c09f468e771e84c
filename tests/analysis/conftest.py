"""Made-up studies, and a headless Chromium spoken to over the WebDriver protocol."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

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


class Browser:
    """One Chromium window: open a page, run a script, take a picture, read the logs."""

    def __init__(self, port: int, width: int, height: int, profile: Path, phone: bool) -> None:
        self.root = f"http://127.0.0.1:{port}"
        arguments = [*CHROMIUM_FLAGS, f"--user-data-dir={profile}"]
        options: dict[str, Any] = {"args": [*arguments, f"--window-size={width},{height}"]}
        if phone:
            metrics = {"width": width, "height": height, "pixelRatio": 2.0, "touch": False}
            options["mobileEmulation"] = {"deviceMetrics": metrics}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.root + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=120) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:2000]) from error

    def open(self, page: Path) -> None:
        self._call("POST", f"{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script: str) -> Any:
        body = {"script": script, "args": []}
        return self._call("POST", f"{self.session}/execute/sync", body)

    def wait_for(self, script: str, seconds: float = 120.0) -> None:
        """Until ``script`` returns true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.1)

    def log(self, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._call("POST", f"{self.session}/se/log", {"type": kind})
        return found

    def errors(self) -> list[str]:
        """Console messages of level SEVERE or WARNING."""
        return [m["message"] for m in self.log("browser") if m["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Addresses on a network that a page asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        sent = [e for e in events if e["method"] == "Network.requestWillBeSent"]
        urls = [event["params"]["request"]["url"] for event in sent]
        return [url for url in urls if url.startswith(("http", "ws", "ftp", "//"))]

    def picture(self, path: Path, *, whole_page: bool = False) -> None:
        if whole_page:
            height = self.run("return document.documentElement.scrollHeight")
            width = self.run("return window.innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": min(height, 16000), "scale": 1}
            body = {
                "cmd": "Page.captureScreenshot",
                "params": {"captureBeyondViewport": True, "clip": clip},
            }
            data = self._call("POST", f"{self.session}/goog/cdp/execute", body)["data"]
        else:
            data = self._call("GET", f"{self.session}/screenshot")
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._call("DELETE", self.session)


class Browsers:
    """Starts chromedriver once, and a window of any size on request."""

    def __init__(self, driver: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = Path(tempfile.mkdtemp())
        self.process = subprocess.Popen(
            [driver, f"--port={self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait()

    def _wait(self) -> None:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def open(self, width: int = 1280, height: int = 800, *, phone: bool = False) -> Browser:
        profile = Path(tempfile.mkdtemp(dir=self.folder))
        return Browser(self.port, width, height, profile, phone)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def browsers() -> Iterator[Browsers]:
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("headless Chromium is absent: install chromium and chromium-driver")
    started = Browsers(driver)
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
