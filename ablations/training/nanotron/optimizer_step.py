"""One optimiser step: nanotron's where ranks must talk, plain torch where there is one rank.

At one rank, 0.4 still all-reduces each parameter's gradient, walks all modules twice, formats debug
messages, and clips and updates parameter by parameter: 7% of a step at 1M parameters. The lean
form does the same arithmetic without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from ablations.training.fast_optimizer import bare_step
from ablations.training.nanotron.compat import nanotron_trainer

_trainer = nanotron_trainer()

from nanotron import distributed as dist  # noqa: E402

__all__ = ["Stepper"]

_NORM_EPSILON = 1e-6
"""As torch's and nanotron's clipping add to the norm."""


class Stepper:
    """Steps the model of a nanotron trainer."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        context = trainer.parallel_context
        self.alone = context.world_pg.size() == 1
        self.grad_norm = torch.full((), float("nan"), device=trainer.device)
        self._dp, self._mp, self._pp = context.dp_pg, context.mp_pg, context.pp_pg
        self._parameters = [p for p in trainer.unwrapped_model.parameters() if p.requires_grad]
        self._base_optimizer = trainer.optimizer.get_base_optimizer()
        self._bare_update = bare_step(self._base_optimizer)

    def step(self, batches: Iterator[dict[str, Any]], lr: float) -> torch.Tensor | None:
        """Train one batch; its mean loss, on the ranks that compute it."""
        trainer = self.trainer
        losses = self._passes(batches)
        if not self.alone:
            self._share_gradients()
        self._clip(trainer.job.training.clip_norm)
        loss = self._mean(losses)
        for group in self._base_optimizer.param_groups:
            group["lr"] = lr
        self._update()
        # Its state goes into the checkpoint; the rate it sets is replaced above.
        trainer.lr_scheduler.last_epoch += 1
        return loss

    # -------------------------------------------------------------------- forward and backward

    def _passes(self, batches: Iterator[dict[str, Any]]) -> list[torch.Tensor]:
        """Forward and backward of every micro-batch; the losses, each over the number of them."""
        trainer, count = self.trainer, self.trainer.n_micro_batches_per_batch
        if self._pp.size() == 1 and not isinstance(trainer.model, DistributedDataParallel):
            return [self._pass(next(batches), count) for _ in range(count)]
        outputs = trainer.pipeline_engine.train_batch_iter(
            model=trainer.model,
            pg=self._pp,
            batch=(next(batches) for _ in range(count)),
            nb_microbatches=count,
            grad_accumulator=trainer.grad_accumulator,
        )
        return [o["loss"] for o in outputs if isinstance(o["loss"], torch.Tensor)]

    def _pass(self, batch: dict[str, Any], count: int) -> torch.Tensor:
        loss = self.trainer.model(**batch)["loss"] / count
        accumulator = self.trainer.grad_accumulator
        if accumulator is None:
            loss.backward()
        else:
            accumulator.backward(loss)
        detached: torch.Tensor = loss.detach()
        return detached

    def _mean(self, losses: list[torch.Tensor]) -> torch.Tensor | None:
        """The loss over all micro-batches and data-parallel ranks."""
        if not losses:
            return None
        total = torch.stack(losses).sum()
        if self._dp.size() > 1:
            torch.distributed.all_reduce(total, group=self._dp)
            total /= self._dp.size()
        return total

    # ------------------------------------------------------------------------ update, gradients

    @torch.no_grad()
    def _update(self) -> None:
        """AdamW, then no gradients."""
        trainer, accumulator = self.trainer, self.trainer.grad_accumulator
        if not self.alone:
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            return
        self._bare_update(self._base_optimizer)
        if accumulator is not None:
            accumulator.step()
            accumulator.zero_grad()
        for parameter in self._parameters:
            parameter.grad = None

    def _share_gradients(self) -> None:
        """What nanotron does between backward and clipping, where it is not a no-op."""
        trainer = self.trainer
        if isinstance(trainer.model, DistributedDataParallel):
            if trainer.grad_accumulator is not None:
                trainer.grad_accumulator.fp32_grads_allreduce_handle.wait()
        elif self._dp.size() > 1:
            _trainer.sync_gradients_across_dp(
                module=trainer.model,
                dp_pg=self._dp,
                reduce_op=dist.ReduceOp.AVG,
                reduce_scatter=False,
                grad_accumulator=trainer.grad_accumulator,
            )
        _trainer.sync_tied_weights_gradients(
            module=trainer.unwrapped_model,
            parallel_context=trainer.parallel_context,
            grad_accumulator=trainer.grad_accumulator,
        )

    def _clip(self, max_norm: float | None) -> None:
        if max_norm is None:
            return
        if self.alone:
            self.grad_norm = self._clip_alone(max_norm)
            return
        trainer = self.trainer
        named = trainer.unwrapped_model.get_named_params_with_correct_tied()
        self.grad_norm = _trainer.clip_grad_norm(
            mp_pg=self._mp,
            named_parameters=[(name, p) for name, p in named if p.requires_grad],
            grad_accumulator=trainer.grad_accumulator,
            max_norm=max_norm,
        )

    @torch.no_grad()
    def _clip_alone(self, max_norm: float) -> torch.Tensor:
        """The same norm and factor, in two calls instead of two a parameter."""
        grads = self._gradients()
        norms = torch._foreach_norm(grads, 2.0, dtype=torch.float32)
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
        factor = torch.clamp(max_norm / (norm + _NORM_EPSILON), max=1.0)
        # Where reading the factor costs no synchronisation, a factor of 1 saves a pass over memory.
        if norm.device.type != "cpu" or float(factor) < 1.0:
            torch._foreach_mul_(grads, factor)
        return norm

    def _gradients(self) -> list[torch.Tensor]:
        accumulator = self.trainer.grad_accumulator
        if accumulator is None:
            return [p.grad for p in self._parameters if p.grad is not None]
        return [entry["fp32_grad"] for entry in accumulator.fp32_grad_buffers.values()]
