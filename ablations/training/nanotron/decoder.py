"""Llama-family decoder of nanotron's parallel layers and torch's scaled_dot_product_attention.

    embed ─▶ layers.0 ─▶ … ─▶ layers.n-1 ─▶ head (norm, output matrix, loss)

Each of them is a pipeline block. All tensors are batch first: nanotron's sequence-first layout costs 10 ms
per step at 1M parameters, and only its sequence parallelism needs it. Rotary tables and attention mask are
made once per micro-batch and passed to the layers in a :class:`Slot` instead of through the pipeline, because
every rank can read every sample and make them itself.

The layout of the weights and the rotation of positions are those of transformers' Llama, so that an export
only renames and splits. A matrix that is not divided over ranks skips nanotron's autograd wrappers, which
take 20 µs each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from ablations.training import bfloat16_on_cpu
from ablations.training.initial_weights import initial_tensor, residual_std
from ablations.training.loss import mean_cross_entropy
from ablations.training.nanotron.compat import nanotron_trainer
from ablations.training.packing import Positions
from ablations.training.specs import ModelSpec

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

__all__ = ["Llama", "LlamaShape", "Slot"]

Output = dict[str, torch.Tensor]
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class LlamaShape(ModelSpec):
    """Model section of nanotron's config, saved in every checkpoint as ``model_config.json``."""

    model_type: str = "llama"


# nanotron assigns vocab_size and max_position_embeddings, so this one must not be frozen.
LlamaShape.__setattr__ = object.__setattr__  # type: ignore[method-assign]


@dataclass
class Slot:
    """Positions that this process's layers share within a micro-batch, and options of their execution."""

    positions: Positions | None = None
    recompute: bool = False
    compile: bool = False
    loss_chunk_tokens: int | None = None
    product: Product = F.linear
    """Product of the layers' matrices; the output matrix is multiplied by F.linear."""


def _linear(layer: Any, x: torch.Tensor, product: Product = F.linear) -> torch.Tensor:
    return product(x, layer.weight) if layer.world_size == 1 else layer(x)


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bfloat16_on_cpu.applies_to(x):
            return bfloat16_on_cpu.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, product: Product) -> None:
        super().__init__()
        self.product = product
        self.width = shape.head_dim
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
        qkv = _linear(self.qkv_proj, x, self.product)
        qkv = qkv.view(batch, length, heads, self.width).transpose(1, 2)
        qk, v = torch.split(qkv, [self.heads + self.kv_heads, self.kv_heads], dim=1)
        q, k = torch.split(positions.rotate(qk), [self.heads, self.kv_heads], dim=1)
        mixed = positions.attend(q, k, v)
        return _linear(self.o_proj, mixed.transpose(1, 2).reshape(batch, length, -1), self.product)


class FeedForward(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, product: Product) -> None:
        super().__init__()
        self.product = product
        width = shape.intermediate_size
        common = {"pg": tp, "mode": parallel.tp_mode, "bias": False}
        self.gate_up_proj = TensorParallelColumnLinear(
            shape.hidden_size, 2 * width, contiguous_chunks=(width, width), **common
        )
        self.down_proj = TensorParallelRowLinear(width, shape.hidden_size, **common)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = _linear(self.gate_up_proj, x, self.product).chunk(2, dim=-1)
        return _linear(self.down_proj, F.silu(gate) * up, self.product)


class Layer(nn.Module):
    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, slot: Slot) -> None:
        super().__init__()
        self.slot = slot
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.attn = Attention(shape, parallel, tp, slot.product)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = FeedForward(shape, parallel, tp, slot.product)
        # All layers share one compiled graph: their parameters are its inputs, and shapes are fixed.
        self.run = torch.compile(self.body, dynamic=False) if slot.compile else self.body

    def body(self, hidden: torch.Tensor, positions: Positions) -> torch.Tensor:
        hidden = hidden + self.attn(self.input_layernorm(hidden), positions)
        after: torch.Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return after

    def forward(self, hidden_states: torch.Tensor) -> Output:
        positions = self.slot.positions
        assert positions is not None  # Llama.hidden sets them before a block runs
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
    """Final norm, output matrix and loss in one block, so that the loss can be computed in chunks."""

    def __init__(self, shape: LlamaShape, parallel: Any, tp: Any, slot: Slot) -> None:
        super().__init__()
        self.tp, self.slot = tp, slot
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.lm_head = TensorParallelColumnLinear(
            shape.hidden_size, shape.vocab_size, pg=tp, mode=parallel.tp_mode, bias=False
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the vocabulary, or of this rank's part of it, after the last layer."""
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
    """Model that nanotron builds on every rank; blocks of other pipeline ranks stay empty."""

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
        """Return the last layer's output, or a pointer to the rank that has it."""
        self.slot.positions = positions
        states = self._run(self.embed, input_ids=input_ids)["hidden_states"]
        for layer in self.layers:
            states = self._run(layer, hidden_states=states)["hidden_states"]
        return states

    def forward(self, input_ids: Any, label_ids: Any, positions: Positions) -> Output:
        """Return the mean loss of a micro-batch, on the rank that computes it."""
        states = self.hidden(input_ids, positions)
        output: Output = self._run(self.head, hidden_states=states, label_ids=label_ids)
        return output

    def _run(self, block: Any, **tensors: Any) -> Any:
        """Run a block; without a pipeline, skip its bookkeeping (15 µs per block)."""
        return block.pp_block(**tensors) if self.whole else block(**tensors)

    # ------------------------------------------------------------ methods that nanotron calls

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
        """Yield this rank's parameters with names that do not depend on the topology, and their modules.

        A tied parameter is yielded once, with the embedding's name.
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
                yield name.replace(".pp_block", ""), parameter, module

    def get_embeddings_lm_head_tied_names(self) -> list[str]:
        """Return both names of the shared matrix if embedding and head are tied, else none."""
        if not self.config.tie_word_embeddings:
            return []
        return ["embed.pp_block.token_embedding.weight", "head.pp_block.lm_head.weight"]

    def get_block_compute_costs(self) -> dict[type[nn.Module], int]:
        """Return the matrix parameters of each kind of block, by which nanotron balances the pipeline."""
        head = self.config.vocab_size * self.config.hidden_size
        return {Layer: self.config.layer_parameters, Head: head}

    def get_flops_per_sec(self, *_: Any) -> tuple[float, float]:
        """Return zeros: the platform counts FLOPs itself (ModelSpec.flops_per_token)."""
        return 0.0, 0.0
