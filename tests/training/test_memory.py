"""The memory that a training is said to take, against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ablations.training.memory import Memory, memory_of
from ablations.training.packing import PositionMaker
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.together.model import StackedLlama
from tests.oracles.jobs import TINY

LENGTH, SAMPLES = 128, 2


def bill(model: ModelSpec = TINY, *, dtype: str = "bfloat16", **execution: Any) -> Memory:
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


def kept_bytes(spec: ModelSpec, dtype: torch.dtype) -> int:
    """Storage that autograd keeps between a forward and a backward pass, weights left out."""
    execution = ExecutionSpec(loss_chunk_tokens=32)
    model = StackedLlama.initial(spec, [0], execution, device=torch.device("cpu"), dtype=dtype)
    maker = PositionMaker(
        length=LENGTH, width=spec.head_dim, theta=1e4, eos_id=None, device="cpu", dtype=dtype
    )
    ids = torch.randint(0, spec.vocab_size, (1, SAMPLES, LENGTH))
    weights = {w.untyped_storage().data_ptr() for w in model.weights.values()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.losses(ids, ids, maker.of(ids.flatten(0, 1)))
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kv_heads", [1, 4])
def test_activations_are_what_autograd_keeps_or_somewhat_more(dtype: str, kv_heads: int) -> None:
    spec = ModelSpec(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    planned = bill(spec, dtype=dtype, chunk=32)
    kept = kept_bytes(spec, getattr(torch, dtype))
    assert kept <= planned.activations + planned.loss
    assert planned.activations < 1.35 * kept


def test_the_state_is_counted_by_the_byte() -> None:
    count = TINY.parameters
    plain = bill(dtype="float32")
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * count, 4 * count, 8 * count)
    assert bill().state == 20 * count
    assert bill(dp=4, zero_stage=1).state == 11 * count
    assert bill(tp=2).state == 10 * count


def test_recompute_and_chunks_shrink_what_is_kept() -> None:
    whole = bill()
    assert bill(recompute=True).activations < whole.activations
    assert bill(chunk=8).loss < whole.loss
    assert bill(chunk=10_000).loss == whole.loss


def test_a_pipeline_holds_the_micro_batches_in_flight() -> None:
    deep = replace(TINY, num_hidden_layers=32)
    one, ahead = bill(deep).activations, bill(deep, pp=2).activations
    assert ahead == pytest.approx(one, rel=0.1)  # half of the layers, two micro-batches at once
    assert bill(deep, pp=2, pp_engine="afab").activations > 2 * ahead
