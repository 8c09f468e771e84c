"""Division of a batch over ranks and micro-batches, and the rules that forbid one.

    batch_size = dp · micro_batch_size · micro-batches

``training_problems`` checks a model, a training and an execution together, for the rules that involve more
than one of them. Torch is not imported, because ``ablate plan`` uses this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ablations.errors import ConfigError, Problem
from ablations.quantities import memory_size
from ablations.training.memory import USABLE_SHARE, logits_bytes, memory_of
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.vision import VisionLoad

__all__ = [
    "CUDA_LOSS_CHUNK_TOKENS",
    "MicroBatching",
    "on_cuda",
    "plan_micro_batches",
    "training_problems",
]

CUDA_LOSS_CHUNK_TOKENS = (16_384, 8192, 4096)
"""Tokens of a loss chunk on CUDA if the config gives none: the first whose logits take at most
``_LOSS_CHUNK_SHARE`` of the device's memory. At a vocabulary of 49,152, head and loss took 8 to 9% less time
in chunks of 16,384 tokens than of 4,096, at widths from 256 to 2,048 (H200, docs/gpu.md)."""

_LOSS_CHUNK_SHARE = 1 / 12
"""6.4 GB for 16,384 tokens of 49,152 logits: within a GPU of 80 GB, and not within a quarter of one."""

_FLOAT8_MULTIPLE = 16
"""Every side of a float8 product on a GPU must be a multiple of it (torch._scaled_mm)."""

CPU_ACTIVATION_BYTES = 1 << 30
"""Memory for the activations of a micro-batch on a CPU. It does not depend on the host, so that a batch is
divided, and its losses are rounded, in the same way on every machine."""


@dataclass(frozen=True, kw_only=True)
class MicroBatching:
    """Division of one data-parallel rank's share of a batch."""

    micro_batch_size: int
    """Samples of one forward pass."""
    micro_batches: int
    """Forward passes of one step."""


def training_problems(
    model: ModelSpec, training: TrainingSpec, execution: ExecutionSpec
) -> list[Problem]:
    """Return every rule that model, training and execution break together; empty if they fit."""
    return [
        *_length_problems(model, training),
        *_batch_problems(training, execution),
        *_rank_problems(model, execution),
        *_float8_problems(model, training, execution),
    ]


def _length_problems(model: ModelSpec, training: TrainingSpec) -> list[Problem]:
    if training.sequence_length <= model.max_position_embeddings:
        return []
    return [
        Problem(
            "training.sequence_length",
            "longer than the model's positions",
            found=training.sequence_length,
            allowed=f"at most {model.max_position_embeddings}",
            do="raise model.max_position_embeddings",
        )
    ]


def _float8_problems(
    model: ModelSpec, training: TrainingSpec, execution: ExecutionSpec
) -> Iterator[Problem]:
    if not training.float8:
        return
    where = "training.float8"
    if training.dtype == "float32":
        yield Problem(where, "is for dtype=bfloat16", found="float32", do="set training.dtype=auto")
    if execution.tp > 1:
        yield Problem(
            where,
            "is not for matrices divided over ranks",
            found=execution.tp,
            do="set execution.tp=1",
        )
    sides = {
        "model.hidden_size": model.hidden_size,
        "model.intermediate_size": model.intermediate_size,
        "model.num_attention_heads": model.head_dim,
        "training.sequence_length": training.sequence_length,
    }
    for name, size in sides.items():
        if size % _FLOAT8_MULTIPLE:
            yield Problem(
                name,
                "not a size that training.float8 can multiply",
                found=f"{size} wide heads" if name.endswith("heads") else size,
                allowed=f"a multiple of {_FLOAT8_MULTIPLE}",
            )


