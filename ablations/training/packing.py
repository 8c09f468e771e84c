"""Positions of packed samples: rotary tables, and attention masks.

A sample is a window of L tokens from a stream of documents, with an end token after each:

    tokens      a b c ◦ d e ◦ f g h         ◦ = end of document, counted to the document that it ends
    documents   0 0 0 0 1 1 1 2 2 2
    positions   0 1 2 3 0 1 2 0 1 2         with intra-document masking; 0 … 9 without

Without masking every token attends to all tokens before it (one cached table, ``is_causal``). With masking,
attention is causal and block-diagonal, as for SmolLM3 and Llama 3 (measured in arXiv 2402.13991). On a CPU
that is a dense mask; on a GPU it is flex attention (arXiv 2412.05496), which stores a mask of 128 x 128
blocks only.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from ablations.training import bfloat16_on_cpu

__all__ = ["PositionMaker", "Positions", "documents_of", "rotary_tables"]


@dataclass
class Positions:
    """Rotary tables and mask of a micro-batch, for the attention of every layer."""

    cos: torch.Tensor
    """[length, head width], or [batch, 1, length, head width] if positions restart."""
    sin: torch.Tensor
    mask: torch.Tensor | None = None
    """[batch, 1, length, length], True if the query may attend to the key; None = causal."""
    blocks: BlockMask | None = None
    """The same for flex attention, instead of ``mask``."""

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate ``x`` [batch, heads, length, width] by its positions (in halves, as transformers does).

        The result has the wider of the types of ``x`` and the tables.
        """
        if bfloat16_on_cpu.applies_to(x):
            return bfloat16_on_cpu.rotate(x, self.cos, self.sin)
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the grouped-query attention of ``q``, ``k``, ``v`` [batch, heads, length, width].

        It is computed in the type of ``q`` and returned in that of ``v``.
        """
        if self.blocks is not None:
            return _flex(q, k, v, self.blocks)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v.to(q.dtype),
            attn_mask=self.mask,
            is_causal=self.mask is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return mixed.to(v.dtype)


def _flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: BlockMask) -> torch.Tensor:
    """Apply flex attention, compiled unless an outer compilation includes it or there is no GPU."""
    attend = flex_attention
    if q.device.type == "cuda" and not torch.compiler.is_compiling():
        attend = _compiled_flex()
    mixed: torch.Tensor = attend(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    return mixed


@functools.cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)


def rotary_tables(
    length: int, width: int, theta: float, *, device: torch.device | str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosine and sine [length, width] of every position, computed in float32 (arXiv 2104.09864)."""
    halves = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    angles = torch.outer(
        torch.arange(length, dtype=torch.float32, device=device), 1.0 / theta**halves
    )
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().to(dtype), both.sin().to(dtype)


def documents_of(tokens: torch.Tensor, eos_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the document's number, and the position within it, of every token of [batch, length]."""
    begins = torch.zeros_like(tokens, dtype=torch.bool)
    begins[:, 1:] = tokens[:, :-1] == eos_id
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    start = torch.where(begins, place, torch.zeros_like(place)).cummax(dim=1).values
    return begins.cumsum(dim=1), place - start


class PositionMaker:
    """Maker of the :class:`Positions` of micro-batches.

    Args:
        length: Tokens of a sample.
        width: Width of a head.
        theta: Base of the rotary wavelengths.
        eos_id: Token that ends a document, to mask by documents; None = attend across documents.
        flex: Mask with flex attention; None = only on CUDA.
    """

    def __init__(
        self,
        *,
        length: int,
        width: int,
        theta: float,
        eos_id: int | None,
        device: torch.device | str,
        dtype: torch.dtype,
        flex: bool | None = None,
    ) -> None:
        # Queries and keys take the tables' type. torch's attention kernels for a CPU are slower in bfloat16
        # than in float32: 8.3 against 2.3 ms for 64 tokens, casts included (forward and backward).
        if torch.device(device).type == "cpu":
            dtype = torch.promote_types(dtype, torch.float32)
        self._cos, self._sin = rotary_tables(length, width, theta, device=device, dtype=dtype)
        self._eos_id = eos_id
        self._flex = torch.device(device).type == "cuda" if flex is None else flex
        self._causal = Positions(cos=self._cos, sin=self._sin)

    def of(self, tokens: torch.Tensor) -> Positions:
        """Return the positions of input tokens [batch, length]."""
        if self._eos_id is None:
            return self._causal
        documents, positions = documents_of(tokens, self._eos_id)
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        if self._flex:
            return Positions(cos=cos, sin=sin, blocks=_blocks_of(documents))
        same = documents[:, :, None] == documents[:, None, :]
        return Positions(cos=cos, sin=sin, mask=same.tril().unsqueeze(1))


def _blocks_of(documents: torch.Tensor) -> BlockMask:
    """Return the block mask of queries and keys that share a document; ``documents`` is [batch, length]."""
    batch, length = documents.shape

    def visible(b: torch.Tensor, _: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (documents[b, q] == documents[b, k]) & (q >= k)

    return create_block_mask(
        visible,
        batch,
        None,
        length,
        length,
        device=documents.device.type,
        _compile=documents.is_cuda,
    )
