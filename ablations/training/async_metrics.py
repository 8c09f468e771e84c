"""Losses on their way from the device: read without making the device wait.

``loss.item()`` every step stops the queue of kernels, some 5% of a step of a small model on a GPU.
A reading is copied in the background, and looked at when it has arrived, or a few steps later; on a
CPU it is there at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

__all__ = ["Reading", "Readings"]

_MOST_BEHIND = 8
"""Steps that the host may be ahead of the losses it knows: a divergence is noticed that much later."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The numbers of one step."""

    step: int
    seconds: float
    """Wall time of the step, as the host saw it."""
    loss: float
    grad_norm: float


class Readings:
    """A queue of steps whose numbers may still be on the device."""

    def __init__(self) -> None:
        self._coming: deque[tuple[int, float, torch.Tensor, torch.cuda.Event | None]] = deque()

    def add(self, step: int, seconds: float, loss: torch.Tensor, norm: torch.Tensor) -> None:
        """Begin to read a step: its loss and its gradient's norm, scalars."""
        values = torch.stack([loss.detach().float(), norm.detach().float()])
        arrived = None
        if values.device.type == "cuda":
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            values = values.to("cpu", non_blocking=True)
            arrived.record()
        self._coming.append((step, seconds, values, arrived))

    def ready(self, *, everything: bool = False) -> Iterator[Reading]:
        """What has arrived, oldest first; waits for all that was added if ``everything``."""
        while self._coming:
            step, seconds, values, arrived = self._coming[0]
            if arrived is not None and not arrived.query():  # type: ignore[no-untyped-call]
                if not everything and len(self._coming) <= _MOST_BEHIND:
                    return
                arrived.synchronize()
            self._coming.popleft()
            loss, norm = values.tolist()
            yield Reading(step=step, seconds=seconds, loss=loss, grad_norm=norm)
