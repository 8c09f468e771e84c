"""Optimizer steps without torch._dynamo, whose import takes 1.5 CPU-seconds.

torch's optimizers import it at their first call, only to exclude themselves from compilation, and they open
a profiler range at every step. A process that compiles nothing needs neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["bare_step", "spare_dynamo"]


def spare_dynamo() -> None:
    """Disable dynamo for AdamW's methods until this process ends, so that torch._dynamo is never imported.

    Do not call this in a process that compiles.
    """
    for kind in torch.optim.AdamW.__mro__:
        for member in vars(kind).values():
            code = getattr(member, "__code__", None)
            if code is not None and code.co_filename.endswith("_compile.py"):
                member.__wrapped__.__dynamo_disable = member.__wrapped__


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[[Any], Any]:
    """Return the optimizer's ``step`` without its wrappers; call it with the optimizer, under no_grad."""
    unwrapped: Callable[[Any], Any] = inspect.unwrap(type(optimizer).step)
    return unwrapped
