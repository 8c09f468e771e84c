"""Cross-entropy over the vocabulary, for all tokens at once or in chunks that never keep all logits.

At a vocabulary of 49,152, the float32 logits of 8 samples of 2,048 tokens take 3.2 GB, and their
softmax and gradient as much again: more than a 135M model. The chunked form computes the logits of one
chunk, its part of the loss and its gradients, and then frees the logits.

In torch's own operations the softmax of a chunk takes about eight passes over float32 logits. On an H100
that takes half as long as a 135M model's matrix products (by their bytes at 3 TB/s; not measured).
Compiled it takes two passes over logits in the training's type; the second one finds them in the cache.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["mean_cross_entropy"]


def mean_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    chunk_tokens: int | None,
    *,
    compiled: bool = False,
) -> torch.Tensor:
    """Return the mean loss of ``labels`` under ``hidden @ weight.T`` in nats, float32.

    Args:
        hidden: [..., width].
        weight: [vocabulary, width].
        labels: [...].
        chunk_tokens: Tokens whose logits exist at once; None = all.
        compiled: Compile the softmax of a chunk with torch.compile; a single chunk too.
    """
    if chunk_tokens is None or (chunk_tokens >= labels.numel() and not compiled):
        logits = F.linear(hidden, weight).float()
        return F.cross_entropy(logits.flatten(0, -2), labels.flatten())
    loss: torch.Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.flatten(0, -2), weight, labels.flatten(), chunk_tokens, compiled
    )
    return loss


def _softmax_parts(
    logits: torch.Tensor, picked: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss of a chunk, and the gradient of its logits in their type.

    Args:
        logits: [tokens, vocabulary].
        picked: [tokens, 1], the labels.
        count: Labels of the whole batch, over which the gradient is averaged.
    """
    dtype = logits.dtype
    logits = logits.float()
    lse = torch.logsumexp(logits, dim=-1, keepdim=True)
    loss = (lse - logits.gather(1, picked)).sum()
    columns = torch.arange(logits.shape[1], device=logits.device)
    gradient = (torch.exp(logits - lse) - (columns == picked).float()) / count
    return loss, gradient.to(dtype)


def _softmax_parts_in_place(
    logits: torch.Tensor, picked: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same as :func:`_softmax_parts` without a compiler, in one float32 buffer."""
    dtype = logits.dtype
    logits = logits.float()
    lse = torch.logsumexp(logits, dim=-1, keepdim=True)
    loss = (lse - logits.gather(1, picked)).sum()
    gradient = logits.sub_(lse).exp_()
    gradient.scatter_add_(1, picked, torch.full_like(picked, -1, dtype=torch.float32))
    return loss, gradient.div_(count).to(dtype)


@functools.cache
def _compiled_parts() -> Any:
    return torch.compile(_softmax_parts, dynamic=False)


def _add_product(
    total: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Return ``total + left @ right`` in float32, without rounding the product on CUDA; None counts as 0."""
    if left.device.type == "cuda" and left.dtype != torch.float32:
        if total is None:
            return torch.mm(left, right, out_dtype=torch.float32)
        return torch.addmm(total, left, right, out_dtype=torch.float32)
    product = (left @ right).float()
    return product if total is None else total.add_(product)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss with gradients computed in the forward pass.

    The loss is a scalar, so the backward pass only multiplies them by its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        chunk: int,
        compiled: bool,
    ) -> torch.Tensor:
        parts = _compiled_parts() if compiled else _softmax_parts_in_place
        total = torch.zeros((), device=hidden.device, dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight: torch.Tensor | None = None
        for start in range(0, labels.numel(), chunk):
            rows = slice(start, start + chunk)
            logits = F.linear(hidden[rows], weight)
            loss, gradient = parts(logits, labels[rows, None], labels.numel())
            total += loss
            torch.mm(gradient, weight, out=grad_hidden[rows])
            grad_weight = _add_product(grad_weight, gradient.t(), hidden[rows])
        assert grad_weight is not None
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total / labels.numel()

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None, None, None
