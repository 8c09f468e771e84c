"""The config files of a study are edited while it runs, or between two commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.config.schema import conf_dir
from tests.sweeps.study.conftest import StudyApp

SEARCH = (
    "search=app_mixture",
    "search.budget.trials=5",
    "search.strategy.design_trials=5",
    "search.confirm.finalists=0",
    "hydra.launcher.slots=1",
)


@pytest.fixture
def app(study_app: StudyApp, tmp_path: Path) -> StudyApp:
    """Return the application with config folders of its own, which a test may edit."""
    copied = shutil.copytree(study_app.script.parent, tmp_path / "own app")
    shutil.copytree(conf_dir(), tmp_path / "own conf, too")
    environment = {**study_app.environment, "ABLATIONS_CONF": str(tmp_path / "own conf, too")}
    environment["PYTHONPATH"] = os.pathsep.join(str(path) for path in (conf_dir().parent,))
    return replace(study_app, environment=environment, script=copied / "app.py")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def app_yaml(app: StudyApp) -> Path:
    return app.script.with_name("conf") / "app.yaml"


def configs(app: StudyApp) -> list[dict[str, Any]]:
    paths = sorted((app.folder / "runs/app").glob("trial-*/manifest.json"))
    return [json.loads(path.read_text())["config"] for path in paths]


def started(app: StudyApp, *overrides: str) -> subprocess.Popen[str]:
    """Start a study; return when its first run has ended and its last has not."""
    process = app.start(*overrides)
    while not app.results():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def test_an_edit_during_a_study_changes_none_of_its_runs(app: StudyApp) -> None:
    process = started(app, *SEARCH, "seconds=1")
    edit(app_yaml(app), "peak_lr: 0.01", "peak_lr: 0.5")
    shutil.rmtree(app.environment["ABLATIONS_CONF"])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    app.assert_whole()
    assert [config["peak_lr"] for config in configs(app)] == [0.01] * 5


def test_after_a_kill_edited_files_are_refused_by_name_until_restored(app: StudyApp) -> None:
    process = started(app, *SEARCH, "seconds=1")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    edit(app_yaml(app), "peak_lr: 0.01", "peak_lr: 0.5")
    before = app.runs()  # folders, not results: a run in flight outlives its driver and ends
    output = app.run(*SEARCH, "seconds=1", code=2)
    assert "config.peak_lr: not what the study was begun with; found: 0.5; allowed: 0.01" in output
    assert app.runs() == before
    edit(app_yaml(app), "peak_lr: 0.5", "peak_lr: 0.01  # a remark changes nothing")
    app.run(*SEARCH, "seconds=1")
    app.assert_whole()
    assert [config["peak_lr"] for config in configs(app)] == [0.01] * 5


@pytest.mark.slow
def test_a_plain_sweep_refuses_to_mix_runs_of_edited_files(app: StudyApp) -> None:
    app.run("mixture.weights.web=0.5,0.6")
    edit(app_yaml(app), "peak_lr: 0.01", "peak_lr: 0.5")
    output = app.run("mixture.weights.web=0.6,0.7", code=2)
    assert "trial-0000: config.peak_lr: its config files were edited since it was run" in output
    assert "found: 0.5; allowed: 0.01" in output
    assert len(app.results()) == 2
    app.run("mixture.weights.web=0.6,0.7", "study=anew")
    edit(app_yaml(app), "peak_lr: 0.5", "peak_lr: 0.01")
    # An explicit override makes another combination.
    app.run("mixture.weights.web=0.6,0.7", "peak_lr=0.02")
    assert len(app.results()) == 4
