"""Body of a Llama whose last layer is computed only where its output is read.

Scoring reads the positions before each token of a continuation, and of the context the last one. Layers
before the last need every position, since the next layer attends to it. The last layer needs keys and
values of every position, but queries, the output projection and the feed-forward part only at the positions
that are read.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.models.llama.modeling_llama import rotate_half

__all__ = ["at_columns", "body_at"]

_Tables = tuple[Tensor, Tensor]
"""Cosine and sine of the positions: (rows or 1, columns, size of a head)."""


def body_at(
    body: Any,
    embedded: Tensor,
    columns: Tensor,
    *,
    positions: Tensor | None,
    mask: Tensor | None,
    prefix: Cache | None,
) -> Tensor:
    """Return the hidden states before the output matrix at chosen positions: (rows, chosen, width).

    Args:
        body: ``LlamaModel`` of transformers, with torch's ``scaled_dot_product_attention``.
        embedded: Embeddings of the tokens: (rows, length, width).
        columns: Columns that are read: (rows, chosen).
        positions: (rows, length); None = 0, 1, 2, ….
        mask: (rows or 1, 1, length, prefix + length), of bool or added to scores; None = causal.
        prefix: Keys and values before each row.
    """
    length = embedded.shape[1]
    if positions is None:
        positions = torch.arange(length, device=embedded.device)[None]
    tables = body.rotary_emb(embedded, position_ids=positions)
    hidden, last = embedded, body.layers[-1]
    for layer in body.layers[:-1]:
        hidden = layer(
            hidden,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=tables,
            past_key_values=prefix,
        )
    if mask is None:
        mask = torch.arange(length, device=columns.device) <= columns[:, None, :, None]
    else:
        shape = (len(columns), 1, columns.shape[1], mask.shape[-1])
        mask = mask.expand(len(columns), -1, -1, -1).gather(
            2, columns[:, None, :, None].expand(shape)
        )
    normed: Tensor = last.input_layernorm(hidden)
    mixed = _attend(last.self_attn, normed, columns, tables, mask, prefix)
    hidden = at_columns(hidden, columns) + mixed
    hidden = hidden + last.mlp(last.post_attention_layernorm(hidden))
    read: Tensor = body.norm(hidden)
    return read


def _attend(
    attention: Any,
    normed: Tensor,
    columns: Tensor,
    tables: _Tables,
    mask: Tensor,
    prefix: Cache | None,
) -> Tensor:
    """Return the output of the attention at ``columns``, over all positions that ``mask`` allows."""
    size = (-1, attention.head_dim)
    cos, sin = (at_columns(table.expand(len(normed), -1, -1), columns) for table in tables)
    q = attention.q_proj(at_columns(normed, columns)).unflatten(-1, size).transpose(1, 2)
    k = attention.k_proj(normed).unflatten(-1, size).transpose(1, 2)
    v = attention.v_proj(normed).unflatten(-1, size).transpose(1, 2)
    q, k = _rotated(q, cos, sin), _rotated(k, *tables)
    if prefix is not None:
        k, v = prefix.update(k, v, attention.layer_idx)
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=attention.scaling, enable_gqa=q.shape[1] != k.shape[1]
    )
    out: Tensor = attention.o_proj(mixed.transpose(1, 2).flatten(2))
    return out


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotated: Tensor = x * cos[:, None] + rotate_half(x) * sin[:, None]
    return rotated


def at_columns(values: Tensor, columns: Tensor) -> Tensor:
    """Return ``values`` (rows, length, width) at ``columns`` (rows, chosen)."""
    return values.gather(1, columns[:, :, None].expand(-1, -1, values.shape[-1]))
