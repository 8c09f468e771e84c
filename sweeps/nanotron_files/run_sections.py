"""Typed sections of a file for nanotron's branches: checkpoints, names, logging, ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

__all__ = [
    "Checkpoints",
    "General",
    "Logging",
    "Metrics",
    "Parallelism",
    "Profiler",
    "Upload",
]

_FORBID = {"extra": "forbid"}

LogLevel = Literal["debug", "info", "warning", "error", "critical", "passive"]


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Folder and interval of checkpoints, and the checkpoint that a run starts from."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    checkpoints_path: str
    """Folder of the step folders and of ``latest.txt``."""
    checkpoint_interval: int
    """Steps between two checkpoints."""
    save_initial_state: bool | None = False
    """Save the untrained model."""
    save_final_state: bool | None = True
    """Save the last step even if the interval does not divide it."""
    resume_checkpoint_path: str | None = None
    """Step folder, or a folder with ``latest.txt``; null = from scratch."""
    load_lr_scheduler: bool | None = True
    """Continue the step counter and the scheduler; false starts a new run from the weights."""
    load_optimizer: bool | None = True
    """Load Adam's moments."""
    checkpoints_path_is_shared_file_system: bool | None = False
    """True if all nodes share the folder."""


@dataclass(frozen=True, kw_only=True)
class General:
    """Names and the seed."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    project: str
    """Project that groups runs."""
    run: str | None = None
    """Name of the run; %date and %jobid are filled in."""
    seed: int | None = None
    """Seed of the initialisation; null = 42."""
    step: int | None = None
    """Written by the trainer."""
    consumed_train_samples: int | None = None
    """Written by the trainer."""
    benchmark_csv_path: str | None = None
    """File that a benchmark adds a row to."""
    ignore_sanity_checks: bool = True
    """Skip the slow checks."""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """Detail of the log."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    log_level: LogLevel | None = None
    """Level of the first rank; null = info."""
    log_level_replica: LogLevel | None = None
    """Level of the other ranks; null = info."""
    iteration_step_info_interval: int | None = 1
    """Steps between two lines."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Detail of the tracker's metrics."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    log_level: Literal[0, 1] = 0
    """0 = basic, 1 = with norms of parameters."""
    log_detail_interval: int = 10
    """Steps between two detailed rows."""


@dataclass(frozen=True, kw_only=True)
class Profiler:
    """torch's profiler over a few steps."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    profiler_export_path: str | None
    """Folder of the traces."""
    wait: int = 1
    """Steps before each cycle."""
    warmup: int = 1
    """Discarded steps of each cycle."""
    active: int = 1
    """Recorded steps of each cycle."""
    repeat: int = 1
    """Cycles."""
    skip_first: int = 3
    """Steps before the first cycle."""
    record_shapes: bool = False
    """Keep shapes."""
    profile_memory: bool = False
    """Keep allocations."""
    with_stack: bool = True
    """Keep stacks."""
    export_chrome_trace: bool = False
    """Write Chrome's format."""


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """Division of the work among ranks."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    dp: int
    """Data-parallel replicas."""
    pp: int
    """Pipeline stages."""
    tp: int
    """Tensor-parallel ranks."""
    pp_engine: Literal["afab", "1f1b"] | None = None
    """Pipeline order; null = afab."""
    tp_mode: Literal["ALL_REDUCE", "REDUCE_SCATTER", "all_reduce", "reduce_scatter"] | None = None
    """REDUCE_SCATTER is sequence parallelism; null = ALL_REDUCE."""
    tp_linear_async_communication: bool | None = None
    """Overlap communication with computation."""
    recompute_layer: bool = False
    """Compute activations again in the backward pass."""
    moe_layer_recompute: bool = False
    """Compute those of experts again; a key of the branch smollm3 only."""
    tp_recompute_allgather: bool = True
    """Gather the input again in the backward pass."""
    expert_parallel_size: int = 1
    """Ranks of the experts."""
    context_parallel_size: int = 1
    """Ranks that share a sequence."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Upload of checkpoints to S3."""

    __pydantic_config__: ClassVar[dict[str, str]] = _FORBID
    upload_s3_path: str
    """Destination."""
    remove_after_upload: bool
    """Remove the local copy."""
    s5cmd_numworkers: int | None
    """Workers of s5cmd."""
    s5cmd_concurrency: int | None
    """Parts of a file uploaded at once."""
    s5cmd_path: str | None
    """Path of the program."""
