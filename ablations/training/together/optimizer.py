"""Clipping and AdamW over stacked weights: what one proxy's step does to no other.

AdamW is elementwise, so that one fused update of the stack is the update of each; the gradient's
norm is taken, and cut, proxy by proxy. bfloat16 weights have a float32 copy that is updated and
copied back, as nanotron does.
"""

from __future__ import annotations

from typing import Any

import torch

from ablations.training.lean import bare_step
from ablations.training.specs import TrainingSpec

__all__ = ["StackedAdamW"]

_NORM_EPSILON = 1e-6

Tensors = dict[str, torch.Tensor]


class StackedAdamW:
    """Updates stacked weights in place from the gradients that they hold."""

    def __init__(self, weights: Tensors, training: TrainingSpec) -> None:
        self._weights, self._max_norm = weights, training.clip_norm
        in_fp32 = training.dtype == "bfloat16" and training.accumulate_grad_in_fp32
        self.masters = (
            {name: w.detach().float().requires_grad_() for name, w in weights.items()}
            if in_fp32
            else None
        )
        self.adamw = torch.optim.AdamW(
            list((self.masters or weights).values()),
            lr=training.peak_lr,
            betas=(training.adam_beta1, training.adam_beta2),
            eps=training.adam_eps,
            weight_decay=training.weight_decay,
            fused=True,
        )
        self._bare_update = bare_step(self.adamw)
        self.trained = list(weights.values())
        """The tensors that a backward pass gives gradients to."""
        self._updated = list((self.masters or weights).values())
        self._buffers = False

    def keep_buffers(self) -> None:
        """From now on gradients are zeroed where they are: a recorded pass adds into these tensors."""
        self._buffers = True

    @torch.no_grad()
    def take_gradients(self) -> None:
        """After a backward pass: add the bfloat16 gradients to the float32 ones."""
        if self.masters is None:
            return
        for weight, master in zip(self.trained, self._updated, strict=True):
            assert weight.grad is not None
            master.grad = (
                weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
            )
        self._forget_trained()

    def _forget_trained(self) -> None:
        if self._buffers:
            torch._foreach_zero_([w.grad for w in self.trained if w.grad is not None])
            return
        for weight in self.trained:
            weight.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> torch.Tensor:
        """Clip, update, and forget the gradients; the norms [K] before clipping."""
        norms = self._clip([w.grad for w in self._updated if w.grad is not None])
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self._bare_update(self.adamw)
        if self.masters is None:
            self._forget_trained()
            return norms
        for master in self._updated:
            master.grad = None
        torch._foreach_copy_(self.trained, self._updated)
        return norms

    def _clip(self, grads: list[torch.Tensor]) -> torch.Tensor:
        each = [torch.linalg.vector_norm(g.flatten(1), dim=1, dtype=torch.float32) for g in grads]
        norms: torch.Tensor = torch.linalg.vector_norm(torch.stack(each), dim=0)
        if self._max_norm is None:
            return torch.full_like(norms, float("nan"))
        factors = torch.clamp(self._max_norm / (norms + _NORM_EPSILON), max=1.0)
        for grad in grads:
            grad.mul_(factors.view(-1, *[1] * (grad.dim() - 1)).to(grad.dtype))
        return norms

    def moments(self) -> tuple[Tensors, Tensors, int]:
        """First and second moments by name, and the number of updates."""
        state: dict[Any, Any] = self.adamw.state
        kept = self.masters or self._weights
        first = {name: state[w]["exp_avg"] for name, w in kept.items()}
        second = {name: state[w]["exp_avg_sq"] for name, w in kept.items()}
        return first, second, int(next(iter(state.values()))["step"])

    def restore(
        self, first: Tensors, second: Tensors, updates: int, masters: Tensors | None
    ) -> None:
        """Put moments, and float32 copies, back as a checkpoint held them."""
        kept = self.masters or self._weights
        for name, weight in kept.items():
            if self.masters is not None and masters is not None:
                weight.data.copy_(masters[name])
            self.adamw.state[weight] = {
                "step": torch.tensor(float(updates), device=weight.device),
                "exp_avg": first[name].to(weight.device),
                "exp_avg_sq": second[name].to(weight.device),
            }
