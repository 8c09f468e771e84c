"""nanotron's DistributedTrainer with additions to 0.4: our schedule, exact resume, faster steps.

    train()  (nanotron's loop)
      └─ training_step        forward and backward ─▶ gradients ─▶ clip ─▶ AdamW     (optimizer_step.py)
      └─ train_step_logs      row ─▶ verdict on the loss ─▶ checkpoint, if one is due

nanotron builds and divides the model, and provides process groups, DDP, pipeline engines, tied weights, ZeRO,
gradient accumulation and checkpoints. The changes, and their reasons:

* The learning rate of step s is ``LearningRate.at(s)``, set before the optimiser's step. 0.4 resumes
  with lr(0) in the optimiser, which changes the loss by 8e-3, and has no 1-sqrt decay.
* A checkpoint is written in ``.partial`` and renamed, at the configured steps and at the end, behind the
  steps after it where that pays (``saver.py``).
* ``unsharded_shape`` consists of numpy integers, which 0.4 writes as text that it cannot read: they are
  converted.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from ablations.errors import DivergedError
from ablations.training.async_metrics import Reading, Readings
from ablations.training.batching import MicroBatching
from ablations.training.checkpoints import (
    PARTIAL,
    CheckpointState,
    Topology,
    checkpoint_steps,
    delete,
    is_referenced,
    write_state,
)
from ablations.training.dataloader import Feed
from ablations.training.float8 import float8_product
from ablations.training.loss_monitor import Diverged, Health
from ablations.training.nanotron.compat import CudaToCpu, nanotron_trainer
from ablations.training.nanotron.decoder import Llama, Slot
from ablations.training.nanotron.nanotron_config import DTYPES, nanotron_config
from ablations.training.nanotron.optimizer_step import Stepper
from ablations.training.nanotron.saver import Saver
from ablations.training.packing import PositionMaker
from ablations.training.resume import Start
from ablations.training.run_logger import Logbook, row_of
from ablations.training.train_job import TrainJob

_trainer = nanotron_trainer()

from nanotron import distributed as dist  # noqa: E402
from nanotron.parallel.pipeline_parallel.tensor_pointer import TensorPointer  # noqa: E402
from nanotron.serialize.metadata import CheckpointMetadata  # noqa: E402

__all__ = ["Engine"]

_AHEAD = 2
"""Steps that a thread reads ahead for a GPU; on a CPU the reading would take the training's own cores."""


