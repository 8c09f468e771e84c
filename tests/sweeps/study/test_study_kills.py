"""kill -9 in a study of real runs, and runs that diverge: which runs are trained again."""

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
KILLED = ("seed=0,1", "training.recovery_interval_steps=4", "schedule.total_tokens=16384")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ablations.cli", "run", "-m", *SHARED, *arguments]


def ablate(folder: Path, *arguments: str, code: int = 0) -> str:
    """Run the study, check its exit code, and return its standard error."""
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


@pytest.mark.parametrize("whom", ["everything", "driver", "run"])
def test_kill_9_in_the_middle_repeats_nothing(workspace: Path, whom: str) -> None:
    ablate(workspace, "study=whole", *KILLED)
    process = subprocess.Popen(
        command("study=killed", *KILLED), cwd=workspace, start_new_session=True
    )
    runs = workspace / "runs/killed"
    training = _await(lambda: [p for p in runs.glob("*/checkpoints/[0-9]*") if int(p.name) >= 8])
    mine = psutil.Process(process.pid).children(recursive=True)
    if whom == "run":
        first = training[0].parents[1].name
        holder = json.loads((runs / first / "holder.json").read_text())["pid"]
        os.kill(holder, signal.SIGKILL)
        assert process.wait(timeout=300) == 0
    else:
        for each in [psutil.Process(process.pid), *(mine if whom == "everything" else [])]:
            each.kill()
        process.wait()
        ablate(workspace, "study=killed", *KILLED)
    whole, killed = results(workspace, "whole"), results(workspace, "killed")
    assert whole.keys() == killed.keys()
    for name, expected in whole.items():
        assert killed[name]["status"] == "done"
        assert killed[name]["score"] == expected["score"]
        assert losses(runs / name) == losses(workspace / "runs/whole" / name)
    resumed = [event for run in runs.glob("trial-*") for event in events(run, "resume")]
    # The training process outlives the driver, and the next driver waits for it.
    assert bool(resumed) == (whom != "driver")
    assert all(event["step"] >= 4 for event in resumed)


def test_a_diverged_run_fails_alone_and_is_not_trained_again(workspace: Path) -> None:
    hot = ("training.diverged_ratio=0.5", "training.diverged_patience_steps=3")
    two = ("study=hot", "training.peak_lr=1e-3,2e-3", "search.max_failures=9")
    output = ablate(workspace, *two, *hot, code=1)
    assert "study 'hot': 2 of 2 runs failed" in output
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
