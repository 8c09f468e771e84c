"""A Llama-family decoder of nanotron's parallel layers and torch's scaled_dot_product_attention.

    embed ─▶ layers.0 ─▶ … ─▶ layers.n-1 ─▶ head (norm, output matrix, loss)

Each is a pipeline block. Everything is batch first: nanotron's sequence-first layout cost 10 ms a
step at 1M parameters, and only its sequence parallelism needs it. Rotary tables and attention mask
are made once a micro-batch and reach the layers through a :class:`Slot`, not through the pipeline:
every rank can make them, since every rank can read every sample.

Weights are laid out, and positions rotated, as transformers' Llama does, so that export is
renaming and splitting. A matrix that is not split over ranks skips nanotron's autograd wrappers,
which cost 20 µs each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ablations.training.initial_weights import initial_tensor, residual_std
from ablations.training.loss import mean_cross_entropy
from ablations.training.nanotron.compat import nanotron_trainer
from ablations.training.packing import Positions

nanotron_trainer()

from nanotron.models import NanotronModel  # noqa: E402
from nanotron.parallel.pipeline_parallel.block import PipelineBlock  # noqa: E402
from nanotron.parallel.pipeline_parallel.p2p import P2P  # noqa: E402
from nanotron.parallel.tensor_parallel.functional import sharded_cross_entropy  # noqa: E402
from nanotron.parallel.tensor_parallel.nn import (  # noqa: E402
    TensorParallelColumnLinear,
    TensorParallelEmbedding,
    TensorParallelRowLinear,
)

__all__ = ["Llama", "LlamaShape", "Slot", "canonical_name"]

Output = dict[str, torch.Tensor]


@dataclass
class LlamaShape:
    """The network as nanotron's config holds it, in LlamaConfig's names; saved in every checkpoint."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    tie_word_embeddings: bool
    initializer_range: float
    bos_token_id: int
    eos_token_id: int
    model_type: str = "llama"


@dataclass
class Slot:
    """What the layers of this process share within a micro-batch, and how they are run."""

    positions: Positions | None = None
    recompute: bool = False
    compile: bool = False
    loss_chunk_tokens: int | None = None


