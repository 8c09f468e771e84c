"""The stacked network: every tensor has a leading dimension of proxies, every product is batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ablations.training.initial import initial_weights
from ablations.training.loss import mean_cross_entropy
from ablations.training.packing import Positions
from ablations.training.specs import ExecutionSpec, ModelSpec

__all__ = ["StackedLlama", "stacked"]

Tensors = dict[str, torch.Tensor]

_LAYER = (
    *("input_layernorm", "attn.qkv_proj", "attn.o_proj"),
    *("post_attention_layernorm", "mlp.gate_up_proj", "mlp.down_proj"),
)


def stacked(parts: Sequence[Mapping[str, torch.Tensor]]) -> Tensors:
    """One [proxies, …] tensor for each name."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


class StackedLlama:
    """K Llamas of one shape.

    Args:
        weights: Canonical name → [K, …].
        execution: Whether layers are compiled, and in how many tokens the loss is cut.
    """

    def __init__(
        self, spec: ModelSpec, weights: Tensors, execution: ExecutionSpec | None = None
    ) -> None:
        self.spec, self._execution = spec, execution or ExecutionSpec()
        self.weights = {name: tensor.requires_grad_() for name, tensor in weights.items()}
        self._layers = [
            {name: self.weights[f"layers.{layer}.{name}.weight"] for name in _LAYER}
            for layer in range(spec.num_hidden_layers)
        ]
        # All layers share one compiled graph: their weights are its inputs, shapes are fixed.
        self._layer = (
            torch.compile(self._one_layer, dynamic=False)
            if self._execution.compile
            else self._one_layer
        )

    @classmethod
    def initial(
        cls,
        spec: ModelSpec,
        seeds: Sequence[int],
        execution: ExecutionSpec,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> StackedLlama:
        """Each proxy with the initial weights of its seed."""
        parts = stacked([initial_weights(spec, seed) for seed in seeds])
        weights = {name: tensor.to(device, dtype) for name, tensor in parts.items()}
        return cls(spec, weights, execution)

    def losses(self, ids: torch.Tensor, labels: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Mean loss [K] of every proxy on its own samples [K, batch, length]."""
        count, batch, length = ids.shape
        tables = self.weights["embed.token_embedding.weight"]
        offsets = torch.arange(count, device=ids.device)[:, None, None] * self.spec.vocab_size
        x = F.embedding(ids + offsets, tables.flatten(0, 1)).view(count, batch * length, -1)
        for weights in self._layers:
            x = self._layer(x, weights, batch, positions)
        x = self._norm(x, self.weights["head.norm.weight"])
        heads = self.weights.get("head.lm_head.weight", tables)
        chunk, compiled = self._execution.loss_chunk_tokens, self._execution.compile
        each = zip(x, heads, labels.flatten(1), strict=True)
        return torch.stack([mean_cross_entropy(*one, chunk, compiled=compiled) for one in each])

    def _one_layer(
        self, x: torch.Tensor, weights: Tensors, batch: int, positions: Positions
    ) -> torch.Tensor:
        inner = self._norm(x, weights["input_layernorm"])
        x = x + self._attention(inner, weights, batch, positions)
        inner = self._norm(x, weights["post_attention_layernorm"])
        gate, up = _linear(inner, weights["mlp.gate_up_proj"]).chunk(2, dim=-1)
        return x + _linear(F.silu(gate) * up, weights["mlp.down_proj"])

    def _attention(
        self, x: torch.Tensor, weights: Tensors, batch: int, positions: Positions
    ) -> torch.Tensor:
        spec, (count, tokens, _) = self.spec, x.shape
        n, kv, width = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
        qkv = _linear(x, weights["attn.qkv_proj"])
        heads = qkv.view(count * batch, tokens // batch, n + 2 * kv, width).transpose(1, 2)
        qk, v = torch.split(heads, [n + kv, kv], dim=1)
        q, k = torch.split(positions.rotate(qk), [n, kv], dim=1)
        mixed = positions.attend(q, k, v).transpose(1, 2).reshape(count, tokens, -1)
        return _linear(mixed, weights["attn.o_proj"])

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scaled = F.rms_norm(x, (x.shape[-1],), None, self.spec.rms_norm_eps)
        return scaled * weight[:, None, :]


def _linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.bmm(x, weight.transpose(1, 2))
