"""Checkpoints written behind the steps: the same files' content, after kills and errors too."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from ablations.record.checksums import damage
from ablations.training.checkpoints import PARTIAL, checkpoint_steps
from ablations.training.export import read_weights
from ablations.training.nanotron import nanotron_trainer
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.nanotron.saver import Saver
from ablations.training.train_job import TrainJob, TrainOutcome
from tests.oracles import dying, full_disk
from tests.oracles.jobs import kinds_of, losses_of, make_job, rows_of, with_execution

torch.set_num_threads(1)


def job_in(
    folder: Path, stores: dict[str, Path], *, background: bool = True, **more: Any
) -> TrainJob:
    job = make_job(folder, stores, steps=12, checkpoint_steps=(4, 8), **more)
    return with_execution(job, background_checkpoints=background)


def train(job: TrainJob) -> TrainOutcome:
    return NanotronTrainer().train(job)


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> TrainJob:
    """Train a run whose steps wait for their checkpoints."""
    job = job_in(tmp_path_factory.mktemp("at_once"), stores, background=False)
    assert train(job).status == "done"
    return job


def require_equal(job: TrainJob, other: TrainJob) -> None:
    """Require equal losses, and checkpoints of equal weights, moments and random states."""
    assert losses_of(job) == losses_of(other)
    assert checkpoint_steps(job.checkpoints_dir) == (4, 8, 12)
    assert not (job.checkpoints_dir / PARTIAL).exists()
    for step in (4, 8, 12):
        mine, theirs = (each.checkpoints_dir / str(step) for each in (job, other))
        assert damage(mine) == []
        names = sorted(p.relative_to(mine).as_posix() for p in mine.rglob("*") if p.is_file())
        assert names == sorted(
            p.relative_to(theirs).as_posix() for p in theirs.rglob("*") if p.is_file()
        )
        weights, others = read_weights(mine), read_weights(theirs)
        assert weights.keys() == others.keys()
        for name, tensor in weights.items():
            assert torch.equal(tensor, others[name]), name
        for name in (name for name in names if name.endswith(".pt")):
            loaded = [torch.load(each / name, weights_only=False) for each in (mine, theirs)]
            assert plain(loaded[0]) == plain(loaded[1]), name


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    if hasattr(value, "items"):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return {k: plain(v) for k, v in vars(value).items()} if hasattr(value, "__dict__") else value


def test_checkpoints_and_losses_are_those_of_steps_that_wait(
    tmp_path: Path, stores: dict[str, Path], at_once: TrainJob
) -> None:
    job = job_in(tmp_path, stores)
    assert train(job).status == "done"
    require_equal(job, at_once)
    assert kinds_of(job) == ["start", *["checkpoint"] * 3]


@pytest.mark.parametrize(
    "moments",
    [
        [("save", 4), ("row", 6), ("save", 8)],
        [("row", 5), ("save", 8), ("save", 12)],
    ],
    ids=["early", "late"],
)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_earlier_one(
    tmp_path: Path,
    stores: dict[str, Path],
    at_once: TrainJob,
    monkeypatch: pytest.MonkeyPatch,
    moments: list[tuple[str, int]],
) -> None:
    job = job_in(tmp_path, stores)
    with monkeypatch.context() as patch:
        patch.setattr(nanotron_trainer, "_WORKER", dying.__name__)
        for moment, step in moments:
            (job.directory / dying.MOMENT).write_text(json.dumps((moment, step)))
            outcome = train(job)
            assert "SIGKILL" in (outcome.reason or "")
            assert step not in outcome.checkpoints
    assert train(job).status == "done"
    require_equal(job, at_once)


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_the_reason(
    tmp_path: Path,
    stores: dict[str, Path],
    at_once: TrainJob,
    monkeypatch: pytest.MonkeyPatch,
    background: bool,
) -> None:
    job = job_in(tmp_path, stores, background=background)
    with monkeypatch.context() as patch:
        patch.setattr(nanotron_trainer, "_WORKER", full_disk.__name__)
        outcome = train(job)
    assert (outcome.status, outcome.checkpoints) == ("failed", ())
    assert "RuntimeError" in (outcome.reason or "")  # torch's, for a write that failed
    assert "worker.log has the traceback" in (outcome.reason or "")
    assert train(job).status == "done"
    require_equal(job, at_once)


def test_recovery_checkpoints_are_replaced_by_the_next(
    tmp_path: Path, stores: dict[str, Path], at_once: TrainJob
) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(6,), recovery_interval_steps=4)
    assert train(with_execution(job, background_checkpoints=True)).status == "done"
    assert checkpoint_steps(job.checkpoints_dir) == (6, 12)
    assert losses_of(job) == losses_of(at_once)


def test_a_run_that_diverges_keeps_the_checkpoint_that_is_being_written(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    job = make_job(tmp_path, stores, steps=40, checkpoint_steps=(1,), peak_lr=1e3)
    outcome = train(with_execution(job, background_checkpoints=True))
    assert outcome.status == "failed"
    assert "loss" in (outcome.reason or "")
    assert outcome.checkpoints == (1,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "execution", [pytest.param({"dp": 2, "zero_stage": 1}, id="zero1"), {"tp": 2}, {"pp": 2}]
)
def test_killed_ranks_resume_bit_identically(
    tmp_path: Path, stores: dict[str, Path], execution: dict[str, Any]
) -> None:
    undisturbed = with_execution(
        job_in(tmp_path / "undisturbed", stores, background=False), **execution
    )
    assert train(undisturbed).status == "done"
    job = with_execution(job_in(tmp_path / "killed", stores), **execution)
    killer = threading.Thread(target=_kill_ranks_at_a_checkpoint, args=(job,))
    killer.start()
    assert train(job).status == "failed"
    killer.join()
    assert train(job).status == "done", (job.directory / "worker.log").read_text()[-2000:]
    assert losses_of(job) == losses_of(undisturbed)
    assert checkpoint_steps(job.checkpoints_dir) == (4, 8, 12)


@pytest.mark.slow
def test_a_rank_that_cannot_write_ends_all_of_them(
    tmp_path: Path, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nanotron_trainer, "_WORKER", full_disk.__name__)
    job = with_execution(job_in(tmp_path, stores), dp=2)  # the first rank alone writes
    outcome = train(job)
    assert (outcome.status, outcome.checkpoints) == ("failed", ())
    assert "RuntimeError" in (outcome.reason or "")


def test_what_changes_after_the_copy_is_not_written(tmp_path: Path) -> None:
    saver = Saver(1, background=True)
    state = {"moments": [torch.zeros(3)], "step": 1}
    with saver.collected() as writes:
        torch.save(state, tmp_path / "state.pt")
    assert not (tmp_path / "state.pt").exists()
    state["moments"][0] += 1.0  # type: ignore[index]
    saver.finish(7, writes, (tmp_path / "complete").touch)
    assert saver.done(wait=True) == 7
    assert saver.done(wait=True) is None
    assert torch.load(tmp_path / "state.pt")["moments"][0].tolist() == [0.0] * 3
    assert (tmp_path / "complete").exists()


def test_an_error_of_the_thread_is_raised_once_and_nothing_is_completed(tmp_path: Path) -> None:
    saver = Saver(1, background=True)
    with saver.collected() as writes:
        torch.save({}, tmp_path / "no" / "such" / "folder.pt")
    saver.finish(7, writes, (tmp_path / "complete").touch)
    with pytest.raises(RuntimeError, match="does not exist"):
        saver.done(wait=True)
    assert saver.done(wait=True) is None
    assert not (tmp_path / "complete").exists()


def _kill_ranks_at_a_checkpoint(job: TrainJob) -> None:
    """Kill every rank as soon as step 9 is in the metrics: step 8 may be being written."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not rows_of(job).get(9):
        time.sleep(0.001)
    for process in psutil.Process().children(recursive=True):
        if "torchrun" in process.cmdline() or "rank" in process.cmdline():
            os.kill(process.pid, signal.SIGKILL)
