"""The same network and the same training step in plain PyTorch: yardstick and oracle.

It shares no code with the adapter but the initial weights: attention, rotary positions and masking
are written out anew, so that an error in one is not an error in both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from ablations.training.initial_weights import initial_tensor, residual_std
from ablations.training.specs import ModelSpec
from ablations.training.train_job import TrainJob


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat((-right, left), -1) * sin


class Norm(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(spec.hidden_size))
        self.eps = spec.rms_norm_eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class PlainLayer(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        heads = spec.num_attention_heads + 2 * spec.num_key_value_heads
        self.norm1, self.norm2 = Norm(spec), Norm(spec)
        self.qkv = nn.Linear(spec.hidden_size, heads * spec.head_dim, bias=False)
        self.o = nn.Linear(spec.hidden_size, spec.hidden_size, bias=False)
        self.gate_up = nn.Linear(spec.hidden_size, 2 * spec.intermediate_size, bias=False)
        self.down = nn.Linear(spec.intermediate_size, spec.hidden_size, bias=False)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        spec, (batch, length, _) = self.spec, x.shape
        n, kv = spec.num_attention_heads, spec.num_key_value_heads
        qkv = self.qkv(self.norm1(x)).view(batch, length, n + 2 * kv, spec.head_dim)
        q, k, v = qkv.transpose(1, 2).split((n, kv, kv), 1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=n != kv
        )
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class PlainLlama(nn.Module):
    """A Llama with the initial weights of a seed; None leaves torch's own, for loops that are timed."""

    def __init__(self, spec: ModelSpec, seed: int | None, length: int) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(PlainLayer(spec) for _ in range(spec.num_hidden_layers))
        self.norm = Norm(spec)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tie_word_embeddings:
            self.head.weight = self.embed.weight
        inverse = spec.rope_theta ** (-torch.arange(0, spec.head_dim, 2) / spec.head_dim)
        angles = torch.outer(torch.arange(length).float(), inverse).repeat(1, 2)
        self._judged = self._loss
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        if seed is not None:
            self._fill(seed)

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile a layer once for all layers, and the head with its loss."""
        for layer in self.layers:
            layer.compile(dynamic=False, backend=backend)
        self._judged = torch.compile(self._loss, dynamic=False, backend=backend)

    @torch.no_grad()
    def _fill(self, seed: int) -> None:
        std = self.spec.initializer_range
        small = residual_std(std, self.spec.num_hidden_layers)
        named = {"embed.token_embedding": (self.embed, std)}
        if not self.spec.tie_word_embeddings:
            named["head.lm_head"] = (self.head, std)
        for i, layer in enumerate(self.layers):
            named[f"layers.{i}.attn.qkv_proj"] = (layer.qkv, std)
            named[f"layers.{i}.attn.o_proj"] = (layer.o, small)
            named[f"layers.{i}.mlp.gate_up_proj"] = (layer.gate_up, std)
            named[f"layers.{i}.mlp.down_proj"] = (layer.down, small)
        for name, (module, deviation) in named.items():
            shape = module.weight.shape
            module.weight.copy_(initial_tensor(f"{name}.weight", shape, std=deviation, seed=seed))

    def forward(
        self, ids: torch.Tensor, labels: torch.Tensor, eos: int | None = None
    ) -> torch.Tensor:
        cos, sin, mask = self.cos, self.sin, None
        if eos is not None:
            cos, sin, mask = self._per_document(ids, eos)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        return self._judged(x, labels)

    def _loss(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.norm(x)).float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def _per_document(self, ids: torch.Tensor, eos: int) -> tuple[torch.Tensor, ...]:
        """Positions and masks by a plain loop over the tokens."""
        batch, length = ids.shape
        positions = torch.zeros(batch, length, dtype=torch.long)
        mask = torch.zeros(batch, 1, length, length, dtype=torch.bool)
        for row in range(batch):
            start = 0
            for i in range(length):
                if i and ids[row, i - 1] == eos:
                    start = i
                positions[row, i] = i - start
                mask[row, 0, i, start : i + 1] = True
        return self.cos[positions][:, None], self.sin[positions][:, None], mask


def plain_optimizer(model: nn.Module, job: TrainJob) -> torch.optim.AdamW:
    training = job.training
    return torch.optim.AdamW(
        model.parameters(),
        lr=training.peak_lr,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_eps,
        weight_decay=training.weight_decay,
        fused=True,
    )


def plain_losses(
    job: TrainJob,
    batches: Iterator[torch.Tensor],
    eos: int | None = None,
    dtype: torch.dtype | None = None,
) -> Iterator[float]:
    """Train a job's network on [batch, length + 1] tokens a step; the losses.

    With ``dtype`` the matrix products are of that type, by torch's autocast; weights stay float32.
    """
    model = PlainLlama(job.model, job.seed, job.training.sequence_length)
    optimizer = plain_optimizer(model, job)
    typed = torch.autocast("cpu", dtype, enabled=dtype is not None)
    for step, tokens in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = job.learning_rate.at(step)
        with typed:
            loss = model(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), eos)
        loss.backward()
        if job.training.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), job.training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()
