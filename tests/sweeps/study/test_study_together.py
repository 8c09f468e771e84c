"""A study whose runs are trained several at once as one batched model: the table that it has without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ablations.files import read_json_lines
from tests.conftest import SHORT_SOURCES, TINY

pytestmark = pytest.mark.slow

SHARED = (*TINY, *SHORT_SOURCES, "hydra.launcher.slots=1")
SEARCH = (
    "search=mixture",
    "search.strategy.design_trials=2",
    "search.budget.trials=5",
    "search.confirm.finalists=1",
    "search.confirm.seeds=[0,1]",
)
SWEEP = ("seed=0,1,2", "training.recovery_interval_steps=4", "schedule.total_tokens=16384")
TOGETHER = "hydra.launcher.together=3"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ablations.cli", "run", "-m", *SHARED, *arguments]


def ablate(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the study, hold its exit code, and return what it wrote to standard error."""
    done = subprocess.run(
        command(*arguments), cwd=folder, capture_output=True, text=True, timeout=550
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr


def results(folder: Path, study: str) -> dict[str, dict[str, Any]]:
    paths = sorted((folder / "runs" / study).glob("*/result.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def losses(run: Path) -> list[float]:
    rows = {row["step"]: row["loss"] for row in read_json_lines(run / "metrics.jsonl")}
    return [rows[step] for step in sorted(rows)]


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [row for row in read_json_lines(run / "events.jsonl") if row["kind"] == kind]


def test_the_table_is_that_of_runs_trained_alone(workspace: Path) -> None:
    ablate(workspace, "study=alone", *SEARCH)
    ablate(workspace, "study=together", *SEARCH, TOGETHER)
    alone, together = results(workspace, "alone"), results(workspace, "together")
    assert alone.keys() == together.keys()
    shared = 0
    for name, expected in alone.items():
        mine = together[name]
        assert mine["status"] == "done"
        assert mine["audit_ok"]
        assert mine["score"] == pytest.approx(expected["score"], rel=1e-5)
        assert mine["metrics"] == pytest.approx(expected["metrics"], rel=1e-5)
        assert mine["cost"]["train_cpu_seconds"] > 0
        here, there = (workspace / "runs" / study / name for study in ("together", "alone"))
        assert losses(here) == pytest.approx(losses(there), rel=1e-6)
        fingerprints = {
            json.loads((f / "manifest.json").read_text())["fingerprint"] for f in (here, there)
        }
        assert len(fingerprints) == 1
        shared += len(events(here, "trained_together"))
    assert shared >= 5
    before = {f: f.stat().st_mtime_ns for f in (workspace / "runs/together").glob("*/result.json")}
    ablate(workspace, "study=together", *SEARCH, TOGETHER)
    assert {f: f.stat().st_mtime_ns for f in before} == before


@pytest.mark.parametrize("whom", ["everything", "driver", "group"])
def test_kill_9_in_the_middle_repeats_nothing(workspace: Path, whom: str) -> None:
    ablate(workspace, "study=whole", TOGETHER, *SWEEP)
    process = subprocess.Popen(
        command("study=killed", TOGETHER, *SWEEP), cwd=workspace, start_new_session=True
    )
    runs = workspace / "runs/killed"
    training = _await(lambda: [p for p in runs.glob("*/checkpoints/[0-9]*") if int(p.name) >= 8])
    mine = psutil.Process(process.pid).children(recursive=True)
    if whom == "group":
        first = training[0].parents[1].name
        held = json.loads((runs / first / "holder.json").read_text())["pid"]
        os.kill(held, signal.SIGKILL)
        assert process.wait(timeout=300) == 0
    else:
        for each in [psutil.Process(process.pid), *(mine if whom == "everything" else [])]:
            each.kill()
        process.wait()
        ablate(workspace, "study=killed", TOGETHER, *SWEEP)
    whole, killed = results(workspace, "whole"), results(workspace, "killed")
    assert whole.keys() == killed.keys()
    for name, expected in whole.items():
        assert killed[name]["status"] == "done"
        assert killed[name]["score"] == pytest.approx(expected["score"], rel=1e-5)
        assert losses(runs / name) == pytest.approx(
            losses(workspace / "runs/whole" / name), rel=1e-6
        )
    resumed = [event for run in runs.glob("trial-*") for event in events(run, "resume")]
    # Whoever trains outlives the driver, and the next driver waits for it.
    assert bool(resumed) == (whom != "driver")
    assert all(event["step"] >= 4 for event in resumed)


def test_a_diverged_proxy_fails_alone_and_is_not_trained_again(workspace: Path) -> None:
    hot = ("training.diverged_ratio=0.5", "training.diverged_patience_steps=3")
    sweep = ("study=hot", "seed=0,1,2", "search.max_failures=9", *hot, TOGETHER)
    assert "study 'hot': 3 of 3 runs failed" in ablate(workspace, *sweep, code=1)
    ended = results(workspace, "hot")
    assert {result["status"] for result in ended.values()} == {"failed"}
    for name, result in ended.items():
        assert "in a row" in result["reason"]
        assert len(events(workspace / "runs/hot" / name, "diverged")) == 1


def _await(found: Any, seconds: float = 120.0) -> Any:
    end = time.monotonic() + seconds
    while not (there := found()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return there
