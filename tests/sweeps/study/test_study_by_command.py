"""Studies run by one command, repeated after failures and kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from ablations.record.run_record import RunRecord
from sweeps.study.stopping import stop_study
from tests.sweeps.study.conftest import StudyApp

SEARCH = ("search=app_mixture", "search.budget.trials=6", "search.strategy.design_trials=3")


def _await(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_search_asks_runs_confirms_and_is_done_once(study_app: StudyApp) -> None:
    output = study_app.run(*SEARCH)
    study_app.assert_whole()
    results = study_app.results()
    assert {name.rpartition("-")[0] for name in results} == {f"trial-{i:04d}" for i in range(6)}
    assert sum(name.endswith("-1") for name in results) >= 2
    assert "[trial 6 of 6, run " in output
    ledger = json.loads((study_app.folder / "runs/app/ledger.json").read_text())
    assert ledger["total"]["runs"] == len(results)
    assert ledger["explored_trials"] == 6
    before = {run: (run / "work.jsonl").stat().st_mtime_ns for run in study_app.runs()}
    study_app.run(*SEARCH)
    assert {run: (run / "work.jsonl").stat().st_mtime_ns for run in study_app.runs()} == before


def test_runs_know_their_trial_and_every_weight(study_app: StudyApp) -> None:
    study_app.run(*SEARCH, "search.budget.trials=2", "search.confirm.finalists=0")
    manifest = json.loads((study_app.folder / "runs/app/trial-0001-0/manifest.json").read_text())
    assert manifest["trial"] == "trial-0001"
    assert manifest["labels"] == {"phase": "baseline", "name": "half"}
    assert manifest["config"]["mixture"]["weights"] == {"web": 0.5, "math": 0.5, "code": 0.0}


@pytest.mark.slow
def test_a_plain_sweep_is_a_table_that_grows(study_app: StudyApp) -> None:
    study_app.run("peak_lr=0.01,0.02", "seed=0,1")
    assert list(study_app.results()) == [f"trial-{t:04d}-{s}" for t in (0, 1) for s in (0, 1)]
    study_app.run("peak_lr=0.02,0.03", "seed=0")
    assert len(study_app.results()) == 5
    study_app.run(*SEARCH, "search.budget.trials=2", "search.confirm.finalists=0")
    assert len(study_app.results()) == 7
    study_app.assert_whole()


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "basic"])
def test_other_launchers_work_too(study_app: StudyApp, launcher: str) -> None:
    study_app.run(
        *SEARCH,
        "search.budget.trials=3",
        "search.confirm.finalists=0",
        "search.workers=2",
        f"hydra/launcher={launcher}",
    )
    study_app.assert_whole()
    assert len(study_app.results()) == 3
    jobs = [e for run in study_app.runs() for e in RunRecord(run).events() if e["kind"] == "job"]
    assert [job["queue"] for job in jobs] == ["local"] * 3 * (launcher == "submitit_local")
    assert all("completed successfully" in Path(job["log"]).read_text() for job in jobs)


@pytest.mark.slow
def test_another_definition_is_refused_by_name(study_app: StudyApp) -> None:
    study_app.run(*SEARCH, "search.budget.trials=2", "search.confirm.finalists=0")
    output = study_app.run(*SEARCH, "peak_lr=0.5", code=2)
    assert "config.peak_lr: not what the study was begun with; found: 0.5; allowed: 0.01" in output


def test_a_mistake_in_the_config_is_the_user_s(study_app: StudyApp) -> None:
    output = study_app.run(*SEARCH, "mistake=true", "search.max_failures=0", code=2)
    assert "mistake: was asked for" in output
    assert study_app.results() == {}


@pytest.mark.slow
def test_a_failed_trial_is_recorded_and_the_study_goes_on(study_app: StudyApp) -> None:
    given = (*SEARCH, "search.confirm.finalists=0")
    output = study_app.run(*given, "fail=trial-0002", "progress=false", code=1)
    reason = "TrainingError: step 3: the loss left the rails"
    assert f"study 'app': 1 of 6 runs failed: trial-0002-0: {reason}" in output
    assert sum(score is not None for score in study_app.results().values()) == 5
    assert RunRecord(study_app.folder / "runs/app/trial-0002-0").status == "failed"
    output = study_app.run(*given, "fail=trial-0002", "search.max_failures=0", code=1)
    assert "1 trial failed, more than search.max_failures=0" in output
    (study_app.folder / "mended").touch()
    study_app.run(*given, "fail=trial-0002")
    study_app.assert_whole()
    assert None not in study_app.results().values()


@pytest.mark.slow
def test_a_second_driver_is_refused_by_name(study_app: StudyApp) -> None:
    first = study_app.start(*SEARCH, "seconds=2")
    _await(lambda: any((run / "work.jsonl").exists() for run in study_app.runs()))
    output = study_app.run(*SEARCH, "seconds=2", code=2)
    assert f"another driver is running it; found: process {first.pid}" in output
    _kill_all(first.pid)
    first.communicate()


@pytest.mark.slow
def test_ctrl_c_ends_the_runs_and_the_same_command_goes_on(study_app: StudyApp) -> None:
    process = study_app.start(*SEARCH, "seconds=2")
    _await(lambda: any((run / "work.jsonl").exists() for run in study_app.runs()))
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    study_app.run(*SEARCH, "seconds=2")
    study_app.assert_whole()


@pytest.mark.slow
def test_a_study_is_stopped_and_the_same_command_goes_on(study_app: StudyApp) -> None:
    process = study_app.start(*SEARCH, "seconds=2")
    _await(lambda: any((run / "work.jsonl").exists() for run in study_app.runs()))
    stopped = stop_study(study_app.folder / "runs", "app")
    process.communicate(timeout=60)
    assert stopped.driver == process.pid
    assert process.returncode != 0
    again = stop_study(study_app.folder / "runs", "app")
    assert (again.driver, again.runs, again.going_on) == (None, (), ())
    study_app.run(*SEARCH, "seconds=2")
    study_app.assert_whole()


@pytest.mark.slow
def test_a_killed_job_is_resumed_by_the_same_driver(study_app: StudyApp) -> None:
    study_app.run(*SEARCH, "crash=trial-0002", "search.confirm.finalists=0")
    study_app.assert_whole()
    assert len(study_app.results()) == 6


@pytest.mark.parametrize("whom", ["driver", "everything"])
def test_kill_9_loses_nothing_and_repeats_nothing(study_app: StudyApp, whom: str) -> None:
    process = study_app.start(*SEARCH, "seconds=1")
    _await(lambda: len(study_app.results()) >= 2)
    if whom == "everything":
        _kill_all(process.pid)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    shutil.copytree(study_app.folder, copy := Path(f"{study_app.folder}-rebuilt"))
    study_app.run(*SEARCH, "seconds=1")
    study_app.assert_whole()
    if whom == "everything":
        _rebuild_elsewhere(copy, study_app)


def _rebuild_elsewhere(copy: Path, finished: StudyApp) -> None:
    """Repeat a killed study whose journal is lost: its trials are the same."""
    (copy / "runs/app/journal.log").unlink()
    rebuilt = StudyApp(copy, finished.environment)
    rebuilt.run(*SEARCH, "seconds=1")
    rebuilt.assert_whole()
    planned = [name for name in finished.results() if name < "trial-0005" and name.endswith("-0")]
    assert {n: rebuilt.results()[n] for n in planned} == {n: finished.results()[n] for n in planned}


def _kill_all(pid: int) -> None:
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.kill()


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = Path(__file__).resolve().parents[3] / "benchmarks" / "study_survival.py"
    command = [sys.executable, str(script), "--kills", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 repeated, 0 differing" in done.stdout
