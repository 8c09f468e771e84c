"""What a training takes of one device's memory, part by part, before it runs; without torch.

    weights + gradients + optimiser            grows with the model
    activations                                with model × micro-batch
    loss                                       with vocabulary × chunk of tokens

Attention is taken to keep no [length, length] scores: the flash kernel under scaled_dot_product_attention,
or flex attention (packing.py). The counts are upper bounds of what eager autograd keeps, measured on
a CPU by tests/training/test_memory.py; a compiled layer keeps less. In bfloat16 a CPU itself keeps 8% more
than is counted: it computes norms in float32, where CUDA has one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec

__all__ = ["DEVICE_BYTES", "SHARING_PROCESS_BYTES", "USABLE_SHARE", "Memory", "memory_of"]

DEVICE_BYTES = {"H100 80 GB": 79 << 30, "H200 141 GB": 139 << 30}
"""Memory that CUDA reports of a device, rounded down to GiB."""

USABLE_SHARE = 0.9
"""A tenth stays free: the context, NCCL's and cuBLAS' buffers, the allocator's fragments."""

SHARING_PROCESS_BYTES = 3 << 29
"""What a process that shares a GPU takes beside its training: a context and libraries' buffers of its own. 16
processes planned for 4.4 GiB each took 5 to 6 of an H100, and ran out of its 79 (2026-11-26)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank."""

    weights: int
    """In the training's type, and their float32 copy."""
    gradients: int
    """In the training's type, and the float32 sum over micro-batches."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """Kept for the backward pass, of all micro-batches in flight."""
    loss: int
    """Logits and their gradient, and the gradient of the output matrix where the loss is cut in chunks."""

    @property
    def state(self) -> int:
        """What does not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it at once: the end of the forward pass."""
        return self.state + self.activations + self.loss


def memory_of(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    *,
    micro_batch_size: int,
    chunk_tokens: int | None,
) -> Memory:
    """The memory of one rank.

    Args:
        micro_batch_size: Samples of a forward pass.
        chunk_tokens: Tokens whose logits exist at once; None = all of a micro-batch.
    """
    weights, gradients, optimizer = _state(model, training, execution)
    flying = _in_flight(training, execution, micro_batch_size)
    samples = micro_batch_size * flying
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=samples * _activations_of_a_sample(model, training, execution),
        loss=_loss(model, training, execution, micro_batch_size, chunk_tokens),
    )


def _state(
    model: ModelSpec, training: TrainingSpec, execution: ExecutionSpec
) -> tuple[int, int, int]:
    """Bytes of weights, gradients, moments. ZeRO-1 shares the float32 copy and the moments over dp."""
    parameters = model.parameters / (execution.tp * execution.pp)
    share = parameters / (execution.dp if execution.zero_stage else 1)
    if training.dtype == "float32":
        return int(4 * parameters), int(4 * parameters), int(8 * share)
    if training.accumulate_grad_in_fp32:
        return int(2 * parameters + 4 * share), int(6 * parameters), int(8 * share)
    return int(2 * parameters), int(2 * parameters), int(4 * share)


def _in_flight(training: TrainingSpec, execution: ExecutionSpec, micro_batch_size: int) -> int:
    """Micro-batches whose activations a pipeline's first rank holds at once (arXiv 2104.04473)."""
    if execution.pp == 1:
        return 1
    count = max(1, training.batch_size // execution.dp // micro_batch_size)
    return count if execution.pp_engine == "afab" else min(count, execution.pp)


def _activations_of_a_sample(
    model: ModelSpec, training: TrainingSpec, execution: ExecutionSpec
) -> int:
    """Values a token that the layers keep: 11 widths, 3 of keys, 4 of the feed-forward in each layer.

    Norms' inputs and outputs (6), rotated queries and keys, the matrix of queries, keys and values, the mix
    and the output projection's input; gate, up, silu(gate) and their product. With ``recompute`` a layer
    keeps its input, and one layer at a time the rest. Before the first and after the last: 5 widths.
    """
    hidden = model.hidden_size
    keys = model.num_key_value_heads * model.head_dim
    layers = model.num_hidden_layers / execution.pp
    # Two values a head, and a few: the softmax' and the norms' statistics in float32.
    statistics = 2 * model.num_attention_heads + 8
    wide = 11 * hidden + 3 * keys + 4 * model.intermediate_size
    layer = (wide + statistics) / execution.tp
    kept = layers * hidden + layer if execution.recompute else layers * layer
    size = 4 if training.dtype == "float32" else 2
    return int(training.sequence_length * size * (kept + 5 * hidden))


def _loss(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    micro_batch_size: int,
    chunk_tokens: int | None,
) -> int:
    """Logits in float32, their gradient or probabilities, and a copy in the training's type.

    In chunks (loss.py) the softmax is taken in place, and the gradient of the output matrix exists in
    float32 from the first chunk on, then in the training's type.
    """
    tokens = micro_batch_size * training.sequence_length
    columns = model.vocab_size / execution.tp
    if chunk_tokens is None or chunk_tokens >= tokens or execution.tp > 1:
        return int(12 * tokens * columns)
    return int(8 * chunk_tokens * columns + 6 * columns * model.hidden_size)
