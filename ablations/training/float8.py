"""Matrix products of the decoder layers in float8, by torchao.

Each factor is scaled by its largest value and rounded to 8 bits before the product: e4m3 for inputs and
weights, e5m2 for gradients (arXiv 2209.05433). Weights, sums and everything outside the products keep their
types. torchao is imported by :func:`float8_product` alone: it takes two CPU-seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["float8_product"]


def float8_product(device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function of ``x`` [..., inputs] and ``weight`` [outputs, inputs]: ``x @ weight.T`` in float8.

    Only a GPU has such products (from compute capability 8.9 on). For any other device torchao rounds to
    float8 and multiplies in the type of ``x``: equal up to the order of sums, and slow.
    """
    from torchao.float8 import Float8LinearConfig
    from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args

    config = Float8LinearConfig(emulate=device.type != "cuda")
    # A layer of torchao replaces torch's; nanotron's layers are their own, so they take its product alone.
    like = Float8Linear(16, 16, bias=False, config=config, device="meta")
    products = like.linear_mm_config

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = matmul_with_hp_or_float8_args.apply(x, weight.t(), products, config)
        return result

    return product
