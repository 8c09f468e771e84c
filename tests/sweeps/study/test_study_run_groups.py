"""Several runs in one job: the same results, and a run or a job that dies takes nothing else with it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest

from ablations.errors import ConfigError
from sweeps.launchers.local.suite_modules import preload_of
from sweeps.study.executor import Executor, launching_of
from tests.sweeps.study.conftest import StudyApp, app_in

STUDY = (
    "search=app_mixture",
    "search.budget.trials=6",
    "search.strategy.design_trials=4",
    "search.confirm.finalists=0",
)
LOCAL = (*STUDY, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the scores of the same study, each run a job of its own."""
    app = app_in(tmp_path_factory.mktemp("alone"))
    app.run(*STUDY)
    return app.results()


def jobs(app: StudyApp) -> list[Path]:
    return sorted((app.folder / "runs").rglob("*_submitted.pkl"))


def jobs_of_runs(app: StudyApp) -> dict[str, set[str]]:
    """Return run → parents of the processes that did its work."""
    return {
        run.name: {
            json.loads(line)["parent"] for line in (run / "work.jsonl").read_text().splitlines()
        }
        for run in app.runs()
    }


def test_runs_of_a_job_share_a_server_and_score_as_alone(
    study_app: StudyApp, alone: dict[str, float]
) -> None:
    study_app.run(*LOCAL, "search.runs_per_job=3", "search.workers=1")
    study_app.assert_whole()
    assert study_app.results() == alone
    assert len(jobs(study_app)) == 2
    servers = jobs_of_runs(study_app)
    assert all(len(parents) == 1 for parents in servers.values())
    assert len({parent for parents in servers.values() for parent in parents}) == 2


def test_a_run_that_is_killed_or_fails_leaves_the_others_their_results(
    study_app: StudyApp, alone: dict[str, float]
) -> None:
    several = ("search.runs_per_job=6", "search.workers=1", "search.strategy.design_trials=6")
    output = study_app.run(*LOCAL, *several, "crash=trial-0002", "fail=trial-0001", code=1)
    assert "the loss left the rails" in output
    ended = study_app.results()
    assert ended.pop("trial-0001-0") is None
    assert len(ended) == 5
    assert {name: ended[name] for name in ("trial-0000-0", "trial-0002-0")} == {
        name: alone[name] for name in ("trial-0000-0", "trial-0002-0")
    }
    (study_app.folder / "mended").touch()
    study_app.run(*LOCAL, *several, "crash=trial-0002", "fail=trial-0001")
    assert study_app.results()["trial-0001-0"] == alone["trial-0001-0"]


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_job_that_dies_keeps_what_is_done_and_the_rest_is_submitted_again(
    study_app: StudyApp, alone: dict[str, float], attempts: int
) -> None:
    """One launch allowed: the run in progress has failed, those behind it did not begin and go on."""
    process = study_app.start(
        *LOCAL,
        "search.runs_per_job=4",
        "search.workers=1",
        f"search.attempts={attempts}",
        "seconds=4",
    )
    second = study_app.folder / "runs" / "app" / "trial-0001-0" / "work.jsonl"
    end = time.monotonic() + 120
    while not second.exists() or not second.read_text():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.1)
    worker = psutil.Process(json.loads(second.read_text().splitlines()[0])["pid"])
    server, job = worker.parents()[:2]
    assert "submitit" in " ".join(job.cmdline())
    job.kill()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == (0 if attempts > 1 else 1), output
    del server
    ended = study_app.results()
    if attempts > 1:
        study_app.assert_whole()
        assert ended == alone
    else:
        assert "ended 1 times without a result" in output
        assert [name for name, score in ended.items() if score is None] == ["trial-0001-0"]
        assert len(ended) == len(alone)


class Launcher:
    """Takes jobs, and says what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[list[str]], int]] = []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[str]:
        self.calls.append((jobs, initial_job_idx))
        return [job[0] for job in jobs]


def values(futures: list[Future[Any]]) -> Iterator[Any]:
    return (future.result(10) for future in futures)


def test_runs_are_handed_out_in_groups_and_the_rest_in_a_smaller_one() -> None:
    launcher = Launcher()
    executor = Executor(object(), "thread", 2, launcher, 3)
    names = [f"run-{n}" for n in range(7)]
    assert list(values(executor.submit([[name] for name in names], 10))) == names
    calls = sorted(launcher.calls, key=lambda call: call[1])
    assert [([job[0] for job in jobs], first) for jobs, first in calls] == [
        (names[0:3], 10),
        (names[3:6], 13),
        (names[6:7], 16),
    ]


@pytest.mark.parametrize(
    ("in_flight", "free"), [(0, 6), (1, 3), (3, 3), (4, 0), (5, 0), (6, 0), (9, 0)]
)
def test_whole_jobs_are_free(in_flight: int, free: int) -> None:
    assert Executor(object(), "thread", 2, Launcher(), 3).free_workers(in_flight) == free


@pytest.mark.parametrize("name", ["BasicLauncher", "JoblibLauncher"])
def test_a_launcher_without_jobs_refuses_several_runs_in_one(name: str) -> None:
    with pytest.raises(ConfigError, match="runs_per_job"):
        launching_of(type(name, (), {})(), None, 2)
    assert launching_of(type(name, (), {})(), None, 1).runs_per_job == 1


def test_slots_fork_every_run_from_one_server_anyway() -> None:
    launching = launching_of(type("SlotsLauncher", (), {"width": 2})(), None, 5)
    assert (launching.runs_per_job, launching.free_workers(0)) == (1, 2)


def test_a_job_imports_what_its_runs_use() -> None:
    assert preload_of({"search": {}}) == []
    plain = {"model": {}, "evaluation": {"tasks": {"a": {"metrics": ["exact_match"]}}}}
    assert "ablations.evaluation.lighteval.answer_matching" in preload_of(plain)
    assert "ablations.preload_trl" not in preload_of(plain)
    assert "ablations.preload_trl" in preload_of({**plain, "method": {"kind": "sft"}})
