"""Checkpoints on disk: which are complete, which is the newest, which may be deleted.

    checkpoints/
        120/                 complete: renamed to this name after all files were written
            model/…  optimizer/…  lr_scheduler/…  random/…  config.yaml
            checkpoint_metadata.json  model_config.json      nanotron's, written in this order
            state.json                                       ours: step, topology, windows read
            checksums.json                                   ours: size and SHA-256 of every file
            referenced_by/<id>.json                          runs that began from this checkpoint
        .partial/            left by a killed writer; the next writer removes it
        damaged-80/          files differ from what was written; kept, and never read again

Checkpoints of sft, dpo and vlm are transformers folders with the optimiser and our ``state.json`` beside it.

nanotron writes ``model_config.json`` last, so a folder without a readable one is incomplete, also if another
program wrote it. ``latest.txt`` is not used: nanotron truncates it before it writes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablations.errors import CheckpointError, DamagedError, Problem
from ablations.files import read_json, write_json, write_sealed
from ablations.record.checksums import damage, has_checksums, write_checksums
from ablations.training.specs import ExecutionSpec, KeepCheckpoints

__all__ = [
    "PARTIAL",
    "CheckpointState",
    "Topology",
    "checkpoint_steps",
    "delete",
    "is_referenced",
    "is_transformers",
    "is_whole",
    "model_config",
    "newest",
    "prune",
    "read_state",
    "reference",
    "remove_torn",
    "require_intact",
    "require_whole",
    "set_damaged_aside",
    "write_state",
]

PARTIAL = ".partial"
"""Folder that a checkpoint is written in before it is renamed to its step."""

_REFERENCES = "referenced_by"
"""Folder of a checkpoint that has no checksums, because its files may change."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Properties that a resumed training must share with the training that wrote the checkpoint.

    nanotron 0.4 also loads an optimiser of another tp, pp or ZeRO stage, and then loses some of its
    moments without a warning.
    """

    tp: int
    pp: int
    zero_stage: int
    dp: int
    dtype: str

    @classmethod
    def of(cls, execution: ExecutionSpec, dtype: str) -> Topology:
        """Return the topology of a training."""
        return cls(
            tp=execution.tp,
            pp=execution.pp,
            zero_stage=execution.zero_stage,
            dp=execution.dp,
            dtype=dtype,
        )

    def differences(self, other: Topology) -> list[str]:
        """Return the names of the fields that forbid loading the other's optimiser."""
        names = ["tp", "pp", "zero_stage", "dtype"]
        if self.zero_stage or other.zero_stage:  # each dp rank then has a share of the moments
            names.append("dp")
        return [name for name in names if getattr(self, name) != getattr(other, name)]


@dataclass(frozen=True, kw_only=True)
class CheckpointState:
    """State of the platform in a checkpoint (``state.json``), beside nanotron's own files."""

    step: int
    samples: int
    """Samples trained, warm start included."""
    topology: Topology
    threads: int
    """torch threads of a CPU rank: another number changes the last bits of a loss."""
    micro_batch_size: int
    windows: tuple[tuple[int, ...], ...]
    """Windows read [stage][source]; of methods on rows, rows."""
    supervised: tuple[tuple[int, ...], ...] | None = None
    """sft, dpo, vlm: tokens that the loss counted [stage][source]."""


def checkpoint_steps(folder: Path) -> tuple[int, ...]:
    """Return the steps of the complete checkpoints in ``folder``, ascending."""
    if not folder.is_dir():
        return ()
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()]
    return tuple(step for step in sorted(steps) if is_whole(folder / str(step)))


def is_whole(checkpoint: Path) -> bool:
    """Return whether every file of a checkpoint exists in full; headers are read, tensors are not."""
    try:
        return _has_all(checkpoint)
    except OSError:
        return False


def _has_all(checkpoint: Path) -> bool:
    """Do the same as :func:`is_whole`, but raise OSError if a file exists and cannot be read."""
    try:
        if is_transformers(checkpoint):
            return _has_all_of_trl(checkpoint)
        json.loads((checkpoint / "model_config.json").read_bytes())
        read_json(checkpoint / "checkpoint_metadata.json")
        tensors = list((checkpoint / "model").rglob("*.safetensors"))
        return bool(tensors) and all(map(_is_complete, tensors))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return False


def is_transformers(checkpoint: Path) -> bool:
    """Return whether a checkpoint is a transformers folder, as methods on rows write it."""
    return (checkpoint / "config.json").is_file()


def _has_all_of_trl(checkpoint: Path) -> bool:
    """Return whether a checkpoint of a method on rows is complete; state.json is written last."""
    json.loads((checkpoint / "config.json").read_bytes())
    read_json(checkpoint / "state.json")
    tensors = list(checkpoint.glob("*.safetensors"))
    return bool(tensors) and all(map(_is_complete, tensors))


