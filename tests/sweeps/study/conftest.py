"""The stand-in application of ``tests/sweeps/study_app``, run by its command as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ablations.config.schema import conf_dir

_APP = Path(__file__).resolve().parents[1] / "study_app" / "app.py"
STEPS = 4
"""Pieces of work of one run of the application."""


@dataclass(frozen=True)
class StudyApp:
    """The application in a folder of its own."""

    folder: Path
    environment: dict[str, str]
    script: Path = _APP

    def command(self, *overrides: str) -> list[str]:
        return [sys.executable, "-W", "ignore", str(self.script), "-m", *overrides]

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """Start a multirun in a session of its own."""
        return subprocess.Popen(
            self.command(*overrides),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *overrides: str, code: int = 0) -> str:
        """Run a multirun to its end and return its output."""
        process = self.start(*overrides)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    def runs(self, study: str = "app") -> list[Path]:
        """Return name → run folder."""
        return sorted((self.folder / "runs" / study).glob("trial-*"))

    def work(self, run: Path) -> list[int]:
        """Return the pieces of work that a run did, in order, repeated ones included."""
        return [json.loads(line)["step"] for line in (run / "work.jsonl").read_text().splitlines()]

    def results(self, study: str = "app") -> dict[str, float]:
        """Return run → score of the finished runs."""
        paths = sorted((self.folder / "runs" / study).glob("trial-*/result.json"))
        return {path.parent.name: json.loads(path.read_text())["score"] for path in paths}

    def assert_whole(self, study: str = "app") -> None:
        """Check that every run has ended and did each piece of its work once."""
        for run in self.runs(study):
            assert (run / "result.json").exists(), run
            assert self.work(run) == list(range(STEPS)), run


def app_in(folder: Path) -> StudyApp:
    """Return the application in ``folder``, with the project's search configs."""
    environment = {**os.environ, "ABLATIONS_CONF": str(conf_dir()), "OMP_NUM_THREADS": "1"}
    environment.pop("ABLATIONS_SLOT", None)
    return StudyApp(folder, environment)


@pytest.fixture
def study_app(tmp_path: Path) -> StudyApp:
    """Return the application in a folder of the test's own."""
    return app_in(tmp_path)
