"""Initial weights, the same for a seed in every topology.

nanotron 0.4 draws the same numbers on every tensor-parallel rank, so that its model at tp = 2 differs
from its model at tp = 1. Here each full tensor has its own generator, seeded by (seed, name), and a rank
keeps its slices.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch

__all__ = ["initial_tensor", "residual_std"]


def initial_tensor(name: str, shape: Sequence[int], *, std: float, seed: int) -> torch.Tensor:
    """Draw the full float32 tensor ``name`` of ``shape``: normal, mean 0, deviation ``std``."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    return torch.empty([int(size) for size in shape], device="cpu", dtype=torch.float32).normal_(
        0.0, std, generator=generator
    )


def residual_std(std: float, layers: int) -> float:
    """Return the deviation of a matrix that adds to the residual stream (GPT-2: 2 · layers of them)."""
    return std / math.sqrt(2 * layers)