def _linear(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, layer.weight) if layer.world_size == 1 else layer(x)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any) -> None:
        super().__init__()
        self.width = shape.hidden_size // shape.num_attention_heads
        self.heads = shape.num_attention_heads // tp.size()
        self.kv_heads = shape.num_key_value_heads // tp.size()
        q, kv = shape.num_attention_heads * self.width, shape.num_key_value_heads * self.width
        common = {"pg": tp, "mode": parallel.tp_mode, "bias": False}
        self.qkv_proj = TensorParallelColumnLinear(
            shape.hidden_size, q + 2 * kv, contiguous_chunks=(q, kv, kv), **common
        )
        self.o_proj = TensorParallelRowLinear(q, shape.hidden_size, **common)

    def forward(self, x: torch.Tensor, positions: Positions) -> torch.Tensor:
        batch, length, _ = x.shape
        heads = self.heads + 2 * self.kv_heads
        qkv = _linear(self.qkv_proj, x).view(batch, length, heads, self.width).transpose(1, 2)
        qk, v = torch.split(qkv, [self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = torch.split(positions.rotate(qk), [self.heads, self.kv_heads], dim=1)
        mixed = positions.attend(q, k, v)
        return _linear(self.o_proj, mixed.transpose(1, 2).reshape(batch, length, -1))


class FeedForward(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any) -> None:
        super().__init__()
        width = shape.intermediate_size
        common = {"pg": tp, "mode": parallel.tp_mode, "bias": False}
        self.gate_up_proj = TensorParallelColumnLinear(
            shape.hidden_size, 2 * width, contiguous_chunks=(width, width), **common
        )
        self.down_proj = TensorParallelRowLinear(width, shape.hidden_size, **common)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = _linear(self.gate_up_proj, x).chunk(2, dim=-1)
        return _linear(self.down_proj, F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, slot: Slot) -> None:
        super().__init__()
        self.slot = slot
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.attn = Attention(shape, parallel, tp)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape, parallel, tp)
        # All layers share one compiled graph: their parameters are its inputs, shapes are fixed.
        self.run = torch.compile(self.body, dynamic=False) if slot.compile else self.body

    def body(self, hidden: torch.Tensor, positions: Positions) -> torch.Tensor:
        hidden = hidden + self.attn(self.input_layernorm(hidden), positions)
        after: torch.Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return after

    def forward(self, hidden_states: torch.Tensor) -> Output:
        positions = self.slot.positions
        assert positions is not None  # Llama.hidden sets them before any block runs
        if self.slot.recompute:
            hidden: torch.Tensor = checkpoint(
                self.run, hidden_states, positions, use_reentrant=False, preserve_rng_state=False
            )
        else:
            hidden = self.run(hidden_states, positions)
        return {"hidden_states": hidden}


class Embedding(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any) -> None:
        super().__init__()
        self.token_embedding = TensorParallelEmbedding(
            shape.vocab_size, shape.hidden_size, pg=tp, mode=parallel.tp_mode
        )

    def forward(self, input_ids: torch.Tensor) -> Output:
        table = self.token_embedding
        whole = table.world_size == 1
        return {
            "hidden_states": F.embedding(input_ids, table.weight) if whole else table(input_ids)
        }


class Head(nn.Module):
    """Final norm, output matrix and loss in one block, so that logits need never exist whole."""

    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, slot: Slot) -> None:
        super().__init__()
        self.tp, self.slot = tp, slot
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = TensorParallelColumnLinear(
            shape.hidden_size, shape.vocab_size, pg=tp, mode=parallel.tp_mode, bias=False
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the vocabulary (of this rank's part of it) after the last layer."""
        return _linear(self.lm_head, self.norm(hidden))

    def forward(self, hidden_states: torch.Tensor, label_ids: torch.Tensor) -> Output:
        if self.tp.size() > 1:
            logits = self.logits(hidden_states)
            losses = sharded_cross_entropy(logits, label_ids.contiguous(), self.tp, torch.float)
            return {"loss": losses.mean()}
        hidden = self.norm(hidden_states)
        chunk, compiled = self.slot.loss_chunk_tokens, self.slot.compile
        weight = self.lm_head.weight
        return {"loss": mean_cross_entropy(hidden, weight, label_ids, chunk, compiled=compiled)}


class Llama(NanotronModel):  # type: ignore[misc]
    """The model that nanotron builds on every rank; blocks of other pipeline ranks stay empty."""

    def __init__(
        self,
        config: LlamaShape,
        parallel_context: Any,
        parallel_config: Any,
        random_states: Any = None,
        slot: Slot | None = None,
    ) -> None:
        super().__init__()
        self.config, self.parallel_context = config, parallel_context
        self.slot = slot or Slot()
        tp, pp = parallel_context.tp_pg, parallel_context.pp_pg
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.p2p = P2P(pp, device=torch.device(device))
        self.whole = pp.size() == 1
        common = {"shape": config, "parallel": parallel_config, "tp": tp}
        slotted = {**common, "slot": self.slot}
        hidden = {"hidden_states"}
        self.embed = self._block(Embedding, common, {"input_ids"}, hidden)
        self.layers = nn.ModuleList(
            self._block(Layer, slotted, hidden, hidden) for _ in range(config.num_hidden_layers)
        )
        self.head = self._block(Head, slotted, {"hidden_states", "label_ids"}, {"loss"})

    def _block(
        self, builder: type[nn.Module], kwargs: Mapping[str, Any], takes: set[str], gives: set[str]
    ) -> Any:
        return PipelineBlock(
            p2p=self.p2p,
            module_builder=builder,
            module_kwargs=kwargs,
            module_input_keys=takes,
            module_output_keys=gives,
        )

    def hidden(self, input_ids: Any, positions: Positions) -> Any:
        """The last layer's output, or a pointer to the rank that has it."""
        self.slot.positions = positions
        states = self._run(self.embed, input_ids=input_ids)["hidden_states"]
        for layer in self.layers:
            states = self._run(layer, hidden_states=states)["hidden_states"]
        return states

    def forward(self, input_ids: Any, label_ids: Any, positions: Positions) -> Output:
        """The mean loss of a micro-batch, on the rank that computes it."""
        states = self.hidden(input_ids, positions)
        output: Output = self._run(self.head, hidden_states=states, label_ids=label_ids)
        return output

    def _run(self, block: Any, **tensors: Any) -> Any:
        """The block; without a pipeline, without its bookkeeping (15 µs a block)."""
        return block.pp_block(**tensors) if self.whole else block(**tensors)

    # ------------------------------------------------------------- what nanotron asks of a model

    @torch.no_grad()
    def init_model_randomly(self, config: Any) -> None:
        """Fill this rank's slices of the full initial tensors."""
        std, seed = self.config.initializer_range, config.general.seed
        for name, parameter, module in self.canonical_parameters():
            if isinstance(module, RMSNorm):
                parameter.fill_(1.0)
                continue
            into_residual = isinstance(module, TensorParallelRowLinear)
            deviation = residual_std(std, self.config.num_hidden_layers) if into_residual else std
            info = parameter.get_sharded_info()
            full = initial_tensor(name, info.unsharded_shape, std=deviation, seed=seed)
            for pair in info.local_global_slices_pairs:
                parameter[pair.local_slices] = full[pair.global_slices].to(parameter)

    def canonical_parameters(self) -> Iterator[tuple[str, Any, nn.Module]]:
        """This rank's parameters by topology-free names, with the module that holds each.

        A tied parameter goes by the embedding's name, and comes once.
        """
        prefixes = {id(m): f"{name}." if name else "" for name, m in self.named_modules()}
        seen: set[int] = set()
        for module in self.modules():
            for own_name, parameter in module.named_parameters(recurse=False):
                if id(parameter) in seen:
                    continue
                seen.add(id(parameter))
                name = f"{prefixes[id(module)]}{own_name}"
                if parameter.is_tied:
                    info = parameter.get_tied_info()
                    name = info.get_full_name_from_module_id_to_prefix(prefixes)
                yield canonical_name(name), parameter, module

    def get_embeddings_lm_head_tied_names(self) -> list[str]:
        """The two names of the one matrix, where embedding and head are tied."""
        if not self.config.tie_word_embeddings:
            return []
        return ["embed.pp_block.token_embedding.weight", "head.pp_block.lm_head.weight"]

    def get_block_compute_costs(self) -> dict[type[nn.Module], int]:
        """What balances the pipeline: matrix parameters of a block."""
        shape = self.config
        heads = 2 * (shape.num_attention_heads + shape.num_key_value_heads)
        width = shape.hidden_size // shape.num_attention_heads
        layer = shape.hidden_size * (heads * width + 3 * shape.intermediate_size)
        return {Layer: layer, Head: shape.vocab_size * shape.hidden_size}

    def get_flops_per_sec(self, *_: Any) -> tuple[float, float]:
        """Unused: the platform counts FLOPs itself (ModelSpec.flops_per_token)."""
        return 0.0, 0.0


def canonical_name(name: str) -> str:
    """A parameter's name without nanotron's pipeline wrapping."""
    return name.replace(".pp_block", "")
