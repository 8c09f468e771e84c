"""Work of one rank's worker process. Importing this module imports torch and nanotron."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.distributed
from torch._C._distributed_c10d import HashStore

from ablations.training.dataloader import Feed, Share
from ablations.training.nanotron.compat import nanotron_trainer, use_cpu, use_one_rank
from ablations.training.nanotron.engine import Engine
from ablations.training.nanotron.outcome import outcome_of, training_lock
from ablations.training.placement import (
    choose_device,
    cpu_threads,
    device_name,
    fit,
    indexed,
)
from ablations.training.resume import Start
from ablations.training.specs import ExecutionSpec
from ablations.training.train_job import TrainJob, TrainOutcome

__all__ = ["train_rank"]


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
        job, cut = fit(job, device)
        share = Share(_dp_rank(job.execution), job.execution.dp, cut.micro_batch_size)
        feed = Feed(job, share, start.windows)
        engine = Engine(job, cut, start, feed=feed, device=device)
        if engine.is_writer:
            threads = torch.get_num_threads()
            engine.logbook.event(start.kind, step=start.step, device=str(device), threads=threads)
        engine.run()
    seconds = time.process_time() - began
    return replace(outcome_of(job), cpu_seconds=seconds, device=device_name(device))


def _dp_rank(execution: ExecutionSpec) -> int:
    """Return the data-parallel rank; nanotron numbers ranks [pipeline, data, tensor], the last fastest."""
    return int(os.environ["RANK"]) // execution.tp % execution.dp


@contextlib.contextmanager
def _ranks(device: torch.device) -> Iterator[None]:
    """Open the process group before nanotron would open its own (NCCL, on a free port), and close it."""
    nanotron_trainer()
    device = indexed(device)
    if device.type == "cpu":
        use_cpu()
    else:
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    # Without a device, NCCL guesses it from the rank and warns at every barrier.
    bound = device if device.type == "cuda" else None
    if "RANK" in os.environ:
        torch.distributed.init_process_group(backend, device_id=bound)
    else:  # one rank, in this process alone, needs no port
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        store = HashStore()
        torch.distributed.init_process_group(
            backend, store=store, rank=0, world_size=1, device_id=bound
        )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        if os.environ["WORLD_SIZE"] == "1":
            for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
                os.environ.pop(name, None)
