"""``ablate doctor``: what is installed, what is missing, what hardware is seen, and what to do."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ablations.config.options import DoctorOptions
from ablations.config.schema import validate
from ablations.documents import Answer
from ablations.errors import WorkError
from ablations.files import free_bytes
from ablations.precision import bfloat16_units
from ablations.quantities import byte_size, memory_size

__all__ = ["DoctorResult", "Finding", "answer", "examine", "main"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    """A package, a part of the machine, a folder or a tool."""
    verdict: Literal["ok", "note", "missing"]
    """missing = something the platform cannot do without."""
    found: str
    """Its version, size or place."""
    do: str = ""
    """Remedy; empty if none is needed."""


@dataclass(frozen=True)
class DoctorResult:
    """Subject of the check."""

    findings: tuple[Finding, ...]


def main(config: Mapping[str, Any]) -> int:
    """Print every finding; exit 1 where something needed is missing."""
    found = answer(config)
    findings: tuple[Finding, ...] = found.result.findings
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        line = f"{finding.verdict:<8}{finding.what:<{width}}  {finding.found}"
        print(line + (f"\n{'':<{width + 10}}→ {finding.do}" if finding.do else ""))
    return found.exit_code


def answer(config: Mapping[str, Any]) -> Answer:
    """Return every finding for a program; the exit code is 1 where something needed is missing."""
    own = {key: value for key, value in config.items() if key not in ("config_dirs", "hydra")}
    options = validate(DoctorOptions, own)
    findings = tuple(examine(Path(options.data_dir), Path(options.runs_dir)))
    missing = [finding.what for finding in findings if finding.verdict == "missing"]
    return Answer(
        result=DoctorResult(findings),
        exit_code=1 if missing else 0,
        error=WorkError(f"missing: {', '.join(missing)}") if missing else None,
    )


def examine(data_dir: Path, runs_dir: Path) -> Iterator[Finding]:
    """Everything that the platform depends on, looked at."""
    yield _python()
    yield from _packages()
    yield from _torchvision()
    yield from _hardware()
    yield from _disk(data_dir, runs_dir)
    yield from _tools()


def _python() -> Finding:
    version = platform.python_version()
    return Finding("python", "ok", f"{version} at {sys.executable}")


_PINNED = {
    "nanotron": "0.4",
    "lighteval": "0.13.0",
    "hydra-core": "1.4.0rc3",
    "omegaconf": "2.4.1rc1",
    "datatrove": "0.10.1",
    "trl": "1.16.0",
}
_NEEDED = (
    "torch",
    "transformers",
    "datasets",
    "tokenizers",
    "optuna",
    "lightgbm",
    "pandas",
    "plotly",
)
_BELOW = {
    "xxhash": (4, "lighteval dies after scoring"),
    "huggingface_hub": (2, "lighteval's tasks crash"),
}
_OPTIONAL = {
    "optuna-dashboard": "a study in the browser: pip install 'ablations[dashboard]'",
    "trackio": "live curves: pip install 'ablations[trackers]'",
    "langdetect": "the task ifeval: pip install 'ablations[ifeval]'",
    "flash_attn": "not needed: attention is torch's own",
}


def _packages() -> Iterator[Finding]:
    for name, wanted in _PINNED.items():
        found = _version(name)
        if found == wanted:
            yield Finding(name, "ok", found)
        else:
            do = f"pip install {name}=={wanted}; the adapter repairs faults of exactly this release"
            yield Finding(name, "missing", found or "not installed", do)
    for name in _NEEDED:
        found = _version(name)
        yield Finding(
            name,
            "ok" if found else "missing",
            found or "not installed",
            "" if found else "make setup",
        )
    for name, (bound, why) in _BELOW.items():
        found = _version(name)
        good = found is not None and int(found.split(".")[0]) < bound
        do = "" if good else f"pip install '{name}<{bound}': {why} otherwise"
        yield Finding(name, "ok" if good else "missing", found or "not installed", do)
    for name, what in _OPTIONAL.items():
        if _version(name) is None:
            yield Finding(name, "note", "not installed (optional)", what)


def _torchvision() -> Iterator[Finding]:
    """Yield a finding where a torchvision is installed; the platform needs none.

    transformers uses one wherever one can be found. One that was built for another torch, such as the CUDA
    build beside a CPU torch, then breaks scoring, sft and dpo with messages that do not name it.
    """
    if importlib.util.find_spec("torchvision") is None:
        return
    found = _version("torchvision") or "of an unknown version"
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # RuntimeError of torch, OSError of a library that cannot be loaded
        what = (str(error).splitlines() or [type(error).__name__])[0]
        do = "pip uninstall torchvision: transformers imports it, and scoring, sft and dpo fail with it"
        yield Finding("torchvision", "missing", f"{found} does not fit torch: {what}", do)
        return
    yield Finding("torchvision", "ok", f"{found} (not needed)")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> Iterator[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory()
    yield Finding(
        "machine",
        "ok",
        f"{cores} cores, {memory_size(memory.total)} of memory, {platform.machine()}",
    )
    units = ", ".join(bfloat16_units())
    yield Finding(
        "cpu",
        "ok" if units else "note",
        f"{units}: dtype=auto is bfloat16" if units else "no bfloat16 units",
        "" if units else "dtype=auto is float32 on it",
    )
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        yield Finding(
            "gpu", "note", "none seen by torch", "runs go on the CPU (execution.device=auto)"
        )
        return
    for index in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(index)
        yield Finding(f"gpu {index}", "ok", f"{seen.name}, {memory_size(seen.total_memory)}")


def _disk(data_dir: Path, runs_dir: Path) -> Iterator[Finding]:
    for name, folder in (("data_dir", data_dir), ("runs_dir", runs_dir)):
        free = free_bytes(folder)
        low = free < 2 * 2**30
        do = f"free some space or set {name}=" if low else ""
        yield Finding(name, "note" if low else "ok", f"{folder}: {byte_size(free)} free", do)


def _tools() -> Iterator[Finding]:
    slurm = shutil.which("sbatch")
    yield Finding(
        "slurm", "ok" if slurm else "note", slurm or "no sbatch: runs stay on this machine"
    )
    git = shutil.which("git")
    yield Finding("git", "ok" if git else "note", git or "not found: records name no commit")
