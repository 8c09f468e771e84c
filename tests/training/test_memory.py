"""Estimated memory of a training, compared with what autograd keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablations.training.memory import Memory, memory_of
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.training_process import Task, run_in_worker
from tests.oracles.jobs import TINY, make_job

LENGTH, SAMPLES = 128, 2


def estimate(model: ModelSpec = TINY, *, dtype: str = "bfloat16", **execution: Any) -> Memory:
    chunk = execution.pop("chunk", None)
    training = TrainingSpec(
        sequence_length=LENGTH,
        batch_size=16,
        peak_lr=1e-3,
        dtype=dtype,  # type: ignore[arg-type]
    )
    return memory_of(
        model, training, ExecutionSpec(**execution), micro_batch_size=SAMPLES, chunk_tokens=chunk
    )


def kept_bytes(folder: Path, stores: dict[str, Path], spec: ModelSpec, dtype: str) -> int:
    """Return the bytes that autograd keeps between the passes of a real training, weights left out."""
    execution = ExecutionSpec(device="cpu", micro_batch_size=SAMPLES, loss_chunk_tokens=32)
    shape = {"sequence_length": LENGTH, "batch_size": 2 * SAMPLES, "dtype": dtype}
    job = make_job(folder, stores, model=spec, execution=execution, **shape)
    log = folder / "worker.log"
    task = Task(module="tests.oracles.kept", function="kept_bytes", argument=job, log=log)
    result = run_in_worker(task)
    assert result.value is not None, log.read_text()[-2000:]
    kept: int = result.value
    return kept


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_activations_are_what_autograd_keeps_or_somewhat_more(
    tmp_path: Path, stores: dict[str, Path], dtype: str, kv_heads: int
) -> None:
    spec = ModelSpec(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    planned = estimate(spec, dtype=dtype, chunk=32)
    kept = kept_bytes(tmp_path, stores, spec, dtype)
    assert kept <= planned.activations + planned.loss
    assert planned.activations < 1.35 * kept


def test_the_state_is_counted_by_the_byte() -> None:
    count = TINY.parameters
    plain = estimate(dtype="float32")
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * count, 4 * count, 8 * count)
    assert estimate().state == 20 * count
    assert estimate(dp=4, zero_stage=1).state == 11 * count
    assert estimate(tp=2).state == 10 * count


def test_recompute_and_chunks_shrink_what_is_kept() -> None:
    whole = estimate()
    assert estimate(recompute=True).activations < whole.activations
    assert estimate(chunk=8).loss < whole.loss
    assert estimate(chunk=10_000).loss == whole.loss


def test_a_compiled_loss_keeps_its_only_chunk_in_fewer_copies() -> None:
    whole = estimate(chunk=10_000)
    compiled = estimate(chunk=10_000, compile=True)
    output_matrix = 6 * TINY.vocab_size * TINY.hidden_size
    assert (compiled.loss - output_matrix) * 12 == 8 * whole.loss


def test_a_pipeline_keeps_the_micro_batches_in_flight() -> None:
    deep = replace(TINY, num_hidden_layers=32)
    one, ahead = estimate(deep).activations, estimate(deep, pp=2).activations
    assert ahead == pytest.approx(one, rel=0.1)  # half of the layers, two micro-batches at once
    assert estimate(deep, pp=2, pp_engine="afab").activations > 2 * ahead
