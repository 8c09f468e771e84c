"""Copies of losses and gradient norms from the device that do not make the device wait.

``loss.item()`` at every step drains the queue of kernels: about 5% of a step of a small model on a GPU.
Here the numbers of a step are copied in the background. They are read when the copy is complete, or at
most a few steps later. On a CPU they are available at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["Reading", "Readings"]

_MOST_BEHIND = 8
"""Steps that the host may be ahead of the losses read; a divergence is noticed that much later."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Numbers of one step."""

    step: int
    seconds: float
    """Wall time of the step, measured on the host."""
    loss: float
    grad_norm: float


class Readings:
    """Queue of steps whose numbers may still be on the device."""

    def __init__(self) -> None:
        self._coming: deque[tuple[int, float, torch.Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, seconds: float, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Begin to copy the loss and the gradient norm of a step (scalar tensors) to the host."""
        values = torch.stack([loss.detach().float(), norm.detach().float()])
        arrived = None
        if values.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            values = values.to("cpu", non_blocking=True)
            arrived.record()
        self._coming.append((step, seconds, values, arrived))

    def ready(self, *, everything: bool = False) -> Iterator[Reading]:
        """Yield readings whose copy is complete, oldest first; if ``everything``, wait for all of them."""
        while self._coming:
            step, seconds, values, arrived = self._coming[0]
            if arrived is not None and not arrived.query():  # type: ignore[no-untyped-call]
                if not everything and len(self._coming) <= _MOST_BEHIND:
                    return
                arrived.synchronize()
            self._coming.popleft()
            loss, norm = values.tolist()
            yield Reading(step=step, seconds=seconds, loss=loss, grad_norm=norm)
