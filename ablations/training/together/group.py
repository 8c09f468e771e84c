"""The worker of a group: one loop of steps over the stacked model, run folders for each proxy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch

from ablations.training.checkpoints import CheckpointState, Topology
from ablations.training.feed import Feed, Share
from ablations.training.graphs import StaticPass, why_no_graph
from ablations.training.lean import spare_dynamo
from ablations.training.logbook import row_of
from ablations.training.nanotron.files import OneRank, read_one_rank
from ablations.training.nanotron.trainer import training_lock
from ablations.training.packing import PositionMaker
from ablations.training.placement import choose_device, cpu_threads, device_name, fit
from ablations.training.readings import Readings
from ablations.training.start import Start
from ablations.training.together.member import Member, one_of
from ablations.training.together.model import StackedLlama, stacked
from ablations.training.together.optimizer import StackedAdamW
from ablations.training.trainer import TrainJob, TrainOutcome

__all__ = ["Group", "train_group"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_AHEAD = 2
"""Steps that threads read ahead of a GPU; a CPU's own cores would do the reading."""


def train_group(argument: tuple[Sequence[TrainJob], Sequence[Start]]) -> list[TrainOutcome]:
    """Train the jobs of a group, all from the same step; their outcomes."""
    jobs, starts = argument
    began = time.process_time()
    execution = jobs[0].execution
    device = choose_device(execution)
    torch.set_num_threads(execution.threads or starts[0].threads or cpu_threads(execution))
    if not execution.compile:
        spare_dynamo()
    with ExitStack() as locks:
        for job in jobs:
            locks.enter_context(training_lock(job.directory))
        members = [Member(job, start) for job, start in zip(jobs, starts, strict=True)]
        Group(members, device).train()
    share = (time.process_time() - began) / len(members)
    return [member.outcome(share, device_name(device)) for member in members]


class Group:
    """The stacked model of the members, and its steps."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        self.members, self.device = members, device
        # A device's memory is shared by the proxies.
        job, self.cut = fit(members[0].job, device, shared_by=len(members))
        self.job = job
        self.readings = Readings()
        share = Share(0, 1, self.cut.micro_batch_size)
        self.feeds = [Feed(m.job, share, m.start.windows) for m in members]
        dtype = _DTYPES[job.training.dtype]
        self.model = StackedLlama.initial(
            job.model, [m.job.seed for m in members], job.execution, device=device, dtype=dtype
        )
        self.optimizer = StackedAdamW(self.model.weights, job.training)
        self.positions = PositionMaker(
            length=job.training.sequence_length,
            width=job.model.head_dim,
            theta=job.model.rope_theta,
            eos_id=self.feeds[0].eos_id if job.training.intra_document_masking else None,
            device=device,
            dtype=dtype,
        )
        self._no_graph = why_no_graph(job.execution, job.training, device)
        self._static: StaticPass | None = None

    @property
    def first_step(self) -> int:
        """Steps that count as done before the group's first."""
        return self.members[0].start.step

    def train(self) -> None:
        """All steps from the common start."""
        if self.first_step:
            self._restore()
        self._begin()
        last = self.job.schedule.total_steps
        saved = {*self.job.checkpoint_steps, last}
        recovery = self.job.training.recovery_interval_steps
        began = time.time()
        for step, batch in enumerate(self.batches(), self.first_step + 1):
            losses, norms = self.step(step, batch)
            now = time.time()
            self.readings.add(step, now - began, losses, norms)
            began = now
            due = step in saved or (recovery is not None and step % recovery == 0)
            self.write_rows(everything=due or step == last)
            if all(member.diverged for member in self.members):
                return
            if due:
                self._save(step)
                began = time.time()

    def _begin(self) -> None:
        note = {"together": len(self.members), "device": str(self.device)}
        if self.job.execution.cuda_graph and self._no_graph is not None:
            note["cuda_graph"] = f"not used: {self._no_graph}"
        for member in self.members:
            threads = torch.get_num_threads()
            member.logbook.event(member.start.kind, step=self.first_step, threads=threads, **note)

    # --------------------------------------------------------------------------------- the steps

    def batches(self) -> Iterator[torch.Tensor]:
        """Tokens [proxies, micro-batches, samples, length + 1] of every step, on the device."""
        on_cuda = self.device.type == "cuda"
        span, ahead = (self.first_step, self.job.schedule.total_steps), _AHEAD if on_cuda else 0
        for parts in zip(*(feed.steps(*span, ahead=ahead) for feed in self.feeds), strict=True):
            batch = torch.from_numpy(np.stack(parts))
            if on_cuda:
                batch = batch.pin_memory().to(self.device, non_blocking=True)
            yield batch

    def step(self, step: int, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Train one step, counted from 1; losses and gradient norms [proxies], on the device."""
        total = torch.zeros(len(self.members), device=self.device)
        for i in range(batch.shape[1]):
            total += self._pass(batch[:, i])
            self.optimizer.take_gradients()
        norms = self.optimizer.step(self.job.learning_rate.at(step - 1))
        return total, norms

    def _pass(self, tokens: torch.Tensor) -> torch.Tensor:
        """Forward and backward of a micro-batch [proxies, samples, length + 1]; losses [proxies]."""
        if self.job.execution.cuda_graph and self._no_graph is None:
            if self._static is None:
                self._static = StaticPass(
                    self._losses,
                    [tokens],
                    self.optimizer.trained,
                    record=self.device.type == "cuda",
                )
                self.optimizer.keep_buffers()
            return self._static(tokens)
        losses = self._losses(tokens)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def _losses(self, tokens: torch.Tensor) -> torch.Tensor:
        ids, labels = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
        positions = self.positions.of(ids.flatten(0, 1))
        return self.model.losses(ids, labels, positions) / self.cut.micro_batches

    def write_rows(self, *, everything: bool = False) -> None:
        """Write down the steps whose numbers have arrived; wait for all that were taken if ``everything``."""
        for reading in self.readings.ready(everything=everything):
            for k, member in enumerate(self.members):
                member.row(row_of(member.job, reading, k))

    # -------------------------------------------------------------------------------- checkpoints

    def _save(self, step: int) -> None:
        first, second, updates = self.optimizer.moments()
        masters = self.optimizer.masters
        settings = {k: v for k, v in self.optimizer.adamw.param_groups[0].items() if k != "params"}
        well = [(k, member) for k, member in enumerate(self.members) if not member.diverged]
        for k, member in well:
            weights = OneRank(
                weights=one_of(self.model.weights, k),
                exp_avg=one_of(first, k),
                exp_avg_sq=one_of(second, k),
                masters=None if masters is None else one_of(masters, k),
                updates=updates,
            )
            member.save(weights, self._state(step, self.feeds[k]), settings)
        # After the last of them: a kill between two saves leaves a step that all have.
        for _, member in well:
            member.drop_recovery_checkpoints()

    def _state(self, step: int, feed: Feed) -> CheckpointState:
        training = self.job.training
        return CheckpointState(
            step=step,
            samples=step * training.batch_size,
            topology=Topology.of(self.job.execution, training.dtype),
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
