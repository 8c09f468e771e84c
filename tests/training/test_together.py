"""Proxies trained as one batched model: the same losses, checkpoints and failures as each alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ablations.errors import ConfigError
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import Stage
from ablations.training.checkpoints import checkpoint_steps
from ablations.training.export import read_weights
from ablations.training.nanotron.trainer import NanotronTrainer
from ablations.training.together.trainer import train_together
from ablations.training.trainer import TrainJob
from tests.oracles.jobs import TINY, kinds_of, losses_of, make_job, with_execution

STEPS = 10


def swarm(folder: Path, stores: dict[str, Path], count: int = 3, **values: Any) -> list[TrainJob]:
    """Jobs of one shape with mixtures and seeds of their own."""
    jobs = []
    for k in range(count):
        job = make_job(
            folder / str(k),
            stores,
            steps=STEPS,
            seed=k,
            **{"peak_lr": 3e-3, "checkpoint_steps": (5,), **values},
        )
        mixture = Mixture({"web": 0.25 * (k + 1), "code": 1 - 0.25 * (k + 1)})
        stages = (Stage(name="only", steps=STEPS, mixture=mixture),)
        jobs.append(replace(job, schedule=replace(job.schedule, stages=stages)))
    return jobs


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({}, id="plain"),
        pytest.param({"intra_document_masking": True}, id="masked"),
        pytest.param({"model": replace(TINY, tie_word_embeddings=False)}, id="head not tied"),
    ],
)
def test_each_proxy_has_the_losses_it_has_alone(
    tmp_path: Path, stores: dict[str, Path], values: dict[str, Any]
) -> None:
    together = swarm(tmp_path / "together", stores, **values)
    alone = swarm(tmp_path / "alone", stores, **values)
    outcomes = train_together([with_execution(job, micro_batch_size=4) for job in together])
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    for one, other, outcome in zip(together, alone, outcomes, strict=True):
        expected = NanotronTrainer().train(other)
        assert losses_of(one) == pytest.approx(losses_of(other), rel=1e-6)
        assert outcome.windows == expected.windows
        assert outcome.checkpoints == (5, 10)
        mine, theirs = (read_weights(each.checkpoints_dir / "10") for each in (one, other))
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_bfloat16_is_that_of_each_alone(tmp_path: Path, stores: dict[str, Path]) -> None:
    together = swarm(tmp_path / "together", stores, 2, dtype="bfloat16")
    train_together(together)
    for one, other in zip(
        together, swarm(tmp_path / "alone", stores, 2, dtype="bfloat16"), strict=True
    ):
        NanotronTrainer().train(other)
        assert losses_of(one) == pytest.approx(losses_of(other), rel=3e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nanotron_goes_on_from_a_groups_checkpoint(
    tmp_path: Path, stores: dict[str, Path], dtype: str
) -> None:
    together = swarm(tmp_path, stores, 2, dtype=dtype)
    train_together(together)
    job = together[1]
    before = losses_of(job)
    (job.checkpoints_dir / "10" / "model_config.json").unlink()
    assert NanotronTrainer().train(job).status == "done"
    assert "resume" in kinds_of(job)
    assert losses_of(job) == pytest.approx(before, rel=1e-6 if dtype == "float32" else 3e-3)


def test_a_group_goes_on_from_its_newest_common_step(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    jobs = swarm(tmp_path, stores)
    train_together(jobs)
    before = [losses_of(job) for job in jobs]
    (jobs[2].checkpoints_dir / "10" / "model_config.json").unlink()
    outcomes = train_together(jobs)
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert [losses_of(job) for job in jobs] == before
    assert kinds_of(jobs[2]).count("resume") == 1
    assert checkpoint_steps(jobs[2].checkpoints_dir) == (5, 10)
    assert train_together(jobs) == [NanotronTrainer().train(job) for job in jobs]


def test_proxies_that_diverge_fail_with_their_steps(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    jobs = swarm(tmp_path, stores, 2, spike_window_steps=2)
    broken = replace(jobs[0].training, diverged_ratio=0.99, diverged_patience_steps=2)
    outcomes = train_together([replace(job, training=broken) for job in jobs])
    assert {outcome.status for outcome in outcomes} == {"failed"}
    assert all(outcome.last_step < STEPS for outcome in outcomes)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"model": replace(TINY, num_hidden_layers=1)}, "model"),
        ({"checkpoint_steps": (3,)}, "checkpoint_steps"),
    ],
)
def test_jobs_of_another_shape_are_refused(
    tmp_path: Path, stores: dict[str, Path], change: dict[str, Any], where: str
) -> None:
    jobs = swarm(tmp_path, stores, 2)
    with pytest.raises(ConfigError, match=where):
        train_together([jobs[0], replace(jobs[1], **change)])


def test_several_ranks_are_refused_for_a_group(tmp_path: Path, stores: dict[str, Path]) -> None:
    jobs = [with_execution(job, dp=2) for job in swarm(tmp_path, stores, 2)]
    with pytest.raises(ConfigError, match="one rank"):
        train_together(jobs)


def test_no_jobs_train_to_nothing() -> None:
    assert train_together([]) == []
