"""Initial weights: the same for a seed, whatever the topology.

nanotron 0.4 draws the same numbers on every tensor-parallel rank, so that its model at tp = 2 is
not its model at tp = 1. Here each full tensor has a generator of its own, keyed by (seed, name);
a rank keeps its slices.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch

from ablations.training.specs import ModelSpec

__all__ = ["initial_tensor", "initial_weights", "residual_std"]


def initial_tensor(name: str, shape: Sequence[int], *, std: float, seed: int) -> torch.Tensor:
    """The full float32 tensor ``name``: normal, mean 0, deviation ``std``."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
    return torch.empty([int(size) for size in shape], device="cpu", dtype=torch.float32).normal_(
        0.0, std, generator=generator
    )


def residual_std(std: float, layers: int) -> float:
    """Deviation of a matrix that writes into the residual stream (GPT-2: 2 · layers such writes)."""
    return std / math.sqrt(2 * layers)


def initial_weights(spec: ModelSpec, seed: int) -> dict[str, torch.Tensor]:
    """Every full tensor of a model, in the order and by the names that its checkpoints have."""
    width = (spec.num_attention_heads + 2 * spec.num_key_value_heads) * spec.head_dim
    std, small = (
        spec.initializer_range,
        residual_std(spec.initializer_range, spec.num_hidden_layers),
    )
    hidden, inner = spec.hidden_size, spec.intermediate_size
    shapes: dict[str, tuple[tuple[int, ...], float | None]] = {
        "embed.token_embedding": ((spec.vocab_size, hidden), std)
    }
    for layer in range(spec.num_hidden_layers):
        prefix = f"layers.{layer}."
        shapes |= {
            f"{prefix}input_layernorm": ((hidden,), None),
            f"{prefix}attn.qkv_proj": ((width, hidden), std),
            f"{prefix}attn.o_proj": ((hidden, hidden), small),
            f"{prefix}post_attention_layernorm": ((hidden,), None),
            f"{prefix}mlp.gate_up_proj": ((2 * inner, hidden), std),
            f"{prefix}mlp.down_proj": ((hidden, inner), small),
        }
    shapes["head.norm"] = ((hidden,), None)
    if not spec.tie_word_embeddings:
        shapes["head.lm_head"] = ((spec.vocab_size, hidden), std)
    return {
        f"{name}.weight": torch.ones(shape)
        if deviation is None
        else initial_tensor(f"{name}.weight", shape, std=deviation, seed=seed)
        for name, (shape, deviation) in shapes.items()
    }
