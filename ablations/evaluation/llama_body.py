"""Body of a Llama for scoring: joint matrices, and a last layer that is computed where it is read.

Queries, keys and values are one product of matrices, gate and up another: small matrices are multiplied
faster together. The weights are those of transformers' network, moved into joint tensors of which its own
matrices become parts.

Scoring reads the positions before each token of a continuation, and of the context the last one. Layers
before the last need every position, since the next layer attends to it. The last layer needs keys and
values of every position, but queries, the output projection and the feed-forward part only at the positions
that are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import rotate_half

__all__ = ["LlamaBody"]

_Tables = tuple[Tensor, Tensor]
"""Cosine and sine of positions: (rows or 1, columns, size of a head)."""


class LlamaBody:
    """Layers and final norm of ``LlamaForCausalLM``.

    Args:
        model: The network. Its matrices become parts of joint ones; it works as before.
    """

    def __init__(self, model: Any) -> None:
        self._body = model.model
        self._layers = [_Layer(layer) for layer in model.model.layers]

    def __call__(
        self,
        embedded: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        prefix: Cache | None = None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states before the output matrix: (rows, length or chosen, width).

        Args:
            embedded: Embeddings of the tokens: (rows, length, width).
            positions: (rows, length); None = 0, 1, 2, ….
            mask: (rows or 1, 1, length, prefix + length), of bool or added to scores; None = causal.
            prefix: Keys and values before each row.
            columns: Columns that are read: (rows, chosen); None = all.
        """
        length = embedded.shape[1]
        if positions is None:
            positions = torch.arange(length, device=embedded.device)[None]
        tables = self._body.rotary_emb(embedded, position_ids=positions)
        hidden = embedded
        *before, last = self._layers
        for layer in before:
            hidden = layer(hidden, tables, mask, prefix)
        hidden = last(hidden, tables, mask, prefix, columns)
        return _normed(self._body.norm, hidden)


class _Layer:
    """One layer of the network."""

    def __init__(self, layer: Any) -> None:
        self._own, self._attention = layer, layer.self_attn
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._qkv, self._qkv_bias = _joined(parts)
        self._gate_up, self._gate_up_bias = _joined((mlp.gate_proj, mlp.up_proj))
        self._queries, self._keys = (part.out_features for part in parts[:2])

    def __call__(
        self,
        hidden: Tensor,
        tables: _Tables,
        mask: Tensor | None,
        prefix: Cache | None,
        columns: Tensor | None = None,
    ) -> Tensor:
        """Return the layer's output at all positions, or at ``columns``."""
        normed = _normed(self._own.input_layernorm, hidden)
        if columns is None:
            q, k, v = self._all(normed, tables)
        else:
            q, k, v = self._chosen(normed, tables, columns)
            mask = _mask_at(mask, columns, hidden.shape[1])
            hidden = _at(hidden, columns)
        hidden = hidden + self._mixed(q, k, v, mask, prefix)
        return hidden + self._fed_forward(_normed(self._own.post_attention_layernorm, hidden))

    def _all(self, normed: Tensor, tables: _Tables) -> tuple[Tensor, ...]:
        """Return queries, keys and values of all positions: (rows, heads, length, size)."""
        qkv = self._heads(F.linear(normed, self._qkv, self._qkv_bias))
        size = self._attention.head_dim
        rotated = (self._queries + self._keys) // size
        q, k = torch.split(
            _rotated(qkv[:, :rotated], tables), [self._queries // size, self._keys // size], dim=1
        )
        return q, k, qkv[:, rotated:]

    def _chosen(self, normed: Tensor, tables: _Tables, columns: Tensor) -> tuple[Tensor, ...]:
        """Return queries of ``columns``, and keys and values of all positions."""
        bias, first = self._qkv_bias, self._queries
        q_bias, kv_bias = (None, None) if bias is None else (bias[:first], bias[first:])
        q = self._heads(F.linear(_at(normed, columns), self._qkv[:first], q_bias))
        kv = self._heads(F.linear(normed, self._qkv[first:], kv_bias))
        k, v = kv.chunk(2, dim=1)
        cos, sin = (_at(table.expand(len(normed), -1, -1), columns) for table in tables)
        return _rotated(q, (cos, sin)), _rotated(k, tables), v

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self._attention.head_dim).transpose(1, 2)

    def _mixed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, prefix: Cache | None
    ) -> Tensor:
        if prefix is not None:
            k, v = prefix.update(k, v, self._attention.layer_idx)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self._attention.scaling,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        out: Tensor = self._attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _fed_forward(self, normed: Tensor) -> Tensor:
        gate, up = F.linear(normed, self._gate_up, self._gate_up_bias).chunk(2, dim=-1)
        out: Tensor = self._own.mlp.down_proj(self._own.mlp.act_fn(gate) * up)
        return out


def _joined(parts: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """Return one matrix, and bias, of several linear layers, whose own become parts of it."""
    weight = torch.cat([part.weight.data for part in parts])
    sizes = [len(part.weight) for part in parts]
    for part, rows in zip(parts, torch.split(weight, sizes), strict=True):
        part.weight.data = rows
    biases = [part.bias.data for part in parts if part.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _normed(norm: Any, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight, norm.variance_epsilon)


def _rotated(x: Tensor, tables: _Tables) -> Tensor:
    cos, sin = tables
    rotated: Tensor = x * cos[:, None] + rotate_half(x) * sin[:, None]
    return rotated


def _mask_at(mask: Tensor | None, columns: Tensor, length: int) -> Tensor:
    """Return the mask of the queries at ``columns``: (rows, 1, chosen, keys)."""
    if mask is None:
        return torch.arange(length, device=columns.device) <= columns[:, None, :, None]
    rows, chosen = columns.shape
    index = columns[:, None, :, None].expand(rows, 1, chosen, mask.shape[-1])
    return mask.expand(rows, -1, -1, -1).gather(2, index)


def _at(values: Tensor, columns: Tensor) -> Tensor:
    """Return ``values`` (rows, length, width) at ``columns`` (rows, chosen)."""
    return values.gather(1, columns[:, :, None].expand(-1, -1, values.shape[-1]))
