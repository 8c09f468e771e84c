"""Slots of a machine: groups of GPUs, or shares of its CPU threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ablations.errors import ConfigError, Problem
from ablations.processes.child import exported_threads
from ablations.training.visible_gpus import visible_gpus

_MAX_SLOTS = 1024
"""Largest number of processes on one machine; a larger number is a typing error."""

__all__ = ["Slot", "slots_of", "usable_cores", "visible_gpus"]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """Devices and CPU threads of one run."""

    name: str
    devices: str | None
    """``CUDA_VISIBLE_DEVICES`` of the run; None = unchanged."""
    cores: tuple[int, ...]
    """CPU threads that the run is bound to, and counts as the machine's."""
    shared_by: int = 1
    """Number of slots with the same devices; a run takes this fraction of their memory."""

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the run."""
        # Tokenizers warn at every fork unless their threads are disabled.
        shared = {"TOKENIZERS_PARALLELISM": "false", "ABLATIONS_SLOT": self.name}
        # The run uses as many threads as it has cores, unless the user exported fewer.
        if asked := exported_threads():
            count = str(min(asked, len(self.cores)))
            shared |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), count)
        if self.devices is None:
            return shared
        part = {"ABLATIONS_DEVICE_SHARED_BY": str(self.shared_by)}
        return {**shared, **part, "CUDA_VISIBLE_DEVICES": self.devices}


def usable_cores() -> list[int]:
    """Return the CPU threads that this process may use."""
    return sorted(os.sched_getaffinity(0))


def slots_of(
    slots: int | Sequence[str] | None, threads: int | None, devices_per_slot: int
) -> list[Slot]:
    """Return the slots of this machine.

    Args:
        slots: Number of slots, or the ``CUDA_VISIBLE_DEVICES`` of each; None = one per
            ``devices_per_slot`` GPUs, or on a machine without GPUs one per ``threads`` CPU threads (1).
        threads: CPU threads of each slot; None = an even share.
        devices_per_slot: GPUs of each slot.

    Raises:
        ConfigError: there are fewer GPUs than the slots need, or there is no slot.
    """
    gpus = visible_gpus()
    if slots is None or isinstance(slots, int):
        groups = [
            ",".join(gpus[start : start + devices_per_slot])
            for start in range(0, len(gpus) - devices_per_slot + 1, devices_per_slot)
        ]
        by_cores = max(1, len(usable_cores()) // (threads or 1))
        count = slots if slots is not None else len(groups) or by_cores
        _check(count, groups, bool(gpus))
        devices: list[str | None] = list(groups[:count]) if gpus else [None] * count
    else:
        devices = [str(group) for group in slots]
        _check(len(devices), devices, False)
    return [
        Slot(
            name=str(i),
            devices=group,
            cores=_share(i, len(devices), threads),
            shared_by=devices.count(group),
        )
        for i, group in enumerate(devices)
    ]


def _share(index: int, count: int, threads: int | None) -> tuple[int, ...]:
    """Return the cores of slot ``index`` of ``count``; slots share cores if there are too few."""
    cores = usable_cores()
    width = min(len(cores), threads or max(1, len(cores) // count))
    return tuple(cores[(index * width + i) % len(cores)] for i in range(width))


def _check(count: int, groups: Sequence[object], gpus: bool) -> None:
    if count < 1:
        raise ConfigError(Problem("hydra.launcher.slots", "no slot", found=count, allowed=">= 1"))
    if count > _MAX_SLOTS:
        allowed = f"at most {_MAX_SLOTS:,}"
        raise ConfigError(
            Problem("hydra.launcher.slots", "too many processes", found=count, allowed=allowed)
        )
    if gpus and count > len(groups):
        raise ConfigError(
            Problem(
                "hydra.launcher.slots",
                "more slots than groups of GPUs",
                found=count,
                allowed=f"at most {len(groups)}",
                do="name the devices of each slot: hydra.launcher.slots=['0','0'] shares a GPU",
            )
        )
