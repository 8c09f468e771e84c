"""What one rank's worker process does. Importing it imports torch and nanotron."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.distributed
from torch._C._distributed_c10d import HashStore

from ablations.errors import ConfigError, Problem
from ablations.training.feed import Feed, Share
from ablations.training.nanotron.compat import nanotron_trainer, use_cpu, use_one_rank
from ablations.training.nanotron.engine import Engine
from ablations.training.nanotron.trainer import outcome_of, training_lock
from ablations.training.plan import Cut, cut_batch
from ablations.training.specs import ExecutionSpec
from ablations.training.start import Start
from ablations.training.trainer import TrainJob, TrainOutcome

__all__ = ["choose_device", "cpu_threads", "train_rank"]

_CUDA_LOSS_CHUNK_TOKENS = 4096
"""At a vocabulary of 49,152: 0.8 GB of float32 logits at once, and matrices still large enough."""


def train_rank(argument: tuple[TrainJob, Start]) -> TrainOutcome:
    """Train this rank's part of a job to its end."""
    job, start = argument
    began = time.process_time()
    device = choose_device(job.execution)
    torch.set_num_threads(job.execution.threads or start.threads or cpu_threads(job.execution))
    if job.execution.ranks == 1 and not job.execution.compile:
        use_one_rank()
    first = os.environ.get("RANK", "0") == "0"
    with training_lock(job.directory) if first else contextlib.nullcontext(), _ranks(device):
        job, cut = _fit(job, device)
        share = Share(_dp_rank(job.execution), job.execution.dp, cut.micro_batch_size)
        feed = Feed(job, share, start.windows)
        engine = Engine(job, cut, start, feed=feed, device=device)
        if engine.is_writer:
            engine.logbook.event(
                start.kind, step=start.step, device=str(device), threads=torch.get_num_threads()
            )
        engine.run()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    done = outcome_of(job)
    return TrainOutcome(
        **{**vars(done), "cpu_seconds": time.process_time() - began, "device": name}
    )


def _fit(job: TrainJob, device: torch.device) -> tuple[TrainJob, Cut]:
    """The job with what it leaves open settled for a device, and its batch cut to fit."""
    if device.type == "cpu":
        return job, cut_batch(job.model, job.training, job.execution)
    execution = job.execution
    if execution.loss_chunk_tokens is None:
        execution = replace(execution, loss_chunk_tokens=_CUDA_LOSS_CHUNK_TOKENS)
    memory = torch.cuda.get_device_properties(device).total_memory
    cut = cut_batch(job.model, job.training, execution, memory_bytes=memory)
    return replace(job, execution=execution), cut


def choose_device(execution: ExecutionSpec) -> torch.device:
    """The device of this rank.

    Raises:
        ConfigError: CUDA was asked for and there is none, or not one for every rank.
    """
    if execution.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nanotron takes CUDA wherever it sees it
        return torch.device("cpu")
    seen = torch.cuda.device_count()
    if seen >= execution.ranks:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if execution.device == "cuda":
        raise ConfigError(
            Problem(
                "execution.device",
                "not a CUDA device for every rank",
                found=f"{seen} devices",
                allowed=f"{execution.ranks}",
                do="set execution.device=cpu, or fewer ranks",
            )
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return torch.device("cpu")


def cpu_threads(execution: ExecutionSpec) -> int:
    """This process's cores, shared over the ranks; more than 8 slow the small models of a CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, (cores or 1) // execution.ranks))


def _dp_rank(execution: ExecutionSpec) -> int:
    """nanotron numbers ranks [pipeline, data, tensor], the last fastest."""
    return int(os.environ["RANK"]) // execution.tp % execution.dp


@contextlib.contextmanager
def _ranks(device: torch.device) -> Iterator[None]:
    """The process group, made before nanotron would make one of its own (NCCL, on a free port)."""
    nanotron_trainer()
    if device.type == "cpu":
        use_cpu()
    else:
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        torch.distributed.init_process_group(backend)
    else:  # one rank, in this process alone: no port
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        store = HashStore()
        torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        if os.environ["WORLD_SIZE"] == "1":
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                os.environ.pop(name, None)
