"""Changes to transformers' Trainer: the learning rate, the log, checkpoints, divergence.

``StepsOfARun`` is mixed into SFTTrainer, DPOTrainer and Trainer itself::

    training_step ─▶ counts the rows of the batch ─▶ the Trainer's forward and backward
    log           ─▶ row of metrics.jsonl ─▶ verdict on the loss
    _save_checkpoint ─▶ .partial/checkpoint-<n> ─▶ state.json, checksums ─▶ checkpoints/<step>

The steps of a DPO round are numbered from 0 in the Trainer and go on from the rounds before in the run.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer, TrainerCallback

from ablations.errors import DivergedError
from ablations.files import append_json_line
from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    checkpoint_steps,
    delete,
    is_referenced,
    write_state,
)
from ablations.training.loss_monitor import Diverged, Health
from ablations.training.rows.row_feed import RowFeed
from ablations.training.run_logger import Logbook
from ablations.training.train_job import StepRow, TrainJob

if TYPE_CHECKING:
    from ablations.mixture.schedule import LearningRate

__all__ = ["Round", "SaveAt", "StepsOfARun", "round_of"]

_SPEC = "spec.json"


@dataclass(frozen=True, kw_only=True)
class Round:
    """A part of a run that one Trainer does: all of it, or a round of DPO."""

    number: int
    first_step: int
    """Steps of the run that are done before it."""
    steps: int
    rate: LearningRate
    """Learning rate over its own steps."""


def round_of(job: TrainJob, step: int) -> Round:
    """Return the round that comes after ``step`` steps of a run."""
    rounds = job.method.rounds
    steps = job.schedule.total_steps // rounds
    whole = job.learning_rate
    rate = whole
    if rounds > 1:
        rate = replace(
            whole,
            warmup_steps=whole.warmup_steps // rounds,
            decay_steps=whole.decay_steps // rounds,
            tail_steps=whole.tail_steps // rounds,
            total_steps=steps,
        )
    number = step // steps
    return Round(number=number, first_step=number * steps, steps=steps, rate=rate)


class SaveAt(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint at the run's own steps; the Trainer's ``save_steps`` are equally spaced."""

    def __init__(self, job: TrainJob, part: Round) -> None:
        self._every = job.training.recovery_interval_steps
        ends = range(part.steps, job.schedule.total_steps + 1, part.steps)
        self._steps = {*job.checkpoint_steps, job.schedule.total_steps, *ends}
        self._first = part.first_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Set ``should_save`` where a checkpoint is due."""
        step = self._first + state.global_step
        control.should_save = step in self._steps or bool(self._every and step % self._every == 0)
        return control


class StepsOfARun:
    """Mix-in of a Trainer; :meth:`begin` is called before ``train``."""

    def begin(self, job: TrainJob, part: Round, feed: RowFeed, micro_batch_size: int) -> None:
        """Take what the steps need."""
        self.job, self.part, self.feed = job, part, feed
        self.micro_batch_size = micro_batch_size
        self.logbook = Logbook(job.directory)
        self.health = Health(job.training, job.model.vocab_size)
        self._tokens, self._since = 0, time.time()

    def recall(self, step: int) -> None:
        """Judge the losses of the steps before, so that a resumed run judges as one that was not killed."""
        training = self.job.training
        window = training.spike_window_steps + training.diverged_patience_steps
        self.health.recall(self.logbook.losses(before=step, last=window))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Return the platform's learning rate as a scheduler of torch."""
        del num_training_steps
        used: Any = optimizer if optimizer is not None else self.optimizer  # type: ignore[attr-defined]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(used, self.part.rate.factor)
        return self.lr_scheduler

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both, and take the learning rate of the next step from this run's own schedule.

        A checkpoint holds that of the run that wrote it, which for a trunk has no decay.
        """
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        scheduler = self.lr_scheduler
        factor = self.part.rate.factor(scheduler.last_epoch)
        rates = [base * factor for base in scheduler.base_lrs]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Count the rows that the step is trained on, and train."""
        self.feed.count(inputs.pop("samples").tolist())
        self._tokens += int(inputs["attention_mask"].sum())
        return super().training_step(model, inputs, *args, **options)  # type: ignore[misc]

    def measured(self) -> dict[str, float]:
        """Return what else was measured in the step, by its name in metrics.jsonl."""
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Write the row of a step and judge its loss; the Trainer calls this after every step."""
        del start_time
        more = self.measured()
        if "loss" not in logs:
            return  # the summary at the end of a training
        state: Any = self.state  # type: ignore[attr-defined]
        step = self.part.first_step + state.global_step
        now, tokens = time.time(), self._tokens
        seconds = max(now - self._since, 1e-9)
        self._since, self._tokens = now, 0
        if not state.is_world_process_zero:
            return
        norm = float(logs.get("grad_norm", math.nan))
        row = StepRow(
            step=step,
            tokens=step * self.job.training.batch_size,
            loss=float(logs["loss"]),
            lr=self.part.rate.at(state.global_step - 1),
            grad_norm=norm,
            tokens_per_second=tokens * self.job.execution.dp / seconds,
            seconds=seconds,
        )
        append_json_line(self.logbook.metrics, {**row.to_json(), **more}, seal=True)
        self._judge(step, row.loss, norm if self.job.training.clip_norm else 0.0)

    def _judge(self, step: int, loss: float, norm: float) -> None:
        verdict = self.health.judge(loss, norm)
        if isinstance(verdict, Diverged):
            self.logbook.event("diverged", step=step, reason=str(verdict))
            raise DivergedError(str(verdict), step=step)
        if verdict is not None:
            self.logbook.event("spike", step=step, reason=str(verdict))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint in ``.partial``, and rename it when every rank has written its part."""
        state: Any = self.state  # type: ignore[attr-defined]
        local, step = state.global_step, self.part.first_step + state.global_step
        Trainer._save_checkpoint(self, model, trial)  # TRL's own adds a model card of its run
        device = self.args.device  # type: ignore[attr-defined]
        rows, tokens = self.feed.counts(device)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
        if state.is_world_process_zero:
            folder = self.job.checkpoints_dir
            written = folder / PARTIAL / f"checkpoint-{local}"
            self._finish(written, step, rows, tokens)
            written.rename(folder / str(step))
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
            self._drop_recovery_checkpoints()
            self.logbook.event("checkpoint", step=step)
        self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]

    def _finish(self, written: Path, step: int, rows: Any, tokens: Any) -> None:
        """Add the platform's own files to a checkpoint that is not yet renamed."""
        training = self.job.training
        if self.job.tokenizer is not None:
            shutil.copyfile(self.job.tokenizer / _SPEC, written / _SPEC)
        write_state(
            written,
            CheckpointState(
                step=step,
                samples=step * training.batch_size,
                topology=Topology.of(self.job.execution, training.dtype),
                threads=torch.get_num_threads(),
                micro_batch_size=self.micro_batch_size,
                windows=rows,
                supervised=tokens,
            ),
        )

    def _drop_recovery_checkpoints(self) -> None:
        """Delete the older checkpoints that only a restart would have needed; a newer one is complete."""
        ends = range(self.part.steps, self.job.schedule.total_steps + 1, self.part.steps)
        kept = {*self.job.checkpoint_steps, *ends}
        for step in checkpoint_steps(self.job.checkpoints_dir)[:-1]:
            checkpoint = self.job.checkpoints_dir / str(step)
            if step not in kept and not is_referenced(checkpoint):
                delete(checkpoint)
