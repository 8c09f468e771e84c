"""Device of a training, its CPU threads, and the micro-batch that fits the device's memory."""

from __future__ import annotations

import os
from dataclasses import replace

import torch

from ablations.errors import ConfigError, Problem
from ablations.processes.child import exported_threads
from ablations.training.batching import MicroBatching, on_cuda, plan_micro_batches
from ablations.training.hosts import local_ranks
from ablations.training.memory import SHARING_PROCESS_BYTES
from ablations.training.specs import ExecutionSpec
from ablations.training.train_job import TrainJob

__all__ = [
    "choose_device",
    "cpu_threads",
    "device_name",
    "fit",
    "indexed",
    "threads_of_a_rank",
]


def fit(job: TrainJob, device: torch.device) -> tuple[TrainJob, MicroBatching]:
    """Return the job with the device's defaults for its open fields, and the division of its batch.

    Raises:
        ConfigError: not one sample fits.
    """
    if device.type == "cpu":
        return job, plan_micro_batches(
            job.model, job.training, job.execution, vision=job.vision_load
        )
    # Set for slots that share a GPU (sweeps/launchers/local/devices.py).
    slots = int(os.environ.get("ABLATIONS_DEVICE_SHARED_BY", "1"))
    memory = torch.cuda.get_device_properties(device).total_memory // slots
    if slots > 1:
        memory = max(0, memory - SHARING_PROCESS_BYTES)
    execution = on_cuda(job.model, job.execution, memory)
    cut = plan_micro_batches(
        job.model, job.training, execution, memory_bytes=memory, vision=job.vision_load
    )
    return replace(job, execution=execution), cut


def choose_device(execution: ExecutionSpec) -> torch.device:
    """Return the device of this rank; for a CPU, hide CUDA from nanotron.

    Raises:
        ConfigError: ``cuda`` is configured, and this host has not one device for each of its ranks.
    """
    if execution.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # nanotron uses CUDA if any device is visible
        return torch.device("cpu")
    seen = torch.cuda.device_count()
    wanted = local_ranks(execution)
    if seen >= wanted:
        return indexed(torch.device("cuda"))
    if execution.device == "cuda":
        raise ConfigError(
            Problem(
                "execution.device",
                "not a CUDA device for every rank of this host",
                found=f"{seen} devices",
                allowed=f"{wanted}",
                do="set execution.device=cpu, or fewer ranks",
            )
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return torch.device("cpu")


def indexed(device: torch.device) -> torch.device:
    """Return a CUDA device with an index; without one, that of this rank on its machine.

    ``torch.cuda.set_device`` and ``init_process_group(device_id=…)`` refuse a device without one.
    """
    if device.type != "cuda" or ":" in str(device):  # torch's types know no device without an index
        return device
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def cpu_threads(execution: ExecutionSpec) -> int:
    """Return the threads given by ``OMP_NUM_THREADS``, else this process's cores shared over the ranks."""
    return exported_threads() or threads_of_a_rank(local_ranks(execution))


def threads_of_a_rank(ranks: int) -> int:
    """Return this process's cores shared over the ranks, at most 8: more slow down small models on a CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(8, (cores or 1) // ranks))


def device_name(device: torch.device) -> str:
    """Return the driver's name of a device, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
