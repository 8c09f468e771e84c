"""Choice of ``dtype: auto`` by what the hardware computes in, and its record.

    CUDA device                          bfloat16
    CPU with bfloat16 units              bfloat16     avx512_bf16 or amx_bf16 of an x86-64 processor
    any other CPU                        float32      it emulates bfloat16, and is slower

A run is settled on the machine that trains it. The type that was chosen is a part of the run's identity, as
if the config had named it. The first run of a study with ``auto`` writes the choice to ``precision.json`` in
the study's folder. A machine that would choose another type is refused, because differences between
mixtures would then contain differences between types.
"""

from __future__ import annotations

import functools
import re
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.errors import ConfigError, Problem
from ablations.files import read_json, write_once
from ablations.training.specs import Device, DType, TrainingSpec

if TYPE_CHECKING:
    from ablations.config.schema import RunConfig

__all__ = [
    "PRECISION_FILE",
    "bfloat16_units",
    "choose_dtype",
    "hold_to_precision",
    "on_gpus",
    "with_precision",
]

PRECISION_FILE = "precision.json"
"""File in a study's folder that holds the type that ``auto`` chose for its runs."""

_UNITS = ("avx512_bf16", "amx_bf16")
"""Flags of Linux's /proc/cpuinfo for instructions that multiply bfloat16 numbers."""


@functools.cache
def bfloat16_units(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Return the processor's instruction sets that multiply bfloat16 numbers; empty if none is known."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        return ()
    return tuple(unit for unit in _UNITS if flags and unit in flags[1].split())


def choose_dtype(device: Device) -> DType:
    """Return the type that ``auto`` stands for on this machine; ``device`` is ``execution.device``."""
    if device == "cuda" or (device == "auto" and _sees_cuda()):
        return "bfloat16"
    return "bfloat16" if bfloat16_units() else "float32"


def _sees_cuda() -> bool:
    # Importing torch takes two seconds, and a machine without these files has no GPU.
    if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/dxg").exists():
        return False
    import torch

    return torch.cuda.is_available()


def with_precision(config: RunConfig) -> RunConfig:
    """Return the config with the chosen type wherever it has ``auto``."""
    if "auto" not in (config.training.dtype, config.evaluation.dtype):
        return config
    chosen = choose_dtype(config.execution.device)
    training, evaluation = config.training, config.evaluation
    if training.dtype == "auto":
        training = replace(training, dtype=chosen)
    if evaluation.dtype == "auto":
        evaluation = replace(evaluation, dtype=chosen)
    return replace(config, training=training, evaluation=evaluation)


def on_gpus(training: TrainingSpec) -> TrainingSpec:
    """Return the training as GPUs do it, for files that another trainer reads: ``auto`` is bfloat16."""
    return replace(training, dtype="bfloat16") if training.dtype == "auto" else training


def hold_to_precision(asked: RunConfig) -> None:
    """Record the type that ``auto`` chose as the study's, or compare it with the recorded one.

    Raises:
        ConfigError: the runs of the study have another type.
    """
    fields = {
        "training.dtype": asked.training.dtype,
        "evaluation.dtype": asked.evaluation.dtype,
    }
    automatic = [name for name, dtype in fields.items() if dtype == "auto"]
    if not automatic:
        return
    chosen = choose_dtype(asked.execution.device)
    path = Path(asked.runs_dir) / asked.study / PRECISION_FILE
    units = ", ".join(bfloat16_units()) or "no bfloat16 units"
    write_once(path, {"dtype": chosen, "host": socket.gethostname(), "cpu": units})
    stored: Mapping[str, Any] = read_json(path)
    if stored.get("dtype") == chosen:
        return
    first = stored.get("dtype")
    raise ConfigError(
        Problem(
            automatic[0],
            f"auto chooses another type on this machine than for the first run of {asked.study!r}",
            found=f"{chosen} ({socket.gethostname()}: {units})",
            allowed=f"{first} ({stored.get('host')}: {stored.get('cpu')})",
            do=f"run it on a machine that chooses {first}, name the type ({automatic[0]}={first}), "
            "or choose another study=",
        )
    )
