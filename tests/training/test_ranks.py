"""Several ranks (gloo, torchrun): the same losses, samples, checkpoints and exports as one."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from ablations.config.schema import load
from ablations.errors import CheckpointError
from ablations.training.export import read_weights
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.train_job import TrainJob
from tests.oracles.jobs import TINY, kinds_of, losses_of, make_job, rows_of, with_execution
from tests.test_conf import composed

pytestmark = pytest.mark.slow

STEPS = 10


def job_of(folder: Path, stores: dict[str, Path], **execution: Any) -> TrainJob:
    training = {"dtype": execution.pop("dtype", "float32")}
    job = make_job(folder, stores, steps=STEPS, peak_lr=3e-3, checkpoint_steps=(5,), **training)
    return with_execution(job, **execution)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, stores: dict[str, Path]) -> TrainJob:
    job = job_of(tmp_path_factory.mktemp("alone"), stores)
    assert NanotronTrainer().train(job).status == "done"
    return job


@pytest.mark.parametrize(
    "execution",
    [
        pytest.param({"dp": 2}, id="dp2"),
        pytest.param({"tp": 2}, id="tp2"),
        pytest.param({"pp": 2}, id="pp2-1f1b"),
        pytest.param({"pp": 2, "pp_engine": "afab", "micro_batch_size": 2}, id="pp2-afab"),
        pytest.param({"dp": 2, "zero_stage": 1, "micro_batch_size": 2}, id="zero1"),
    ],
)
def test_ranks_change_neither_losses_nor_samples_nor_weights(
    tmp_path: Path, stores: dict[str, Path], alone: TrainJob, execution: dict[str, Any]
) -> None:
    job = job_of(tmp_path, stores, **execution)
    outcome = NanotronTrainer().train(job)
    assert outcome.status == "done", (tmp_path / "worker.log").read_text()[-2000:]
    assert losses_of(job) == pytest.approx(losses_of(alone), rel=1e-6)
    assert outcome.windows == ((30, 10), (10, 30))
    mine, theirs = (read_weights(each.checkpoints_dir / "10") for each in (job, alone))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["gpu8", "gpu8_tp2", "gpu8_pp2"])
def test_the_shipped_executions_of_a_node_train_as_one_rank(
    tmp_path: Path, stores: dict[str, Path], alone: TrainJob, name: str
) -> None:
    """Train each with two data-parallel ranks in place of its four or eight, on gloo."""
    run = load(composed("experiment=smollm2_1b7", f"execution={name}"))
    execution = replace(run.execution, device="cpu", threads=1, dp=2)
    job = replace(job_of(tmp_path, stores), execution=execution)
    outcome = NanotronTrainer().train(job)
    assert outcome.status == "done", (tmp_path / "worker.log").read_text()[-2000:]
    assert losses_of(job) == pytest.approx(losses_of(alone), rel=1e-6)


def test_bfloat16_with_shared_optimiser_is_that_of_one_rank(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    one = job_of(tmp_path / "one", stores, dtype="bfloat16", micro_batch_size=4)
    two = job_of(tmp_path / "two", stores, dtype="bfloat16", dp=2, zero_stage=1)
    for job in (one, two):
        assert NanotronTrainer().train(job).status == "done"
    assert losses_of(two) == pytest.approx(losses_of(one), rel=3e-3)


@pytest.mark.parametrize(
    "execution",
    [pytest.param({"dp": 2, "zero_stage": 1}, id="zero1"), pytest.param({"tp": 2}, id="tp2")],
)
def test_killed_ranks_resume_bit_identically(
    tmp_path: Path, stores: dict[str, Path], execution: dict[str, Any]
) -> None:
    undisturbed = job_of(tmp_path / "undisturbed", stores, **execution)
    assert NanotronTrainer().train(undisturbed).status == "done"
    job = job_of(tmp_path / "killed", stores, **execution)
    killer = threading.Thread(target=_kill_ranks_after_checkpoint, args=(job,))
    killer.start()
    assert NanotronTrainer().train(job).status == "failed"
    killer.join()
    assert 5 <= max(rows_of(job)) < STEPS
    assert NanotronTrainer().train(job).status == "done"
    assert "resume" in kinds_of(job)
    assert losses_of(job) == losses_of(undisturbed)
    other = with_execution(job, tp=1, dp=1, zero_stage=0)
    with pytest.raises(CheckpointError, match=r"execution\."):
        NanotronTrainer().train(other)


def test_four_killed_ranks_resume_bit_identically(tmp_path: Path, stores: dict[str, Path]) -> None:
    """Sum gradients of four ranks in the same order: two ranks have one order, a small model one bucket."""
    wide = replace(TINY, hidden_size=128, intermediate_size=512, num_hidden_layers=3)

    def job_in(folder: Path) -> TrainJob:
        made = make_job(
            folder, stores, steps=STEPS, peak_lr=3e-3, checkpoint_steps=(5,), model=wide
        )
        return with_execution(made, dp=4)

    undisturbed, job = job_in(tmp_path / "undisturbed"), job_in(tmp_path / "killed")
    assert NanotronTrainer().train(undisturbed).status == "done"
    killer = threading.Thread(target=_kill_ranks_after_checkpoint, args=(job,))
    killer.start()
    assert NanotronTrainer().train(job).status == "failed"
    killer.join()
    assert 5 <= max(rows_of(job)) < STEPS
    assert NanotronTrainer().train(job).status == "done"
    assert "resume" in kinds_of(job)
    assert losses_of(job) == losses_of(undisturbed)


def test_a_refusal_on_the_ranks_reaches_the_caller(tmp_path: Path, stores: dict[str, Path]) -> None:
    job = make_job(tmp_path, stores, steps=40, peak_lr=1e3, diverged_patience_steps=3)
    outcome = NanotronTrainer().train(with_execution(job, dp=2))
    assert outcome.status == "failed"
    assert "loss" in (outcome.reason or "")


def _kill_ranks_after_checkpoint(job: TrainJob) -> None:
    """Kill every process of the training as soon as step 6 is in the metrics."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if rows_of(job).get(6):
            break
        time.sleep(0.001)
    for process in psutil.Process().children(recursive=True):
        if "torchrun" in process.cmdline() or "rank" in process.cmdline():
            os.kill(process.pid, signal.SIGKILL)
