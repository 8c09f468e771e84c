"""A first stage that trainings with pictures share: bits, counts, rates, and what has a trunk of its own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.files import read_json_lines
from ablations.mixture.mixture import Mixture
from ablations.mixture.schedule import LearningRate, Stage
from ablations.training.checkpoints import read_state
from ablations.training.train_job import TrainJob
from ablations.training.trainers import trainer_of
from ablations.training.trunk import Trunk, adopt, trunk_of
from tests.oracles.chats import write_base_model
from tests.oracles.vision_rows import make_vision_job, prepare_three_kinds

WARM_UP = Stage(name="warm_up", steps=5, mixture=Mixture({"squares": 1.0}))
DIGESTS = {"squares": "a", "short": "b", "prose": "c"}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_three_kinds(tmp_path_factory.mktemp("vlm_data"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base_model(tmp_path_factory.mktemp("base") / "model")


def arm(folder: Path, stores: dict[str, Path], base: Path, text: float, **values: Any) -> TrainJob:
    """Return a job of five steps of warm-up and five of a mixture, over which the learning rate decays."""
    mixture = Mixture({"squares": 1 - text, "prose": text})
    stages = (WARM_UP, Stage(name="last", steps=5, mixture=mixture))
    job = make_vision_job(folder, stores, base, stages=stages, **values)
    rate = LearningRate(peak=1e-2, warmup_steps=2, decay_steps=5, total_steps=10)
    return replace(job, learning_rate=rate)


def trunk(job: TrainJob, folder: Path) -> Trunk:
    return trunk_of(job, 5, DIGESTS, folder)


def test_trainings_that_share_a_trunk_are_those_trained_alone(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    arms = {text: arm(tmp_path / f"alone_{text}", stores, base, text) for text in (0.2, 0.6)}
    shared = trunk(arms[0.2], tmp_path / "trunks")
    assert trunk(arms[0.6], tmp_path / "trunks").key == shared.key
    assert trainer_of(shared.job.method).train(shared.job).status == "done"
    for text, alone in arms.items():
        whole = trainer_of(alone.method).train(alone)
        job = replace(alone, directory=tmp_path / f"shared_{text}")
        adopt(job, shared)
        outcome = trainer_of(job.method).train(job)
        assert outcome.status == "done", outcome.reason
        for name in ("model.safetensors", "optimizer.pt"):
            ours, theirs = (
                (one.checkpoints_dir / f"10/{name}").read_bytes() for one in (job, alone)
            )
            assert ours == theirs, name
        assert (outcome.windows, outcome.supervised) == (whole.windows, whole.supervised)
        rows = [list(read_json_lines(one.directory / "metrics.jsonl")) for one in (job, alone)]
        kept = [[(r["step"], r["loss"], r["lr"], r["grad_norm"]) for r in each] for each in rows]
        assert kept[0] == kept[1]
        state = read_state(job.checkpoints_dir / "10")
        assert state is not None
        assert len(state.windows) == 2


def test_a_killed_training_goes_on_after_its_trunk(
    stores: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    alone = arm(tmp_path / "alone", stores, base, 0.6)
    assert trainer_of(alone.method).train(alone).status == "done"
    shared = trunk(alone, tmp_path / "trunks")
    assert trainer_of(shared.job.method).train(shared.job).status == "done"
    training = replace(alone.training, recovery_interval_steps=2)
    job = replace(alone, directory=tmp_path / "shared", training=training)
    adopt(job, shared)
    assert trainer_of(job.method).train(job).status == "done"
    shutil.rmtree(job.checkpoints_dir / "10")
    assert trainer_of(job.method).train(job).status == "done"
    name = "10/model.safetensors"
    assert (job.checkpoints_dir / name).read_bytes() == (alone.checkpoints_dir / name).read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda job, other: replace(job, start_model=str(other)),
        lambda job, other: replace(job, most_pictures=7),
        lambda job, other: replace(job, method=replace(job.method, loss="all")),
        lambda job, other: replace(job, method=replace(job.method, unit="tokens")),
        lambda job, other: replace(job, training=replace(job.training, peak_lr=1e-3)),
    ],
)
def test_what_changes_the_first_steps_has_a_trunk_of_its_own(
    stores: dict[str, Path], base: Path, tmp_path: Path, change: Any
) -> None:
    job = arm(tmp_path / "run", stores, base, 0.2)
    other = write_base_model(tmp_path / "other", seed=1)
    assert trunk(change(job, other), tmp_path).key != trunk(job, tmp_path).key
    same = shutil.copytree(base, tmp_path / "same")
    moved = replace(job, start_model=str(same))
    assert trunk(moved, tmp_path).key == trunk(job, tmp_path).key
