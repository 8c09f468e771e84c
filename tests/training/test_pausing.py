"""A training that pauses at a checkpoint and goes on is the one that never paused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ablations.errors import ConfigError
from ablations.training.checkpoints import checkpoint_steps
from ablations.training.nanotron.nanotron_trainer import NanotronTrainer
from ablations.training.train_job import TrainJob
from tests.oracles.jobs import kinds_of, losses_of, make_job

torch.set_num_threads(1)


def weights(job: TrainJob) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    folder = job.checkpoints_dir / "12" / "model"
    return {
        f"{f.parent}/{k}": v for f in folder.rglob("*.safetensors") for k, v in load_file(f).items()
    }


def test_a_paused_training_goes_on_with_the_same_losses_and_weights(
    tmp_path: Path, stores: dict[str, Path]
) -> None:
    whole = make_job(tmp_path / "whole", stores, steps=12, checkpoint_steps=(4, 12))
    assert NanotronTrainer().train(whole).status == "done"
    job = make_job(tmp_path / "paused", stores, steps=12, checkpoint_steps=(4, 12))
    early = replace(job, stop_step=4)
    outcome = NanotronTrainer().train(early)
    assert (outcome.status, outcome.last_step) == ("done", 4)
    assert outcome.windows == ((24, 8), (0, 0)), "the second stage has not begun"
    assert checkpoint_steps(job.checkpoints_dir) == (4,)
    before = (job.directory / "metrics.jsonl").read_bytes()
    assert NanotronTrainer().train(early).last_step == 4
    assert (job.directory / "metrics.jsonl").read_bytes() == before, "a pause is not trained twice"
    outcome = NanotronTrainer().train(job)
    assert outcome.last_step == 12
    assert kinds_of(job) == ["start", "checkpoint", "resume", "checkpoint"]
    assert losses_of(job) == losses_of(whole)
    ours = {name.rpartition("/checkpoints/")[2]: tensor for name, tensor in weights(job).items()}
    theirs = {
        name.rpartition("/checkpoints/")[2]: tensor for name, tensor in weights(whole).items()
    }
    assert ours.keys() == theirs.keys()
    assert len(ours) > 3
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_pause_that_is_no_checkpoint_is_refused(tmp_path: Path, stores: dict[str, Path]) -> None:
    job = make_job(tmp_path, stores, steps=12, checkpoint_steps=(4, 12))
    with pytest.raises(ConfigError, match="not at a checkpoint of the run"):
        replace(job, stop_step=5)
