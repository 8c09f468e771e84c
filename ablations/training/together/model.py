"""The stacked network: every tensor has a leading dimension of proxies, every product is batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from ablations.training.initial import initial_weights
from ablations.training.loss import mean_cross_entropy
from ablations.training.packing import Positions
from ablations.training.specs import ModelSpec

__all__ = ["StackedLlama", "stacked"]

Tensors = dict[str, torch.Tensor]


def stacked(parts: Sequence[Mapping[str, torch.Tensor]]) -> Tensors:
    """One [proxies, …] tensor for each name."""
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


class StackedLlama:
    """K Llamas of one shape.

    Args:
        weights: Canonical name → [K, …].
    """

    def __init__(
        self, spec: ModelSpec, weights: Tensors, *, loss_chunk_tokens: int | None = None
    ) -> None:
        self.spec, self._chunk = spec, loss_chunk_tokens
        self.weights = {name: tensor.requires_grad_() for name, tensor in weights.items()}

    @classmethod
    def initial(
        cls, spec: ModelSpec, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> StackedLlama:
        """Each proxy with the initial weights of its seed."""
        parts = stacked([initial_weights(spec, seed) for seed in seeds])
        return cls(spec, {name: tensor.to(device, dtype) for name, tensor in parts.items()})

    def losses(self, ids: torch.Tensor, labels: torch.Tensor, positions: Positions) -> torch.Tensor:
        """Mean loss [K] of every proxy on its own samples [K, batch, length]."""
        count, batch, length = ids.shape
        tables = self.weights["embed.token_embedding.weight"]
        offsets = torch.arange(count, device=ids.device)[:, None, None] * self.spec.vocab_size
        x = F.embedding(ids + offsets, tables.flatten(0, 1)).view(count, batch * length, -1)
        for layer in range(self.spec.num_hidden_layers):
            x = self._layer(x, f"layers.{layer}.", batch, positions)
        x = self._norm(x, "head.norm")
        heads = self.weights.get("head.lm_head.weight", tables)
        return torch.stack(
            [
                mean_cross_entropy(x[k], heads[k], labels[k].flatten(), self._chunk)
                for k in range(count)
            ]
        )

    def _layer(
        self, x: torch.Tensor, prefix: str, batch: int, positions: Positions
    ) -> torch.Tensor:
        x = x + self._attention(self._norm(x, f"{prefix}input_layernorm"), prefix, batch, positions)
        inner = self._norm(x, f"{prefix}post_attention_layernorm")
        gate, up = self._linear(inner, f"{prefix}mlp.gate_up_proj").chunk(2, dim=-1)
        return x + self._linear(F.silu(gate) * up, f"{prefix}mlp.down_proj")

    def _attention(
        self, x: torch.Tensor, prefix: str, batch: int, positions: Positions
    ) -> torch.Tensor:
        spec, (count, tokens, _) = self.spec, x.shape
        n, kv, width = spec.num_attention_heads, spec.num_key_value_heads, spec.head_dim
        qkv = self._linear(x, f"{prefix}attn.qkv_proj")
        heads = qkv.view(count * batch, tokens // batch, n + 2 * kv, width).transpose(1, 2)
        qk, v = torch.split(heads, [n + kv, kv], dim=1)
        q, k = torch.split(positions.rotate(qk), [n, kv], dim=1)
        mixed = positions.attend(q, k, v).transpose(1, 2).reshape(count, tokens, -1)
        return self._linear(mixed, f"{prefix}attn.o_proj")

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.bmm(x, self.weights[f"{name}.weight"].transpose(1, 2))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        scaled = F.rms_norm(x, (x.shape[-1],), None, self.spec.rms_norm_eps)
        return scaled * self.weights[f"{name}.weight"][:, None, :]
