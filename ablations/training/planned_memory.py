"""Division of a batch and memory of a training on each kind of GPU; no GPU is needed."""

from __future__ import annotations

from dataclasses import dataclass

from ablations.errors import ConfigError
from ablations.training.batching import MicroBatching, on_cuda, plan_micro_batches
from ablations.training.memory import DEVICE_BYTES, Memory, memory_of
from ablations.training.specs import ExecutionSpec, ModelSpec, TrainingSpec
from ablations.training.vision import VisionLoad

__all__ = ["PlannedMemory", "planned_memory"]


@dataclass(frozen=True, kw_only=True)
class PlannedMemory:
    """Division of a batch for one rank, and the memory that it needs."""

    cut: MicroBatching
    memory: Memory


def planned_memory(
    model: ModelSpec,
    training: TrainingSpec,
    execution: ExecutionSpec,
    vision: VisionLoad | None = None,
) -> dict[str, PlannedMemory | str]:
    """Return GPU → the division of the batch that fits it and its memory, or the reason that none fits."""
    planned: dict[str, PlannedMemory | str] = {}
    for device, size in DEVICE_BYTES.items():
        asked = on_cuda(model, execution, size)
        try:
            cut = plan_micro_batches(model, training, asked, memory_bytes=size, vision=vision)
        except ConfigError as error:
            planned[device] = "; ".join(str(problem) for problem in error.problems)
            continue
        memory = memory_of(
            model,
            training,
            asked,
            micro_batch_size=cut.micro_batch_size,
            chunk_tokens=asked.loss_chunk_tokens,
            vision=vision,
        )
        planned[device] = PlannedMemory(cut=cut, memory=memory)
    return planned
