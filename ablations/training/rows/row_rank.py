"""Frame of the work of one rank that trains on rows. Importing this module imports torch.

with rank_work(job, start) as work:      # device, threads, the lock of the run
    begun = begun_from(job, work.rank, start_folder)
    work.announce()
    …                                     # a Trainer with trainer_arguments(…)
return work.outcome()
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ablations.training.batching import MicroBatching
from ablations.training.nanotron.outcome import outcome_of, training_lock
from ablations.training.placement import choose_device, cpu_threads, device_name
from ablations.training.resume import Start
from ablations.training.rows.steps import Round
from ablations.training.run_logger import Logbook
from ablations.training.train_job import TrainJob, TrainOutcome

__all__ = ["RankWork", "agree", "begun_from", "rank_work", "show_one_gpu", "trainer_arguments"]


@dataclass(frozen=True, kw_only=True)
class RankWork:
    """Work of one rank's process."""

    job: TrainJob
    start: Start
    device: torch.device
    rank: int
    began: float
    """CPU seconds of the process when the work began."""

    def announce(self) -> None:
        """Record that the training begins; the first rank does."""
        if self.rank == 0:
            Logbook(self.job.directory).event(
                self.start.kind,
                step=self.start.step,
                device=str(self.device),
                threads=torch.get_num_threads(),
            )

    def outcome(self) -> TrainOutcome:
        """Return the outcome of the training, which is done."""
        seconds = time.process_time() - self.began
        return replace(outcome_of(self.job), cpu_seconds=seconds, device=device_name(self.device))


@contextlib.contextmanager
def rank_work(job: TrainJob, start: Start) -> Iterator[RankWork]:
    """Choose device and threads of this rank, and hold the lock of the run in the first one.

    Raises:
        HeldError: another worker of this run is still training.
    """
    began = time.process_time()
    show_one_gpu(job)
    device = choose_device(job.execution)
    torch.set_num_threads(job.execution.threads or start.threads or cpu_threads(job.execution))
    rank = int(os.environ.get("RANK", "0"))
    with training_lock(job.directory) if rank == 0 else contextlib.nullcontext():
        yield RankWork(job=job, start=start, device=device, rank=rank, began=began)


def show_one_gpu(job: TrainJob) -> None:
    """Hide all GPUs but the first from a run of one rank.

    The Trainer of transformers divides each batch over all GPUs that a single process sees.
    """
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    if job.execution.ranks == 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.partition(",")[0]


def begun_from(job: TrainJob, rank: int, make: Callable[[TrainJob], str]) -> str:
    """Return the model that the run begins from; the first rank makes it, the others wait for it."""
    if job.execution.ranks == 1:
        return make(job)
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backend)
    if rank == 0:
        make(job)
    torch.distributed.barrier()
    return make(job)


def agree(network: Any, tokenizer: Any) -> None:
    """Make the model's special tokens those of the tokenizer: its end of turn ends a generation."""
    for config in (network.config, network.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


def trainer_arguments(job: TrainJob, part: Round, cut: MicroBatching) -> dict[str, Any]:
    """Return the arguments of a Trainer: every one that the config states, and none that changes a row."""
    training, cuda = job.training, torch.cuda.is_available()
    arguments: dict[str, Any] = {
        "output_dir": str(job.checkpoints_dir / ".partial"),
        "max_steps": part.steps,
        "per_device_train_batch_size": cut.micro_batch_size,
        "gradient_accumulation_steps": cut.micro_batches,
        "learning_rate": training.peak_lr,
        "weight_decay": training.weight_decay,
        "adam_beta1": training.adam_beta1,
        "adam_beta2": training.adam_beta2,
        "adam_epsilon": training.adam_eps,
        "max_grad_norm": training.clip_norm or 0.0,
        "optim": "adamw_torch",
        "seed": job.seed,
        "use_cpu": not cuda,
        "bf16": training.dtype == "bfloat16",
        "activation_checkpointing": job.execution.recompute,
        "train_sampling_strategy": "sequential",
        "remove_unused_columns": False,
        "dataloader_pin_memory": cuda,
        "save_strategy": "no",  # SaveAt asks for them
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
    }
    if job.execution.ranks > 1 and not cuda:
        arguments["ddp_backend"] = "gloo"
    return arguments
