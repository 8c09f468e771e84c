"""Keys and values of a prefix, computed once and read by every row of many batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

__all__ = ["growing", "read_only"]


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer that every row attends to; rows' own ones are not kept."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the prefix and the given states, joined for each row: (rows, heads, length, size)."""
        rows = len(key_states)
        return (
            torch.cat([self.keys.expand(rows, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(rows, -1, -1, -1), value_states], dim=-2),
        )


def read_only(filled: DynamicCache) -> Cache:
    """Return the keys and values of ``filled`` (one row) as a prefix of the rows of any batch."""
    layers = []
    for keys, values, *_ in filled:
        layer = _PrefixLayer()
        DynamicLayer.update(layer, keys, values)
        layers.append(layer)
    return Cache(layers=layers)


def growing(prefix: Cache, rows: int) -> DynamicCache:
    """Return a cache of ``rows`` rows that begin with ``prefix``, to which generated tokens are added."""
    return DynamicCache(
        [
            (layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))
            for layer in prefix.layers
        ]
    )