class Engine(_trainer.DistributedTrainer):  # type: ignore[misc, name-defined]
    """Trainer of one rank for one job."""

    def __init__(
        self, job: TrainJob, cut: MicroBatching, start: Start, *, feed: Feed, device: torch.device
    ) -> None:
        self.job, self.cut, self.start = job, cut, start
        self.feed, self.device = feed, device
        self.logbook = Logbook(job.directory)
        self.readings = Readings()
        self.health = Health(job.training, job.model.vocab_size)
        self.slot = Slot(
            recompute=job.execution.recompute,
            compile=job.execution.compile,
            loss_chunk_tokens=job.execution.loss_chunk_tokens,
        )
        if job.training.float8:
            self.slot.product = float8_product(device)
        self.saved_steps = {*job.checkpoint_steps, job.schedule.total_steps}
        with self._patched_trainer(), self._patched_device():
            super().__init__("", model_class=functools.partial(Llama, slot=self.slot))
        asked = job.execution.background_checkpoints
        background = device.type == "cuda" if asked is None else asked
        self.saver = Saver(job.execution.ranks, background=background)

    @contextlib.contextmanager
    def _patched_trainer(self) -> Iterator[None]:
        """Make nanotron take config, schedule and start from the job, and accept batches unchecked."""
        ours = {
            "get_config_from_file": lambda *_, **__: nanotron_config(
                self.job, self.cut, self.start
            ),
            "lr_scheduler_builder": self._build_scheduler,
            "load_lr_scheduler": lambda **_: None,
            "load_meta": self._start_meta,
            "sanity_check_dataloader": lambda dataloader, **_: dataloader,
        }
        theirs = {name: getattr(_trainer, name) for name in ours}
        try:
            for name, function in ours.items():
                setattr(_trainer, name, function)
            yield
        finally:
            for name, function in theirs.items():
                setattr(_trainer, name, function)

    def _patched_device(self) -> contextlib.AbstractContextManager[Any]:
        return CudaToCpu() if self.device.type == "cpu" else contextlib.nullcontext()

    def _build_scheduler(self, optimizer: Any, **_: Any) -> Any:
        factor = self.job.learning_rate.factor
        return torch.optim.lr_scheduler.LambdaLR(optimizer.get_base_optimizer(), factor)

    def _start_meta(self, **_: Any) -> CheckpointMetadata:
        """Return the progress to continue from; a warm start need not continue at its checkpoint's step."""
        samples = self.start.step * self.job.training.batch_size
        metas = {"last_train_step": self.start.step, "consumed_train_samples": samples}
        return CheckpointMetadata(version=None, tp=0, dp=0, metas=metas)

    # ----------------------------------------------------------------------- nanotron's own hooks

    def post_init(self) -> None:
        """Correct and complete the state that nanotron's constructor leaves."""
        job = self.job
        for parameter in self.unwrapped_model.parameters():
            if parameter.is_sharded:
                info = parameter.get_sharded_info()
                info.unsharded_shape = tuple(int(size) for size in info.unsharded_shape)
        # 0.4 sets this to the sequence length, and the exported model could not read longer sequences.
        self.model_config.max_position_embeddings = job.model.max_position_embeddings
        self.start_iteration_step = self.iteration_step = self.start.step
        self.consumed_train_samples = self.start.step * job.training.batch_size
        self.lr_scheduler.last_epoch = self.start.step
        self.positions = PositionMaker(
            length=job.training.sequence_length,
            width=job.model.head_dim,
            theta=job.model.rope_theta,
            eos_id=self.feed.eos_id if job.training.intra_document_masking else None,
            device=self.device,
            dtype=DTYPES[job.training.dtype],
        )
        self.stepper = Stepper(self)
        window = job.training.spike_window_steps + job.training.diverged_patience_steps
        if self.start.kind == "resume":
            self.health.recall(self.logbook.losses(before=self.start.step, last=window))

    def pre_training(self, *_: Any, **__: Any) -> None:
        """Do nothing: 0.4 calls ``wandb.init()`` here if wandb can be imported."""

    def training_step(self, dataloader: Iterator[dict[str, Any]]) -> tuple[Any, Any]:
        """Do one optimiser step; nanotron's loop counts steps from 1."""
        return [], self.stepper.step(dataloader, self.job.learning_rate.at(self.iteration_step - 1))

    def train_step_logs(self, outputs: Any, loss_avg: torch.Tensor | None) -> None:
        """Write the step's row, judge its loss, and save a checkpoint if one is due."""
        due = self.iteration_step in self.saved_steps or self._recovery_due()
        if loss_avg is not None and self.is_writer:
            seconds = time.time() - self.iteration_start_time
            self.readings.add(self.iteration_step, seconds, loss_avg, self.stepper.grad_norm)
            for reading in self.readings.ready(everything=due):
                self._write_row(reading)
        self._note_checkpoint(wait=due)
        if due:
            self.save_checkpoint()

    # ----------------------------------------------------------------------------------- training

    @property
    def is_writer(self) -> bool:
        """Return whether this rank writes the log: of the ranks that have the loss, only one does."""
        return dist.get_rank(self.parallel_context.world_pg) in self.logger_ranks

    def _write_row(self, reading: Reading) -> None:
        step = reading.step
        row = row_of(self.job, reading)
        self.logbook.row(row)
        grad_norm = row.grad_norm if self.job.training.clip_norm else 0.0
        verdict = self.health.judge(row.loss, grad_norm)
        if verdict is None:
            return
        if isinstance(verdict, Diverged):
            self.logbook.event("diverged", step=step, reason=str(verdict))
            raise DivergedError(str(verdict), step=step)
        self.logbook.event("spike", step=step, reason=str(verdict))

    def batches(self) -> Iterator[dict[str, Any]]:
        """Yield this rank's micro-batches, from the start's step on."""
        on_cuda = self.device.type == "cuda"
        stop = self.job.end_step
        for tokens in self.feed.steps(self.start.step, stop, ahead=_AHEAD if on_cuda else 0):
            whole = torch.from_numpy(tokens)
            if on_cuda:
                whole = whole.pin_memory().to(self.device, non_blocking=True)
            for micro in whole:
                yield self._micro_batch(micro)

    def _micro_batch(self, tokens: torch.Tensor) -> dict[str, Any]:
        """Return what this rank's part of the model needs of tokens ``[windows, length + 1]``."""
        model, at = self.unwrapped_model, dist.get_rank(self.parallel_context.pp_pg)
        inputs, labels = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
        first, last = model.input_pp_rank, model.output_pp_rank
        return {
            "input_ids": inputs if at == first else TensorPointer(first),
            "label_ids": labels if at == last else TensorPointer(last),
            "positions": self.positions.of(inputs),
        }

    def run(self) -> None:
        """Train to the end of the schedule, or to the step at which the job pauses."""
        with self._patched_trainer():
            shape = (self.cut.micro_batch_size, self.job.training.sequence_length + 1)
            token = 0 if self.feed.eos_id != 0 else 1
            blank = torch.full(shape, token, dtype=torch.int64, device=self.device)
            self.stepper.settle_buckets(lambda: self._micro_batch(blank))
            try:
                self.train(self.batches())
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the reason
                    self._note_checkpoint(wait=True)
                raise
            self._note_checkpoint(wait=True)

    # -------------------------------------------------------------------------------- checkpoints

    @torch.no_grad()  # 0.4 averages fresh leaf parameters in place; gloo's AVG does it under autograd
    def _load_model_checkpoint(self, model: Any) -> Any:
        return super()._load_model_checkpoint(model)

    @torch.no_grad()
    def save_checkpoint(self) -> Path:
        """Write a checkpoint in ``.partial``; it is renamed after every rank has written its part."""
        folder = self.job.checkpoints_dir
        final = folder / str(self.iteration_step)
        first = dist.get_rank(self.parallel_context.world_pg) == 0
        if first:
            shutil.rmtree(folder / PARTIAL, ignore_errors=True)
        with self._patched_device(), self.saver.collected() as writes:
            written: Path = super().save_checkpoint()
        complete = functools.partial(self._complete, written, final, self._state())
        self.saver.finish(self.iteration_step, writes, complete if first else None)
        self._note_checkpoint(wait=False)
        return final

    def _complete(self, written: Path, final: Path, state: CheckpointState) -> None:
        """Give a checkpoint its name when all its files are there."""
        write_state(written, state)
        written.rename(final)
        shutil.rmtree(final.with_name(PARTIAL), ignore_errors=True)
        self._drop_recovery_checkpoints()

    def _note_checkpoint(self, *, wait: bool) -> None:
        """Record that a checkpoint is complete; raise what its writing raised."""
        step = self.saver.done(wait=wait)
        if step is not None and self.is_writer:
            self.logbook.event("checkpoint", step=step)

    def _recovery_due(self) -> bool:
        interval = self.job.training.recovery_interval_steps
        return interval is not None and self.iteration_step % interval == 0

    def _drop_recovery_checkpoints(self) -> None:
        """Delete the older checkpoints that only a restart would have needed; a newer one is complete."""
        for step in checkpoint_steps(self.job.checkpoints_dir)[:-1]:
            checkpoint = self.job.checkpoints_dir / str(step)
            if step not in self.saved_steps and not is_referenced(checkpoint):
                delete(checkpoint)

    def _state(self) -> CheckpointState:
        training = self.job.training
        return CheckpointState(
            step=self.iteration_step,
            samples=self.iteration_step * training.batch_size,
            topology=Topology.of(self.job.execution, training.dtype),
            threads=torch.get_num_threads(),
            micro_batch_size=self.cut.micro_batch_size,
            windows=tuple(tuple(row) for row in self._windows().tolist()),
        )

    def _windows(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the windows [stage][source] that all data-parallel ranks read together."""
        counts = torch.from_numpy(self.feed.counts.array.copy())
        if (dp := self.parallel_context.dp_pg).size() > 1:
            counts = counts.to(self.device)
            torch.distributed.all_reduce(counts, group=dp)
        result: np.ndarray[Any, np.dtype[np.int64]] = counts.cpu().numpy()
        return result
