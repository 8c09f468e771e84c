from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablations.errors import ConfigError
from ablations.training.batching import on_cuda, plan_micro_batches, training_problems
from ablations.training.memory import memory_of
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
def test_a_setting_that_does_not_fit_is_named(
    training: dict[str, Any], execution: dict[str, Any], where: str
) -> None:
    spec = TrainingSpec(**{**TRAINING, **training})
    problems = training_problems(TINY, spec, ExecutionSpec(**execution))
    assert where in [problem.where for problem in problems]


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ConfigError):
        plan_micro_batches(TINY, TrainingSpec(**TRAINING), ExecutionSpec(dp=3))


@given(batch=st.integers(1, 200), dp=st.sampled_from([1, 2, 4]), memory=st.integers(2**22, 2**34))
def test_a_cut_always_makes_the_batch_and_fits(batch: int, dp: int, memory: int) -> None:
    training = TrainingSpec(**{**TRAINING, "batch_size": batch * dp})
    execution = ExecutionSpec(dp=dp)

    def needed(micro: int) -> int:
        return memory_of(TINY, training, execution, micro_batch_size=micro, chunk_tokens=None).total

    try:
        cut = plan_micro_batches(TINY, training, execution, memory_bytes=memory)
    except ConfigError:
        assert needed(1) > 0.89 * memory
        return
    assert cut.micro_batch_size * cut.micro_batches * dp == batch * dp
    assert needed(cut.micro_batch_size) <= memory


def test_a_pipeline_gets_a_micro_batch_for_every_rank() -> None:
    cut = plan_micro_batches(TINY, TrainingSpec(**TRAINING), ExecutionSpec(pp=2))
    assert cut.micro_batches >= 2


def test_a_sample_too_large_for_the_device_is_refused_with_advice() -> None:
    with pytest.raises(ConfigError, match="recompute"):
        plan_micro_batches(TINY, TrainingSpec(**TRAINING), ExecutionSpec(), memory_bytes=1000)


@pytest.mark.parametrize(
    ("asked", "gib", "tp", "chunk"),
    [
        (None, 79, 1, 16_384),
        (None, 40, 1, 8192),
        (None, 40, 2, 16_384),
        (None, 20, 1, 4096),
        (None, 3, 1, 4096),
        (777, 79, 1, 777),
    ],
)
def test_a_loss_on_cuda_takes_the_longest_chunk_that_a_small_part_of_the_memory_holds(
    asked: int | None, gib: int, tp: int, chunk: int
) -> None:
    model = replace(TINY, vocab_size=49_152)
    execution = ExecutionSpec(tp=tp, loss_chunk_tokens=asked)
    assert on_cuda(model, execution, gib << 30).loss_chunk_tokens == chunk
