"""Checkpoints on disk: which are whole, which is newest, which may go.

    checkpoints/
        120/                 whole: it took this name by a rename, after everything was in it
            model/…  optimizer/…  lr_scheduler/…  random/…  config.yaml
            checkpoint_metadata.json  model_config.json      nanotron's, written in this order
            state.json                                       ours: step, topology, windows read
            referenced_by/<id>.json                          runs that began from this checkpoint
        .partial/            what a killed writer left; removed by the next one

nanotron writes ``model_config.json`` last, so a folder without a readable one is torn, also where
another writer than ours made it. ``latest.txt`` is never trusted: it is truncated, then written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablations.errors import CheckpointError, Problem
from ablations.files import read_json, write_json
from ablations.training.specs import ExecutionSpec, KeepCheckpoints

__all__ = [
    "PARTIAL",
    "CheckpointState",
    "Topology",
    "checkpoint_steps",
    "delete",
    "is_referenced",
    "is_whole",
    "model_config",
    "newest",
    "prune",
    "read_state",
    "reference",
    "remove_torn",
    "require_whole",
    "write_state",
]

PARTIAL = ".partial"
"""Folder that a checkpoint is written in before it takes its name."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What a resumed training must share with the one that wrote the checkpoint.

    nanotron 0.4 loads an optimiser of another tp, pp or ZeRO stage too, and loses some of its
    moments without a word.
    """

    tp: int
    pp: int
    zero_stage: int
    dp: int
    dtype: str

    @classmethod
    def of(cls, execution: ExecutionSpec, dtype: str) -> Topology:
        """The topology of a training."""
        return cls(
            tp=execution.tp,
            pp=execution.pp,
            zero_stage=execution.zero_stage,
            dp=execution.dp,
            dtype=dtype,
        )

    def differences(self, other: Topology) -> list[str]:
        """Names of the fields that forbid loading the other's optimiser."""
        names = ["tp", "pp", "zero_stage", "dtype"]
        if self.zero_stage or other.zero_stage:  # each dp rank then holds a share of the moments
            names.append("dp")
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """What the platform keeps beside nanotron's own files, as ``state.json``."""

    step: int
    samples: int
    """Samples trained, warm start included."""
    topology: Topology
    threads: int
    """torch threads of a CPU rank: another number changes the last bits of a loss."""
    micro_batch_size: int
    windows: tuple[tuple[int, ...], ...]
    """Windows read [stage][source]."""


def checkpoint_steps(folder: Path) -> tuple[int, ...]:
    """Steps of the whole checkpoints in ``folder``, ascending."""
    if not folder.is_dir():
        return ()
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    return tuple(step for step in sorted(steps) if is_whole(folder / str(step)))


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint is there in full: headers are read, tensors are not."""
    try:
        json.loads((checkpoint / "model_config.json").read_bytes())
        read_json(checkpoint / "checkpoint_metadata.json")
        tensors = list((checkpoint / "model").rglob("*.safetensors"))
        return bool(tensors) and all(map(_is_complete, tensors))
    except (OSError, ValueError):
        return False


def _is_complete(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says (8 bytes of length, JSON, data)."""
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0] if file.stat().st_size >= 8 else 0
        if length < 2:
            return False
        header = json.loads(stream.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return file.stat().st_size == 8 + length + max(ends, default=0)


def newest(folder: Path) -> Path | None:
    """The whole checkpoint of the highest step, or None."""
    steps = checkpoint_steps(folder)
    return folder / str(steps[-1]) if steps else None


def require_whole(checkpoint: Path, where: str = "checkpoint") -> None:
    """Refuse a checkpoint that is missing or torn.

    Raises:
        CheckpointError: with the whole checkpoints beside it.
    """
    if is_whole(checkpoint):
        return
    beside = ", ".join(map(str, checkpoint_steps(checkpoint.parent)))
    raise CheckpointError(
        Problem(
            where,
            "incomplete checkpoint" if checkpoint.exists() else "no such checkpoint",
            found=checkpoint,
            allowed=f"a whole checkpoint; here: {beside}" if beside else "a whole checkpoint",
        )
    )


def read_state(checkpoint: Path) -> CheckpointState | None:
    """The platform's own notes in a checkpoint; None in one that another program wrote."""
    file = checkpoint / "state.json"
    if not file.exists():
        return None
    stored: dict[str, Any] = read_json(file)
    topology = Topology(**stored.pop("topology"))
    windows = tuple(tuple(row) for row in stored.pop("windows"))
    return CheckpointState(topology=topology, windows=windows, **stored)


def write_state(checkpoint: Path, state: CheckpointState) -> None:
    """Add the platform's notes to a checkpoint that has not taken its name yet."""
    write_json(checkpoint / "state.json", asdict(state))


def model_config(checkpoint: Path) -> Mapping[str, Any]:
    """The network's shape, as nanotron saved it."""
    config: dict[str, Any] = read_json(checkpoint / "model_config.json")
    return config


def remove_torn(folder: Path) -> tuple[str, ...]:
    """Remove what killed writers left in ``folder``; their names.

    Call it only as the run's one writer: a folder in the making looks torn.
    """
    if not folder.is_dir():
        return ()
    torn = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.name == PARTIAL or (entry.name.isdecimal() and not is_whole(entry))
    ]
    for entry in torn:
        shutil.rmtree(entry)
    return tuple(entry.name for entry in torn)


def reference(checkpoint: Path, by: Path) -> None:
    """Note in a checkpoint that the run ``by`` began from it, so that retention leaves it alone.

    A checkpoint on a read-only disk takes no note, and needs none: nobody here can delete it.
    """
    name = hashlib.sha256(str(by.resolve()).encode()).hexdigest()[:16]
    with contextlib.suppress(PermissionError):
        (checkpoint / "referenced_by").mkdir(exist_ok=True)
        write_json(checkpoint / "referenced_by" / f"{name}.json", {"run": str(by.resolve())})


def is_referenced(checkpoint: Path) -> bool:
    """Whether a run began from this checkpoint."""
    return any((checkpoint / "referenced_by").glob("*.json"))


def prune(
    folder: Path, *, keep: KeepCheckpoints, scored: Collection[int], final_step: int | None = None
) -> tuple[int, ...]:
    """Delete what the retention rule lets go; the steps that went.

    Never deleted: a checkpoint that is not scored, one that another run began from, and the newest
    while training may still resume from it. ``last`` keeps the newest for good; ``none`` lets it go
    too once it is that of the run's ``final_step``.
    """
    if keep == "all":
        return ()
    steps = checkpoint_steps(folder)
    finished = final_step is not None and final_step in steps
    protected = set(steps[-1:]) if keep == "last" or not finished else set()
    gone = [
        step
        for step in steps
        if step in scored and step not in protected and not is_referenced(folder / str(step))
    ]
    for step in gone:
        delete(folder / str(step))
    return tuple(gone)


def delete(checkpoint: Path) -> None:
    """Remove a checkpoint; one that the process dies over is torn, never half of a whole one."""
    (checkpoint / "model_config.json").unlink()
    shutil.rmtree(checkpoint)
