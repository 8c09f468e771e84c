"""The worker of a group: one loop of steps over the stacked model, run folders for each proxy."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch

from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    write_state,
)
from ablations.training.feed import Feed, Share
from ablations.training.health import Diverged, Health
from ablations.training.lean import spare_dynamo
from ablations.training.logbook import Logbook
from ablations.training.nanotron.files import OneRank, read_one_rank, write_one_rank
from ablations.training.nanotron.trainer import outcome_of, training_lock
from ablations.training.packing import PositionMaker
from ablations.training.plan import Cut, cut_batch
from ablations.training.start import Start
from ablations.training.together.model import StackedLlama, stacked
from ablations.training.together.optimizer import StackedAdamW
from ablations.training.trainer import StepRow, TrainJob, TrainOutcome

__all__ = ["train_group"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def train_group(argument: tuple[Sequence[TrainJob], Sequence[Start]]) -> list[TrainOutcome]:
    """Train the jobs of a group, all from the same step; their outcomes."""
    jobs, starts = argument
    spare_dynamo()
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(training_lock(job.directory))
        members = [_Member(job, start) for job, start in zip(jobs, starts, strict=True)]
        _Group(members).train()
    return [member.outcome() for member in members]


class _Member:
    """One proxy's own part: samples, rows, verdicts."""

    def __init__(self, job: TrainJob, start: Start) -> None:
        self.job, self.start = job, start
        self.logbook = Logbook(job.directory)
        self.health = Health(job.training, job.model.vocab_size)
        self.diverged: tuple[int, str] | None = None
        if start.kind == "resume":
            self.health.recall(self.logbook.losses(before=start.step, last=256))

    def row(self, row: StepRow) -> None:
        """Write a step down and judge it; a diverged proxy is left to itself from then on."""
        if self.diverged:
            return
        self.logbook.row(row)
        norm = row.grad_norm if self.job.training.clip_norm else 0.0
        verdict = self.health.judge(row.loss, norm)
        if isinstance(verdict, Diverged):
            self.diverged = (row.step, str(verdict))
            self.logbook.event("diverged", step=row.step, reason=str(verdict))
        elif verdict is not None:
            self.logbook.event("spike", step=row.step, reason=str(verdict))

    def outcome(self) -> TrainOutcome:
        done = outcome_of(self.job)
        if self.diverged is None:
            return done
        step, reason = self.diverged
        return TrainOutcome(
            **{**vars(done), "status": "failed", "reason": reason, "last_step": step}
        )


