"""One proxy of a group: its run folder, its rows and verdicts, its checkpoints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    checkpoint_steps,
    delete,
    is_referenced,
    write_state,
)
from ablations.training.health import Diverged, Health
from ablations.training.logbook import Logbook
from ablations.training.nanotron.files import OneRank, write_one_rank
from ablations.training.nanotron.trainer import outcome_of
from ablations.training.start import Start
from ablations.training.trainer import StepRow, TrainJob, TrainOutcome

__all__ = ["Member", "one_of"]


class Member:
    """What one proxy of a group has to itself."""

    def __init__(self, job: TrainJob, start: Start) -> None:
        self.job, self.start = job, start
        self.logbook = Logbook(job.directory)
        self.health = Health(job.training, job.model.vocab_size)
        self.diverged: tuple[int, str] | None = None
        if start.kind == "resume":
            window = job.training.spike_window_steps + job.training.diverged_patience_steps
            self.health.recall(self.logbook.losses(before=start.step, last=window))

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

    def save(self, weights: OneRank, state: CheckpointState, group: Mapping[str, Any]) -> None:
        """Write a checkpoint aside, and give it its name; one that is there already stands.

        Args:
            group: AdamW's settings.
        """
        final = self.job.checkpoints_dir / str(state.step)
        if final.exists():
            return
        partial = self.job.checkpoints_dir / PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        written = partial / str(state.step)
        written.mkdir(parents=True)
        model, samples = self.job.model, state.samples
        write_one_rank(written, weights, model=model, step=state.step, samples=samples, group=group)
        write_state(written, state)
        written.rename(final)
        shutil.rmtree(partial)
        self.logbook.event("checkpoint", step=state.step)

    def drop_recovery_checkpoints(self) -> None:
        """A newer checkpoint is whole, of every proxy: those kept for a restart alone may go."""
        kept = {*self.job.checkpoint_steps, self.job.schedule.total_steps}
        for step in checkpoint_steps(self.job.checkpoints_dir)[:-1]:
            checkpoint = self.job.checkpoints_dir / str(step)
            if step not in kept and not is_referenced(checkpoint):
                delete(checkpoint)

    def outcome(self, cpu_seconds: float, device: str) -> TrainOutcome:
        """How its training ended.

        Args:
            cpu_seconds: Its share of the group's.
        """
        done = replace(outcome_of(self.job), cpu_seconds=cpu_seconds, device=device)
        if self.diverged is None:
            return done
        step, reason = self.diverged
        return replace(done, status="failed", reason=reason, last_step=step)


def one_of(tensors: Mapping[str, torch.Tensor], k: int) -> dict[str, torch.Tensor]:
    """One proxy's own tensors, on the CPU."""
    return {name: tensor[k].detach().cpu().clone() for name, tensor in tensors.items()}