def _is_complete(file: Path) -> bool:
    """Return whether a safetensors file is as long as its header states (8 bytes of length, JSON, data)."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8))[0] if size >= 8 else 0
        if not 2 <= length <= size - 8:
            return False
        try:
            header = json.loads(stream.read(length))
            entries = [entry for name, entry in header.items() if name != "__metadata__"]
            end = max((entry["data_offsets"][1] for entry in entries), default=0)
            return bool(size == 8 + length + end)
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            return False


def newest(folder: Path) -> Path | None:
    """Return the complete checkpoint of the highest step, or None."""
    steps = checkpoint_steps(folder)
    return folder / str(steps[-1]) if steps else None


def require_whole(checkpoint: Path, where: str = "checkpoint") -> None:
    """Refuse a checkpoint that is missing or incomplete.

    Raises:
        CheckpointError: with the complete checkpoints in the same folder.
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
    """Return the platform's state in a checkpoint; None if another program wrote the checkpoint.

    Raises:
        DamagedError: ``state.json`` does not contain the state of a checkpoint.
    """
    file = checkpoint / "state.json"
    if not file.exists():
        return None
    try:
        stored: dict[str, Any] = read_json(file)
        topology = Topology(**stored.pop("topology"))
        windows = tuple(tuple(row) for row in stored.pop("windows"))
        counted = stored.pop("supervised", None)
        supervised = None if counted is None else tuple(tuple(row) for row in counted)
        return CheckpointState(topology=topology, windows=windows, supervised=supervised, **stored)
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            Problem(str(file), "damaged: not the state of a checkpoint", found=error)
        ) from error


def write_state(checkpoint: Path, state: CheckpointState) -> None:
    """Add the platform's state and the checksums of all files to a checkpoint that is not yet renamed."""
    plain = asdict(state)
    if state.supervised is None:
        del plain["supervised"]
    write_sealed(checkpoint / "state.json", plain)
    write_checksums(checkpoint, leave_out=_REFERENCES)


def require_intact(checkpoint: Path, where: str = "checkpoint", *, weights_only: bool) -> None:
    """Refuse a checkpoint whose files differ from what was written.

    Args:
        checkpoint: A complete checkpoint.
        where: Name for the message, usually a config key.
        weights_only: Compare only the files that an export or a start without optimiser reads.

    Raises:
        CheckpointError: with the files that differ.
    """
    wrong = damage(checkpoint, _is_weights if weights_only else lambda name: True)
    if wrong:
        raise CheckpointError(
            Problem(
                where,
                "damaged checkpoint",
                found=f"{checkpoint}: {_some(wrong)}",
                do="take another checkpoint, or restore its files from a copy",
            )
        )


def _some(wrong: Sequence[str]) -> str:
    """Return the first three texts, and the number of the others."""
    more = len(wrong) - 3
    return "; ".join(wrong[:3]) + (f"; and {more} more" if more > 0 else "")


def _is_weights(name: str) -> bool:
    of_trl = name == "config.json" or name.endswith(".safetensors")
    return name.startswith("model/") or name == "model_config.json" or of_trl


def set_damaged_aside(folder: Path) -> dict[int, str]:
    """Rename damaged checkpoints until the newest is one whose files are what was written.

    A checkpoint without checksums is accepted once; its checksums are recorded then. Call this only from
    the run's one writer.

    Returns:
        Step → description of the damage, for each checkpoint that was renamed.
    """
    aside: dict[int, str] = {}
    while (last := newest(folder)) is not None:
        wrong = damage(last)
        if not wrong:
            if not has_checksums(last):
                with contextlib.suppress(OSError):  # on a read-only disk it stays unverified
                    write_checksums(last, leave_out=_REFERENCES)
            break
        aside[int(last.name)] = f"{_some(wrong)}; kept as {_set_aside(last).name}"
    return aside


def model_config(checkpoint: Path) -> Mapping[str, Any]:
    """Return the network's shape, as nanotron saved it."""
    config: dict[str, Any] = read_json(checkpoint / "model_config.json")
    return config


def remove_torn(folder: Path) -> tuple[str, ...]:
    """Remove what killed writers left in ``folder``, and return the names of the folders removed.

    Call this only from the run's one writer: a checkpoint that is being written looks incomplete.
    """
    if not folder.is_dir():
        return ()
    torn = []
    for entry in sorted(folder.iterdir()):
        if entry.name == PARTIAL:
            torn.append(entry)
        elif entry.name.isdecimal():
            try:
                if not _has_all(entry):
                    torn.append(entry)
            except OSError:  # it may be complete: the disk or its permissions are the cause
                _set_aside(entry)
    for entry in torn:
        shutil.rmtree(entry)
    return tuple(entry.name for entry in torn)


def _set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint to ``damaged-<step>``, and return the new path."""
    kept = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(kept, ignore_errors=True)
    return checkpoint.rename(kept)


def reference(checkpoint: Path, by: Path) -> None:
    """Record in a checkpoint that the run ``by`` began from it, so that retention keeps it.

    On a read-only disk nothing is recorded, and need not be: the checkpoint cannot be deleted there.
    """
    name = hashlib.sha256(str(by.resolve()).encode()).hexdigest()[:16]
    with contextlib.suppress(PermissionError):
        (checkpoint / _REFERENCES).mkdir(exist_ok=True)
        write_json(checkpoint / _REFERENCES / f"{name}.json", {"run": str(by.resolve())})


def is_referenced(checkpoint: Path) -> bool:
    """Return whether a run began from this checkpoint."""
    return any((checkpoint / _REFERENCES).glob("*.json"))


def prune(
    folder: Path, *, keep: KeepCheckpoints, scored: Collection[int], final_step: int | None = None
) -> tuple[int, ...]:
    """Delete the checkpoints that the retention rule ``keep`` allows, and return their steps.

    A checkpoint is kept if it is not scored, if another run began from it, or if it is the newest and
    training may still resume from it. ``last`` always keeps the newest; ``none`` deletes it too, once it is
    that of the run's ``final_step``.
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
    """Remove a checkpoint.

    The model's config goes first: if the process dies here, the rest does not count as a checkpoint.
    """
    name = "config.json" if is_transformers(checkpoint) else "model_config.json"
    (checkpoint / name).unlink()
    shutil.rmtree(checkpoint)
