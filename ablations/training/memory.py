"""Estimate of a training's memory on one device, part by part, without running it and without torch.

    weights + gradients + optimiser            grow with the model
    activations                                with model × micro-batch
    loss                                       with vocabulary × chunk of tokens

Attention is assumed to keep no [length, length] scores: the flash kernel under scaled_dot_product_attention,
or flex attention (packing.py). The counts are upper bounds of what eager autograd keeps, measured on
a CPU by tests/training/test_memory.py; a compiled layer keeps less. In bfloat16 a CPU keeps 8% more
than is counted, because it computes norms in float32; CUDA has one kernel for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.vision import VisionLoad

__all__ = [
    "DEVICE_BYTES",
    "SHARING_PROCESS_BYTES",
    "USABLE_SHARE",
    "Memory",
    "logits_bytes",
    "memory_of",
]

DEVICE_BYTES = {"H100 80 GB": 79 << 30, "H200 141 GB": 139 << 30}
"""Memory in bytes that CUDA reports for a device, rounded down to GiB."""

USABLE_SHARE = 0.9
"""Share of the memory to plan with; the rest is for the context, library buffers, and fragmentation."""

SHARING_PROCESS_BYTES = 3 << 29
"""Bytes that each process on a shared GPU takes in addition to its training, for its context and the
libraries' buffers. 16 processes planned for 4.4 GiB each took 5 to 6, and an H100's 79 GiB did not suffice
(2026-11-26)."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of one rank, in bytes."""

    weights: int
    """Weights in the training's type, and their float32 copy."""
    gradients: int
    """Gradients in the training's type, and their float32 sum over micro-batches."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """Activations kept for the backward pass, of all micro-batches in flight."""
    loss: int
    """Logits and their gradient; for a loss in chunks also the gradient of the output matrix."""

    @property
    def state(self) -> int:
        """Return the bytes that do not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """Return the peak, at the end of the forward pass: the sum of all parts."""
        return self.state + self.activations + self.loss


def memory_of(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    *,
    micro_batch_size: int,
    chunk_tokens: int | None,
    vision: VisionLoad | None = None,
) -> Memory:
    """Return the memory that one rank needs.

    Args:
        micro_batch_size: Samples of one forward pass.
        chunk_tokens: Tokens whose logits exist at once; None = all of a micro-batch.
        vision: The vision part, if there is one.
    """
    parameters = model.parameters + (vision.parameters if vision else 0)
    weights, gradients, optimizer = _state(parameters, training, execution)
    samples = micro_batch_size * _in_flight(training, execution, micro_batch_size)
    return Memory(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=samples
        * (_activations_of_a_sample(model, training, execution) + _of_pictures(vision, training)),
        loss=_loss(model, training, execution, micro_batch_size, chunk_tokens),
    )


def _of_pictures(vision: VisionLoad | None, training: TrainingSpec) -> int:
    """Return the bytes that the vision part keeps for the pictures of one sample."""
    size = 4 if training.dtype == "float32" else 2
    return size * vision.activations if vision else 0


def _state(
    parameters_of_all: int, training: TrainingSpec, execution: ExecutionSpec
) -> tuple[int, int, int]:
    """Return the bytes of weights, gradients and moments.

    ZeRO-1 shares the float32 copy and the moments over the dp ranks.
    """
    parameters = parameters_of_all / (execution.tp * execution.pp)
    share = parameters / (execution.dp if execution.zero_stage else 1)
    if training.dtype == "float32":
        return int(4 * parameters), int(4 * parameters), int(8 * share)
    if training.accumulate_grad_in_fp32:
        return int(2 * parameters + 4 * share), int(6 * parameters), int(8 * share)
    return int(2 * parameters), int(2 * parameters), int(4 * share)


def _in_flight(training: TrainingSpec, execution: ExecutionSpec, micro_batch_size: int) -> int:
    """Return the micro-batches whose activations a pipeline's first rank keeps at once (arXiv 2104.04473)."""
    if execution.pp == 1:
        return 1
    count = max(1, training.batch_size // execution.dp // micro_batch_size)
    return count if execution.pp_engine == "afab" else min(count, execution.pp)


def _activations_of_a_sample(
    model: ModelSpec, training: TrainingSpec, execution: ExecutionSpec
) -> int:
    """Return the bytes that the layers keep for one sample.

    For each token, a layer keeps 11 times the hidden width, 3 times the width of the keys, and 4 times that
    of the feed-forward: inputs and outputs of the norms (6), rotated queries and keys, the matrix of queries,
    keys and values, the attention's output and the output projection's input; gate, up, silu(gate) and their
    product. With ``recompute`` each layer keeps its input, and only one layer at a time keeps the rest.
    Before the first layer and after the last, 5 times the hidden width is kept.
    """
    hidden = model.hidden_size
    keys = model.num_key_value_heads * model.head_dim
    layers = model.num_hidden_layers / execution.pp
    # The statistics of softmax and norms are float32: two values for each head, and a few more.
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
    """Return the bytes of the logits: in float32, as gradient or probabilities, and in the training's type.

    In chunks (loss.py) the softmax is computed in place. The gradient of the output matrix exists in float32
    from the first chunk on, and at the end also in the training's type.
    """
    tokens = micro_batch_size * training.sequence_length
    columns = model.vocab_size / execution.tp
    whole = chunk_tokens is None or (chunk_tokens >= tokens and not execution.compile)
    if chunk_tokens is None or whole or execution.tp > 1:
        return int(12 * tokens * columns)
    chunk = logits_bytes(model, execution, min(chunk_tokens, tokens))
    return int(chunk + 6 * columns * model.hidden_size)


def logits_bytes(model: ModelSpec, execution: ExecutionSpec, chunk_tokens: int) -> int:
    """Return the bytes of a chunk's logits: in float32, and twice in the training's type."""
    return 8 * chunk_tokens * (model.vocab_size // execution.tp)