class _Group:
    """The stacked model of the members, and its steps."""

    def __init__(self, members: Sequence[_Member]) -> None:
        self.members = members
        job = members[0].job
        self.model_spec, self.training, self.execution = job.model, job.training, job.execution
        cpu = self.execution.device == "cpu" or not torch.cuda.is_available()
        self.device = torch.device("cpu" if cpu else "cuda")
        if self.execution.threads:
            torch.set_num_threads(self.execution.threads)
        self.cut = self._cut(len(members))
        share = Share(0, 1, self.cut.micro_batch_size)
        self.feeds = [Feed(m.job, share, m.start.windows) for m in members]
        self.model = StackedLlama.initial(
            self.model_spec,
            [m.job.seed for m in members],
            self.device,
            _DTYPES[self.training.dtype],
        )
        self.optimizer = StackedAdamW(self.model.weights, self.training)
        self.positions = PositionMaker(
            length=self.training.sequence_length,
            width=self.model_spec.head_dim,
            theta=self.model_spec.rope_theta,
            eos_id=self.feeds[0].eos_id if self.training.intra_document_masking else None,
            device=self.device,
            dtype=_DTYPES[self.training.dtype],
        )

    def _cut(self, members: int) -> Cut:
        """A micro-batch that fits: a device's memory is shared by the proxies."""
        memory = None
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory // members
        return cut_batch(self.model_spec, self.training, self.execution, memory_bytes=memory)

    def train(self) -> None:
        """All steps from the common start."""
        first = self.members[0].start.step
        if first:
            self._restore()
        job = self.members[0].job
        saved = {*job.checkpoint_steps, job.schedule.total_steps}
        for member in self.members:
            kind = member.start.kind
            member.logbook.event(
                kind, step=first, device=str(self.device), together=len(self.members)
            )
        for step in range(first, job.schedule.total_steps):
            began = time.time()
            losses, norms = self._step(step)
            self._write_rows(step + 1, losses, norms, time.time() - began)
            if step + 1 in saved:
                self._save(step + 1)
            if all(member.diverged for member in self.members):
                return

    def _step(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        batches = torch.from_numpy(np.stack([feed.step(step) for feed in self.feeds]))
        passes = batches.shape[1]
        total = torch.zeros(len(self.members), device=self.device)
        for i in range(passes):
            tokens = batches[:, i].to(self.device, non_blocking=True)
            ids, labels = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
            losses = self.model.losses(ids, labels, self.positions.of(ids.flatten(0, 1))) / passes
            losses.sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.take_gradients()
            total += losses.detach()
        return total, self.optimizer.step(self.members[0].job.learning_rate.at(step))

    def _write_rows(
        self, step: int, losses: torch.Tensor, norms: torch.Tensor, seconds: float
    ) -> None:
        pairs = zip(self.members, losses.tolist(), norms.tolist(), strict=True)
        for member, loss, norm in pairs:
            tokens = self.training.tokens_per_step
            member.row(
                StepRow(
                    step=step,
                    tokens=step * tokens,
                    loss=loss,
                    lr=member.job.learning_rate.at(step - 1),
                    grad_norm=norm,
                    tokens_per_second=tokens / seconds,
                    seconds=seconds,
                )
            )

    # -------------------------------------------------------------------------------- checkpoints

    def _save(self, step: int) -> None:
        first, second, updates = self.optimizer.moments()
        group = {k: v for k, v in self.optimizer.adamw.param_groups[0].items() if k != "params"}
        for k, member in enumerate(self.members):
            final = member.job.checkpoints_dir / str(step)
            if member.diverged or final.exists():
                continue
            masters = self.optimizer.masters
            state = OneRank(
                weights=_of(self.model.weights, k),
                exp_avg=_of(first, k),
                exp_avg_sq=_of(second, k),
                masters=None if masters is None else _of(masters, k),
                updates=updates,
            )
            partial = member.job.checkpoints_dir / PARTIAL
            shutil.rmtree(partial, ignore_errors=True)
            written = partial / str(step)
            written.mkdir(parents=True)
            samples = step * self.training.batch_size
            write_one_rank(
                written, state, model=self.model_spec, step=step, samples=samples, group=group
            )
            write_state(written, self._state(step, samples, self.feeds[k]))
            written.rename(final)
            shutil.rmtree(partial)
            member.logbook.event("checkpoint", step=step)

    def _state(self, step: int, samples: int, feed: Feed) -> CheckpointState:
        return CheckpointState(
            step=step,
            samples=samples,
            topology=Topology.of(self.execution, self.training.dtype),
            threads=torch.get_num_threads(),
            micro_batch_size=self.cut.micro_batch_size,
            windows=tuple(tuple(row) for row in feed.counts.array.tolist()),
        )

    @torch.no_grad()
    def _restore(self) -> None:
        """Every proxy's weights and moments from its checkpoint at the common step."""
        folders = [m.start.checkpoint for m in self.members]
        states = [read_one_rank(folder) for folder in folders if folder is not None]
        for name, tensor in stacked([state.weights for state in states]).items():
            self.model.weights[name].copy_(tensor)
        masters = [state.masters for state in states if state.masters is not None]
        self.optimizer.restore(
            stacked([state.exp_avg for state in states]),
            stacked([state.exp_avg_sq for state in states]),
            states[0].updates,
            stacked(masters) if masters else None,
        )


def _of(tensors: dict[str, torch.Tensor], k: int) -> dict[str, torch.Tensor]:
    """One proxy's own tensors, on the CPU."""
    return {name: tensor[k].detach().cpu().clone() for name, tensor in tensors.items()}
