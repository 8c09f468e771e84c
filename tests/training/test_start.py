"""Start of a job, decided without torch: every rule, on checkpoints with one tensor each."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ablations.errors import CheckpointError
from ablations.training.checkpoints import CheckpointState, Topology, write_state
from ablations.training.resume import find_start
from ablations.training.train_job import TrainJob, WarmStart
from tests.oracles.jobs import TINY, make_job, with_execution

WINDOWS = ((24, 8), (0, 0))


def write_checkpoint(folder: Path, job: TrainJob, *, state: bool = True, **model: Any) -> Path:
    """Write what the decision reads of a checkpoint: the network's shape, the state, one tensor."""
    (folder / "model").mkdir(parents=True)
    save_file({"data": np.ones(4, np.float32)}, folder / "model" / "model_weight.safetensors")
    (folder / "checkpoint_metadata.json").write_text("{}")
    (folder / "model_config.json").write_text(json.dumps(asdict(job.model) | model))
    if state:
        notes = CheckpointState(
            step=4,
            samples=32,
            topology=Topology.of(job.execution, job.training.dtype),
            threads=3,
            micro_batch_size=8,
            windows=WINDOWS,
        )
        write_state(folder, notes)
    return folder


@pytest.fixture
def job(tmp_path: Path, stores: dict[str, Path]) -> TrainJob:
    return make_job(tmp_path / "run", stores, steps=12)


def warm(job: TrainJob, folder: Path, *, load_optimizer: bool = True) -> TrainJob:
    start = WarmStart(checkpoint=folder, load_optimizer=load_optimizer, first_step=8)
    return replace(job, warm_start=start)


def test_a_job_without_checkpoints_begins_at_its_beginning(job: TrainJob) -> None:
    start = find_start(job)
    assert (start.kind, start.step, start.checkpoint) == ("start", 0, None)
    assert (start.load_optimizer, start.threads, start.windows) == (False, None, None)


def test_a_job_continues_from_its_newest_checkpoint_and_its_state(job: TrainJob) -> None:
    for step in (4, 10, 8):
        write_checkpoint(job.checkpoints_dir / str(step), job)
    start = find_start(job)
    assert (start.kind, start.step) == ("resume", 10)
    assert start.checkpoint == job.checkpoints_dir / "10"
    assert (start.load_optimizer, start.threads, start.windows) == (True, 3, WINDOWS)


def test_its_own_checkpoint_is_preferred_to_a_warm_start(job: TrainJob, tmp_path: Path) -> None:
    write_checkpoint(job.checkpoints_dir / "10", job)
    other = write_checkpoint(tmp_path / "other" / "4", job)
    assert find_start(warm(job, other)).kind == "resume"


@pytest.mark.parametrize("load_optimizer", [True, False])
def test_a_warm_start_begins_at_the_step_that_it_names(
    job: TrainJob, tmp_path: Path, load_optimizer: bool
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job)
    start = find_start(warm(job, other, load_optimizer=load_optimizer))
    assert (start.kind, start.step, start.checkpoint) == ("warm_start", 8, other)
    assert start.load_optimizer is load_optimizer
    # The other run's windows and threads do not count for this one.
    assert (start.threads, start.windows) == (None, None)


@pytest.mark.parametrize(
    "name",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "tie_word_embeddings",
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_network_of_another_shape_is_refused_by_the_field(
    job: TrainJob, tmp_path: Path, name: str, own: bool
) -> None:
    value = getattr(TINY, name)
    other = {name: not value if isinstance(value, bool) else value * 2}
    folder = job.checkpoints_dir / "4" if own else tmp_path / "other" / "4"
    write_checkpoint(folder, job, **other)
    with pytest.raises(CheckpointError) as caught:
        find_start(job if own else warm(job, folder))
    assert [problem.where for problem in caught.value.problems] == [f"model.{name}"]


@pytest.mark.parametrize("name", ["rope_theta", "max_position_embeddings"])
def test_rotary_base_and_length_may_differ(job: TrainJob, tmp_path: Path, name: str) -> None:
    change: dict[str, Any] = {name: 7}
    other = write_checkpoint(tmp_path / "other" / "4", job, **change)
    assert find_start(warm(job, other)).checkpoint == other


@pytest.mark.parametrize(
    ("change", "where"),
    [({"tp": 2}, "execution.tp"), ({"dp": 2, "zero_stage": 1}, "execution.zero_stage")],
)
def test_an_optimiser_of_another_topology_is_refused_unless_only_weights_are_loaded(
    job: TrainJob, tmp_path: Path, change: dict[str, int], where: str
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job)
    cut = with_execution(job, **change)
    with pytest.raises(CheckpointError) as caught:
        find_start(warm(cut, other))
    assert where in [problem.where for problem in caught.value.problems]
    assert find_start(warm(cut, other, load_optimizer=False)).checkpoint == other


def test_an_optimiser_of_another_precision_is_refused(job: TrainJob) -> None:
    write_checkpoint(job.checkpoints_dir / "4", job)
    half = replace(job, training=replace(job.training, dtype="bfloat16"))
    with pytest.raises(CheckpointError, match=r"training\.dtype"):
        find_start(half)


def test_a_checkpoint_of_another_program_gives_its_weights_alone(
    job: TrainJob, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job, state=False)
    with pytest.raises(CheckpointError, match="does not record the ranks"):
        find_start(warm(job, other))
    assert find_start(warm(job, other, load_optimizer=False)).step == 8


def test_a_warm_start_from_a_torn_or_damaged_checkpoint_is_refused(
    job: TrainJob, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job)
    (other / "checkpoint_metadata.json").write_text("{ }")
    with pytest.raises(CheckpointError, match=r"warm_start\.checkpoint: damaged checkpoint"):
        find_start(warm(job, other))
    (other / "checkpoint_metadata.json").unlink()
    with pytest.raises(CheckpointError, match=r"warm_start\.checkpoint: incomplete"):
        find_start(warm(job, other))


def test_a_refused_optimiser_tells_what_to_do_instead(job: TrainJob, tmp_path: Path) -> None:
    cut = with_execution(job, tp=2)
    other = write_checkpoint(tmp_path / "other" / "4", job)
    with pytest.raises(CheckpointError, match="set it to 1 or leave its optimiser behind"):
        find_start(warm(cut, other))
    write_checkpoint(job.checkpoints_dir / "4", job)
    with pytest.raises(CheckpointError, match="set it to 1 or start another run"):
        find_start(cut)


@pytest.mark.parametrize("load_optimizer", [True, False])
def test_a_warm_start_compares_the_files_that_it_reads(
    job: TrainJob, tmp_path: Path, load_optimizer: bool
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job)
    (other / "checkpoint_metadata.json").write_text("{ }")  # not of the weights
    begins = warm(job, other, load_optimizer=load_optimizer)
    if load_optimizer:
        with pytest.raises(CheckpointError, match="damaged checkpoint"):
            find_start(begins)
    else:
        assert find_start(begins).checkpoint == other
    (other / "model" / "model_weight.safetensors").write_bytes(bytes(200))
    with pytest.raises(CheckpointError, match="warm_start"):
        find_start(begins)


def test_every_field_of_another_shape_is_named_with_both_values(
    job: TrainJob, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other" / "4", job, hidden_size=48, vocab_size=65)
    with pytest.raises(CheckpointError) as caught:
        find_start(warm(job, other))
    assert [(one.where, one.found, one.allowed) for one in caught.value.problems] == [
        ("model.vocab_size", 64, 65),
        ("model.hidden_size", 32, 48),
    ]
