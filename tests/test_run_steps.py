"""Check the steps of a run with a trainer and a scorer that only tell what they were asked for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablations import execute as module
from ablations.config.schema import RunConfig
from ablations.errors import (
    AuditError,
    HeldError,
    HostLostError,
    Problem,
    TrainingError,
    WorkError,
)
from ablations.evaluation.scoring_process import ScoringJob
from ablations.execute import Work, execute, open_work
from ablations.files import write_json
from ablations.record.run_record import RunRecord
from ablations.training.train_job import TrainJob, TrainOutcome
from tests.test_plan import EVEN, FULL, STATED, composed

STEPS = 72
TOKENS = 256
EVENLY = ((192, 192, 192),)


class Shown:
    """A watcher that keeps what it is shown."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int | None]] = []
        self.units: list[str] = []

    def phase(self, text: str, total: int | None = None) -> None:
        self.phases.append((text, total))

    def step(self, row: Any) -> None:
        raise AssertionError(row)

    def advance(self, text: str) -> None:
        self.units.append(text)


class Fakes:
    """Trainer and scorer of a run; ``told`` says in which order they were asked, and of what status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcome: TrainOutcome | BaseException = TrainOutcome(
            status="done",
            reason=None,
            last_step=STEPS,
            checkpoints=(36, STEPS),
            windows=EVENLY,
            cpu_seconds=3.0,
            device="toy",
        )
        self.told: list[tuple[str, Any]] = []
        self.jobs: list[ScoringJob] = []
        self.trained: list[TrainJob] = []
        self.shared: list[Work] = []
        trainer = SimpleNamespace(train=self.train)
        monkeypatch.setattr(module, "trainer_of", lambda method: trainer)
        monkeypatch.setattr(module, "score_on_devices", self.score)
        monkeypatch.setattr(module, "share_trunk", self.shared.append)

    def train(self, job: TrainJob, step: Any, *, in_process: bool) -> TrainOutcome:
        self.told.append((RunRecord(job.directory).status, in_process))
        self.trained.append(job)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def score(
        self,
        job: ScoringJob,
        workers: int,
        *,
        in_process: bool,
        advance: Callable[[str], None],
    ) -> float:
        record = RunRecord(job.directory)
        self.told.append((record.status, in_process))
        self.jobs.append(job)
        for step in job.steps:
            advance(str(step))
            value = {"value": step / 100}
            row = {"score": step / 8, "direction": "minimize", "metrics": {"a": {"bpb": value}}}
            record.add_scores({"step": step, **row})
        return 5.0


@pytest.fixture
def fakes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(monkeypatch)


def config(*more: str) -> RunConfig:
    return composed(*EVEN, *STATED, *FULL, *more)


def test_a_run_is_trained_audited_scored_and_recorded(fakes: Fakes) -> None:
    shown = Shown()
    finished = execute(config(), progress=shown)
    record, result = finished.record, dict(finished.result)
    assert not finished.skipped
    assert fakes.told == [("training", False), ("scoring", False)]
    assert record.status == "done"
    assert record.result() == result
    cost = result.pop("cost")
    assert (cost["train_cpu_seconds"], cost["eval_cpu_seconds"], cost["device"]) == (
        *(3.0, 5.0),
        "toy",
    )
    assert result == {
        "status": "done",
        "reason": None,
        "step": STEPS,
        "tokens": STEPS * TOKENS,
        "score": 9.0,
        "direction": "minimize",
        "metrics": {"a/bpb": 0.72},
        "scored": 2,
        "audit_ok": True,
    }
    audit = record.audit()
    assert audit is not None
    assert audit["ok"] is True
    assert len(fakes.shared) == 1
    (job,) = fakes.jobs
    assert shown.phases == [("training", STEPS), ("scoring", 2 * job.task_count)]
    assert shown.units == ["36", "72"]


def test_the_scorer_is_told_where_and_how(fakes: Fakes, workspace: Path) -> None:
    asked = config("training.keep_checkpoints=all", "execution.device=cpu")
    finished = execute(asked, in_process=True)
    assert fakes.told == [("training", True), ("scoring", True)]
    (job,) = fakes.jobs
    assert job.directory == finished.record.path.absolute()
    assert job.directory.is_absolute()
    assert (job.steps, job.last_step, job.tokens_per_step) == ((36, 72), 72, TOKENS)
    assert (job.keep, job.device, job.threads) == ("all", "cpu", 1)
    assert job.dtype == asked.evaluation.dtype
    assert job.reference is None
    assert job.data_dir == workspace / "data"
    assert set(job.stores) == set(asked.mixture.weights)
    assert all(path.is_absolute() for path in job.stores.values())
    assert job.items == finished.record.manifest.items
    assert job.items


def test_a_run_that_is_done_is_left_alone(fakes: Fakes) -> None:
    first = execute(config())
    holder = first.record.path / "holder.json"
    write_json(holder, {"pid": 1, "token": "x", "host": socket.gethostname()})
    again = execute(config())
    assert (again.skipped, again.result) == (True, first.result)
    assert len(fakes.trained) == len(fakes.jobs) == 1
    assert not holder.exists()


def test_only_checkpoints_without_scores_are_scored_in_order(fakes: Fakes) -> None:
    work = open_work(config("training.checkpoints=6"))
    assert work.plan.checkpoint_steps == (12, 24, 36, 48, 60, 72)
    work.record.add_scores({"step": 36})
    assert isinstance(fakes.outcome, TrainOutcome)
    work.outcome = replace(fakes.outcome, last_step=60)
    work.score()
    assert work.record.status == "scoring"
    assert [job.steps for job in fakes.jobs] == [(12, 24, 48, 60)]


def test_nothing_to_score_is_no_phase(fakes: Fakes) -> None:
    shown = Shown()
    work = open_work(config(), progress=shown)
    work.score_steps(())
    assert shown.phases == []
    assert fakes.jobs[0].steps == ()


def test_a_run_that_stops_before_its_end_pauses(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(fakes.outcome, TrainOutcome)
    fakes.outcome = replace(fakes.outcome, last_step=STEPS - 1, windows=None)
    monkeypatch.setattr(module, "pause", lambda work: {"paused": work.outcome.last_step})
    finished = execute(config())
    assert finished.result == {"paused": 71}
    assert finished.record.result() is None
    assert finished.record.audit() is None
    assert [job.steps for job in fakes.jobs] == [(36,)]


def test_a_run_without_windows_is_not_audited(fakes: Fakes) -> None:
    assert isinstance(fakes.outcome, TrainOutcome)
    fakes.outcome = replace(fakes.outcome, windows=None)
    finished = execute(config())
    assert finished.result["audit_ok"] is None
    assert finished.record.audit() is None


# ---------------------------------------------------------------------------------------- failures


def test_a_failed_training_is_recorded_and_tried_again(fakes: Fakes) -> None:
    good = fakes.outcome
    assert isinstance(good, TrainOutcome)
    fakes.outcome = replace(good, status="failed", reason="diverged", last_step=40)
    with pytest.raises(TrainingError, match="step 40: diverged"):
        execute(config())
    record = RunRecord(fakes.trained[0].directory)
    assert (record.status, record.manifest.reason) == ("failed", "step 40: diverged")
    result = record.result()
    assert result is not None
    assert (result["status"], result["reason"], result["step"], result["tokens"]) == (
        *("failed", "step 40: diverged"),
        *(40, 40 * TOKENS),
    )
    assert (result["score"], result["metrics"], result["audit_ok"]) == (None, {}, None)
    (event,) = [one for one in record.events() if one["kind"] == "failed"]
    assert (event["step"], event["reason"]) == (40, "step 40: diverged")
    assert event["train_cpu_seconds"] == 3.0
    assert fakes.jobs == []
    fakes.outcome = good
    finished = execute(config())
    assert (finished.result["status"], finished.record.status) == ("done", "done")
    assert finished.record.manifest.reason is None


def test_a_failure_without_a_reason_or_a_step_is_recorded(fakes: Fakes) -> None:
    fakes.outcome = ValueError("torn")
    with pytest.raises(WorkError, match="torn"):
        execute(config())
    result = RunRecord(fakes.trained[0].directory).result()
    assert result is not None
    rule = config().evaluation.score
    assert rule is not None
    found = (result["step"], result["tokens"], result["direction"])
    assert found == (0, 0, rule.direction)


def test_a_run_that_read_another_mixture_is_not_scored(fakes: Fakes) -> None:
    assert isinstance(fakes.outcome, TrainOutcome)
    fakes.outcome = replace(fakes.outcome, windows=((288, 192, 96),))
    with pytest.raises(AuditError):
        execute(config())
    record = RunRecord(fakes.trained[0].directory)
    result, audit = record.result(), record.audit()
    assert result is not None
    assert audit is not None
    assert (result["audit_ok"], audit["ok"], fakes.jobs) == (False, False, [])


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (HeldError(Problem("here", "held")), []),
        (HostLostError("a host is gone", step=12), ["host_lost"]),
    ],
)
def test_what_is_no_failure_of_a_run_leaves_it_unfinished(
    fakes: Fakes, error: Exception, kinds: list[str]
) -> None:
    fakes.outcome = error
    with pytest.raises(type(error)):
        execute(config())
    record = RunRecord(fakes.trained[0].directory)
    assert (record.result(), record.status) == (None, "training")
    assert [event["kind"] for event in record.events()] == kinds
    if kinds:
        assert record.events()[0]["step"] == 12
        assert record.events()[0]["reason"] == "a host is gone"
