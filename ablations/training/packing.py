"""Positions of packed samples: rotary tables, and who may attend to whom.

A sample is a window of L tokens cut from a stream of documents, an end token after each:

    tokens      a b c ◦ d e ◦ f g h         ◦ = end of document, part of the one it ends
    documents   0 0 0 0 1 1 1 2 2 2
    positions   0 1 2 3 0 1 2 0 1 2         with intra-document masking; 0 … 9 without

Without masking every token sees all before it (one cached table, ``is_causal``). With it, attention
is causal and block-diagonal (SmolLM3 and Llama 3 train so; arXiv 2402.13991 measures it): a dense mask
on a CPU; on a GPU flex attention (arXiv 2412.05496), which keeps only which blocks of 128 x 128 meet.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

__all__ = ["PositionMaker", "Positions", "documents_of", "rotary_tables"]


@dataclass
class Positions:
    """What the attention of every layer needs to know of a micro-batch."""

    cos: torch.Tensor
    """[length, head width], or [batch, 1, length, head width] where positions restart."""
    sin: torch.Tensor
    mask: torch.Tensor | None = None
    """[batch, 1, length, length], True where a query may see a key; None = causal."""
    blocks: BlockMask | None = None
    """The same for flex attention, instead of ``mask``."""

    def rotate(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` [batch, heads, length, width] turned by its positions (halves, as transformers)."""
        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat((-second, first), dim=-1) * self.sin

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Grouped-query attention of [batch, heads, length, width]."""
        if self.blocks is not None:
            return _flex(q, k, v, self.blocks)
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=self.mask,
            is_causal=self.mask is None,
            enable_gqa=q.shape[1] != k.shape[1],
        )


def _flex(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: BlockMask) -> torch.Tensor:
    """Flex attention: compiled, unless an outer compilation takes it in or there is no GPU."""
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
    """Cosine and sine [length, width] of every position; made in float32 (arXiv 2104.09864)."""
    halves = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    angles = torch.outer(
        torch.arange(length, dtype=torch.float32, device=device), 1.0 / theta**halves
    )
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().to(dtype), both.sin().to(dtype)


def documents_of(tokens: torch.Tensor, eos_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Document number and position within it of every token of [batch, length]."""
    begins = torch.zeros_like(tokens, dtype=torch.bool)
    begins[:, 1:] = tokens[:, :-1] == eos_id
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    start = torch.where(begins, place, torch.zeros_like(place)).cummax(dim=1).values
    return begins.cumsum(dim=1), place - start


class PositionMaker:
    """Makes the :class:`Positions` of micro-batches.

    Args:
        width: Width of a head.
        theta: Base of the rotary wavelengths.
        eos_id: The token that ends a document, to mask by documents; None = attend across them.
        flex: Mask by flex attention; None = on CUDA.
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
        self._cos, self._sin = rotary_tables(length, width, theta, device=device, dtype=dtype)
        self._eos_id = eos_id
        self._flex = torch.device(device).type == "cuda" if flex is None else flex
        self._causal = Positions(cos=self._cos, sin=self._sin)

    def of(self, tokens: torch.Tensor) -> Positions:
        """The positions of input tokens [batch, length]."""
        if self._eos_id is None:
            return self._causal
        documents, positions = documents_of(tokens, self._eos_id)
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)
        if self._flex:
            return Positions(cos=cos, sin=sin, blocks=_blocks_of(documents))
        same = documents[:, :, None] == documents[:, None, :]
        return Positions(cos=cos, sin=sin, mask=same.tril().unsqueeze(1))


def _blocks_of(documents: torch.Tensor) -> BlockMask:
    """Which blocks of queries and keys hold a pair of one document, for [batch, length] numbers."""
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
