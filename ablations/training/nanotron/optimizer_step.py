"""One optimiser step: nanotron's for several ranks, plain torch for one rank.

With one rank, nanotron 0.4 still all-reduces each parameter's gradient, visits all modules twice, formats
debug messages, and clips and updates parameter by parameter: 7% of a step at 1M parameters. The form for one
rank does the same arithmetic without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
"""Constant that torch's and nanotron's clipping add to the norm."""


class Stepper:
    """Optimiser step of a nanotron trainer's model."""

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
        """Train one batch at rate ``lr``; return its mean loss on the ranks that compute it, else None."""
        trainer = self.trainer
        losses = self._passes(batches)
        if not self.alone:
            self._share_gradients()
        self._clip(trainer.job.training.clip_norm)
        loss = self._mean(losses)
        for group in self._base_optimizer.param_groups:
            group["lr"] = lr
        self._update()
        # The scheduler's state is saved in the checkpoint; the rate that it sets is replaced above.
        trainer.lr_scheduler.last_epoch += 1
        return loss

    def settle_buckets(self, blank: Callable[[], dict[str, Any]]) -> None:
        """Let DDP choose its buckets of gradients before the first step, so that all steps share them.

        DDP reduces its first backward pass in one bucket, and later ones in the order in which gradients
        came. From three ranks on, the order of a sum depends on the buckets. The first step after a resume
        then differed by 2e-6 from that of a run that was never killed. One pass over a blank batch changes
        no weight and no state.

        Args:
            blank: Function that returns a micro-batch of the shape that is trained on.
        """
        trainer = self.trainer
        if not isinstance(trainer.model, DistributedDataParallel) or self._dp.size() < 2:
            return
        # nanotron's loop takes the same engine from the config, and sets its number of micro-batches.
        pipeline_engine = trainer.config.parallelism.pp_engine
        pipeline_engine.nb_microbatches = 1
        pipeline_engine.train_batch_iter(
            model=trainer.model,
            pg=self._pp,
            batch=iter([blank()]),
            nb_microbatches=1,
            grad_accumulator=trainer.grad_accumulator,
        )
        if trainer.grad_accumulator is not None:
            trainer.grad_accumulator.fp32_grads_allreduce_handle.wait()
        trainer.optimizer.zero_grad()
        trainer.model.reducer._rebuild_buckets()

    # -------------------------------------------------------------------- forward and backward

    def _passes(self, batches: Iterator[dict[str, Any]]) -> list[torch.Tensor]:
        """Run forward and backward of every micro-batch; return the losses, each divided by their number."""
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
        """Return the loss over all micro-batches and data-parallel ranks."""
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
        """Update the weights with AdamW, and drop the gradients."""
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
        """Synchronise gradients over ranks, as nanotron does between backward and clipping."""
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
        """Clip with the same norm and factor as nanotron, in two calls instead of two per parameter."""
        grads = self._gradients()
        norms = torch._foreach_norm(grads, 2.0, dtype=torch.float32)
        norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(norms))
        factor = torch.clamp(max_norm / (norm + _NORM_EPSILON), max=1.0)
        # Reading the factor is free on a CPU, and a factor of 1 saves a pass over memory.
        if norm.device.type != "cpu" or float(factor) < 1.0:
            torch._foreach_mul_(grads, factor)
        return norm

    def _gradients(self) -> list[torch.Tensor]:
        accumulator = self.trainer.grad_accumulator
        if accumulator is None:
            return [p.grad for p in self._parameters if p.grad is not None]
        return [entry["fp32_grad"] for entry in accumulator.fp32_grad_buffers.values()]