def _batch_problems(training: TrainingSpec, execution: ExecutionSpec) -> list[Problem]:
    batch, dp, micro = training.batch_size, execution.dp, execution.micro_batch_size
    if batch % dp:
        return [
            Problem(
                "training.batch_size",
                "not divisible over the data-parallel ranks",
                found=f"{batch} over execution.dp = {dp}",
                allowed=f"a multiple of {dp}",
            )
        ]
    if micro and (batch // dp) % micro:
        return [
            Problem(
                "execution.micro_batch_size",
                "does not divide a rank's share of the batch",
                found=f"{batch} / {dp} over {micro}",
                allowed=f"a divisor of {batch // dp}",
            )
        ]
    return []


def _rank_problems(model: ModelSpec, execution: ExecutionSpec) -> list[Problem]:
    tp, pp = execution.tp, execution.pp
    split = {
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_size,
    }
    problems = [
        Problem(
            f"model.{name}",
            "not divisible over the tensor-parallel ranks",
            found=f"{size} over execution.tp = {tp}",
            allowed=f"a multiple of {tp}",
        )
        for name, size in split.items()
        if size % tp
    ]
    if pp > model.num_hidden_layers:
        problems.append(
            Problem(
                "execution.pp",
                "more pipeline ranks than layers",
                found=pp,
                allowed=f"at most {model.num_hidden_layers}",
            )
        )
    return problems


def on_cuda(model: ModelSpec, execution: ExecutionSpec, memory_bytes: int) -> ExecutionSpec:
    """Return the execution with CUDA's defaults for the fields that it leaves open.

    Args:
        memory_bytes: Memory of one device.
    """
    if execution.loss_chunk_tokens is not None:
        return execution
    fitting = (
        chunk
        for chunk in CUDA_LOSS_CHUNK_TOKENS
        if logits_bytes(model, execution, chunk) <= _LOSS_CHUNK_SHARE * memory_bytes
    )
    return replace(execution, loss_chunk_tokens=next(fitting, CUDA_LOSS_CHUNK_TOKENS[-1]))


def plan_micro_batches(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    *,
    memory_bytes: int | None = None,
    vision: VisionLoad | None = None,
) -> MicroBatching:
    """Return the configured micro-batch, or the largest that fits.

    Args:
        memory_bytes: Memory of one device; None = the fixed allowance for activations on a CPU.
        vision: The vision part, if there is one.

    Raises:
        ConfigError: the batch cannot be divided as configured, or not even one sample fits.
    """
    if problems := training_problems(model, training, execution):
        raise ConfigError(problems)
    share = training.batch_size // execution.dp
    # A pipeline of pp ranks needs at least pp micro-batches to keep every rank busy.
    most = max(1, share // execution.pp)
    micro = execution.micro_batch_size or _largest(
        model, training, execution, most, memory_bytes, vision
    )
    return MicroBatching(micro_batch_size=micro, micro_batches=share // micro)


def _largest(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    most: int,
    memory_bytes: int | None,
    vision: VisionLoad | None,
) -> int:
    share = training.batch_size // execution.dp
    sizes = [n for n in range(1, most + 1) if share % n == 0]
    chunk = execution.loss_chunk_tokens
    needed = {
        n: memory_of(
            model, training, execution, micro_batch_size=n, chunk_tokens=chunk, vision=vision
        )
        for n in sizes
    }
    if memory_bytes is None:
        fits = [n for n in sizes if needed[n].activations + needed[n].loss <= CPU_ACTIVATION_BYTES]
        return fits[-1] if fits else 1
    usable = int(USABLE_SHARE * memory_bytes)
    fits = [n for n in sizes if needed[n].total <= usable]
    if not fits:
        one = needed[1]
        raise ConfigError(
            Problem(
                "execution.micro_batch_size",
                "not one sample fits in the device's memory",
                found=f"{memory_size(one.activations + one.loss)} per sample, plus "
                f"{memory_size(one.state)} of weights, gradients and optimiser",
                allowed=memory_size(usable),
                do="set execution.recompute=true, raise execution.tp or pp, or zero_stage=1",
            )
        )
    return fits[-1]
