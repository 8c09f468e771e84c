from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.training.plan import activation_bytes, cut_batch, state_bytes, training_problems
from ablations.training.specs import ExecutionSpec, TrainingSpec
from tests.oracles.jobs import TINY

TRAINING: dict[str, Any] = {"sequence_length": 16, "batch_size": 8, "peak_lr": 1e-3}


@pytest.mark.parametrize(
    ("training", "execution", "where"),
    [
        ({"sequence_length": 65}, {}, "training.sequence_length"),
        ({}, {"dp": 3}, "training.batch_size"),
        ({}, {"dp": 2, "micro_batch_size": 3}, "execution.micro_batch_size"),
        ({}, {"tp": 4}, "model.num_key_value_heads"),
        ({}, {"pp": 3}, "execution.pp"),
    ],
)
def test_what_does_not_fit_together_is_named(
    training: dict[str, Any], execution: dict[str, Any], where: str
) -> None:
    spec = TrainingSpec(**{**TRAINING, **training})
    problems = training_problems(TINY, spec, ExecutionSpec(**execution))
    assert where in [problem.where for problem in problems]


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError):
        cut_batch(TINY, TrainingSpec(**TRAINING), ExecutionSpec(dp=3))


@given(batch=st.integers(1, 200), dp=st.sampled_from([1, 2, 4]), memory=st.integers(2**22, 2**34))
def test_a_cut_always_makes_the_batch(batch: int, dp: int, memory: int) -> None:
    training = TrainingSpec(**{**TRAINING, "batch_size": batch * dp})
    execution = ExecutionSpec(dp=dp)
    try:
        cut = cut_batch(TINY, training, execution, memory_bytes=memory)
    except ConfigError:
        assert activation_bytes(TINY, training, execution) > 0.9 * memory - state_bytes(
            TINY, training, execution
        )
        return
    assert cut.micro_batch_size * cut.micro_batches * dp == batch * dp
    used = cut.micro_batch_size * activation_bytes(TINY, training, execution)
    assert used + state_bytes(TINY, training, execution) <= memory


def test_a_pipeline_gets_a_micro_batch_for_every_rank() -> None:
    cut = cut_batch(TINY, TrainingSpec(**TRAINING), ExecutionSpec(pp=2))
    assert cut.micro_batches >= 2


def test_a_sample_too_large_for_the_device_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="recompute"):
        cut_batch(TINY, TrainingSpec(**TRAINING), ExecutionSpec(), memory_bytes=1000)


def test_recompute_and_chunks_shrink_activations() -> None:
    training = TrainingSpec(**{**TRAINING, "sequence_length": 64})
    whole = activation_bytes(TINY, training, ExecutionSpec())
    assert activation_bytes(TINY, training, ExecutionSpec(recompute=True)) < whole
    assert activation_bytes(TINY, training, ExecutionSpec(loss_chunk_tokens=8)) < whole


def test_zero_shares_the_optimisers_state() -> None:
    training = TrainingSpec(**TRAINING, dtype="bfloat16")
    alone = state_bytes(TINY, training, ExecutionSpec())
    shared = state_bytes(TINY, training, ExecutionSpec(dp=4, zero_stage=1))
    assert alone == 20 * TINY.parameters
    assert shared == 11 * TINY.parameters
