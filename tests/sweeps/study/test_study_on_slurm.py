"""A study on a real one-node Slurm, undisturbed and disturbed: the same trials, the same scores."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ablations.record.run_record import RunRecord
from tests.sweeps.study.conftest import StudyApp, app_in
from tests.tools.slurm_local import Slurm, missing, slurm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

STUDY = (
    "search=app_mixture",
    "search.budget.trials=4",
    "search.strategy.design_trials=2",
    "search.confirm.finalists=0",
)
_LET_GO_SECONDS = 8.0
"""Longer than Slurm's KillWait: a job released while its first attempt still ends fails at its start."""
ON_SLURM = (*STUDY, "hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    # Not under pytest's own folder: munge's user must be able to walk there.
    home = Path(tempfile.mkdtemp(prefix="slurm-"))
    home.chmod(0o711)
    try:
        with slurm(home) as started:
            yield started
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def app(study_app: StudyApp, cluster: Slurm) -> Iterator[StudyApp]:
    talking = {name: cluster.environment[name] for name in ("PATH", "SLURM_CONF")}
    yield replace(study_app, environment={**study_app.environment, **talking})
    cluster.cancel_all()  # a test that failed leaves the next one a free node


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Return the scores of the same study, run undisturbed on this machine."""
    app = app_in(tmp_path_factory.mktemp("undisturbed"))
    app.run(*STUDY)
    return app.results()


def _finish(process: subprocess.Popen[str], cluster: Slurm) -> None:
    """Wait for a study; release requeued jobs once their earlier processes have ended."""
    end = time.monotonic() + 240
    pending_since: dict[str, float] = {}
    while process.poll() is None and time.monotonic() < end:
        pending = [job for job, state in cluster.jobs().items() if state == "PENDING"]
        pending_since = {job: pending_since.get(job, time.monotonic()) for job in pending}
        for job, since in pending_since.items():
            if time.monotonic() - since > _LET_GO_SECONDS:
                cluster.release(job)
        time.sleep(0.5)
    if process.poll() is None:
        process.kill()
        output, _ = process.communicate()
        node = cluster.run("scontrol", "show", "node", check=False)
        pytest.fail(f"the study does not end: {cluster.jobs()}\n{output}\n{node}")
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output


def _await_work(app: StudyApp, name: str = "") -> None:
    """Wait until a run, or the run ``name``, is in the middle of its work."""
    end = time.monotonic() + 240
    while not any((run / "work.jsonl").exists() for run in app.runs() if name in run.name):
        assert time.monotonic() < end
        time.sleep(0.2)


def _job_of(app: StudyApp, name: str) -> str:
    """Return the Slurm job that works on a run: jobs are submitted side by side, in any order."""
    (run,) = (run for run in app.runs() if run.name == name)
    return str([event["job"] for event in RunRecord(run).events() if event["kind"] == "job"][-1])


def test_runs_through_submitit_slurm(app: StudyApp, undisturbed: dict[str, float]) -> None:
    app.run(*ON_SLURM)
    app.assert_whole()
    assert app.results() == undisturbed


def test_preempted_and_cancelled_runs_resume_to_the_same_result(
    app: StudyApp, cluster: Slurm, undisturbed: dict[str, float]
) -> None:
    process = app.start(*ON_SLURM, "seconds=8")
    _await_work(app)
    running = [job for job, state in cluster.jobs().items() if state == "RUNNING"]
    # The signal that a queue sends before it preempts.
    cluster.run("scancel", "--signal=USR2", running[0])
    cluster.run("scancel", list(cluster.jobs())[-1])
    _finish(process, cluster)
    app.assert_whole()
    assert app.results() == undisturbed


def test_a_killed_driver_leaves_its_jobs_to_the_next_one(
    app: StudyApp, cluster: Slurm, undisturbed: dict[str, float]
) -> None:
    process = app.start(*ON_SLURM, "seconds=8")
    _await_work(app)
    process.kill()  # two jobs run, two wait in the queue
    process.communicate()
    _finish(app.start(*ON_SLURM, "seconds=8"), cluster)
    app.assert_whole()
    assert app.results() == undisturbed


def test_several_runs_in_a_job_survive_what_ends_the_job(
    app: StudyApp, cluster: Slurm, undisturbed: dict[str, float]
) -> None:
    """A job of two runs is cancelled in its second, and the next job is preempted in its first."""
    process = app.start(*ON_SLURM, "search.runs_per_job=2", "search.workers=2", "seconds=8")
    _await_work(app)
    assert len(cluster.jobs()) == 2
    _await_work(app, "trial-0002-0")
    cluster.run("scancel", "--signal=USR2", _job_of(app, "trial-0002-0"))
    _await_work(app, "trial-0001-0")
    cluster.run("scancel", _job_of(app, "trial-0001-0"))
    _finish(process, cluster)
    app.assert_whole()
    assert app.results() == undisturbed


def test_goes_on_when_the_controller_restarts(
    app: StudyApp, cluster: Slurm, undisturbed: dict[str, float]
) -> None:
    process = app.start(*ON_SLURM, "seconds=12")
    _await_work(app)
    cluster.restart_controller()
    assert process.poll() is None
    _finish(process, cluster)
    app.assert_whole()
    assert app.results() == undisturbed


def test_a_run_past_its_time_limit_is_requeued_and_resumes(
    app: StudyApp, cluster: Slurm, undisturbed: dict[str, float]
) -> None:
    # Slurm counts minutes; submitit's warning comes 50 s before the end of one.
    limits = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=50")
    process = app.start(*ON_SLURM, "search.budget.trials=2", "seconds=24", *limits)
    _finish(process, cluster)
    app.assert_whole()
    assert app.results() == {name: undisturbed[name] for name in ("trial-0000-0", "trial-0001-0")}
