"""One look at Slurm before a study submits: does its controller answer, and would it take such a job?

Without it each run of the study would fail by itself, ``search.attempts`` times. Nothing is queued: the test
submission is ``sbatch --test-only`` with the script that submitit would submit.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.errors import ConfigError, Problem

__all__ = ["require_slurm"]

_SECONDS = 60
_WHERE = "hydra/launcher=slurm"
_ELSEWHERE = "begin the study on a machine of the cluster, or on this one with hydra/launcher=slots"


def require_slurm(params: Mapping[str, Any]) -> None:
    """Check that the queue answers and takes a job with the launcher's options.

    Args:
        params: Options of submitit's Slurm launcher.

    Raises:
        ConfigError: there is no Slurm here, its controller does not answer, it has no such partition, or it
            refuses the job.
    """
    partitions = _partitions()
    asked = params.get("partition")
    unknown = [name for name in str(asked or "").split(",") if name and name not in partitions]
    if unknown:
        raise ConfigError(
            Problem(
                "hydra.launcher.partition",
                "not a partition of this cluster",
                found=", ".join(unknown),
                allowed=", ".join(partitions),
            )
        )
    with tempfile.TemporaryDirectory(prefix="ablations-look-") as folder:
        script = Path(folder) / "look.sh"
        script.write_text(_script(params, Path(folder)))
        refused = _called(["sbatch", "--test-only", str(script)])
    if isinstance(refused, str):
        raise ConfigError(
            Problem(
                _WHERE,
                "the cluster refuses a job with these options",
                found=refused,
                do="correct hydra.launcher.* (partition, account, qos, timeout_min, gpus_per_node, …)",
            )
        )


def _partitions() -> list[str]:
    listed = _called(["sinfo", "--noheader", "--format=%R"])
    if isinstance(listed, str):
        raise ConfigError(Problem(_WHERE, "Slurm cannot be used here", found=listed, do=_ELSEWHERE))
    return sorted(set(listed))


def _script(params: Mapping[str, Any], folder: Path) -> str:
    """Return the script of a job as submitit writes it for these options."""
    # Imported here: only studies on Slurm have submitit.
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
    from omegaconf import OmegaConf
    from submitit import AutoExecutor

    general = set(OmegaConf.structured(BaseQueueConf).keys())
    options = {
        name if name in general else f"slurm_{name}": value
        for name, value in params.items()
        if name not in ("submitit_folder", "max_num_timeout")
    }
    try:
        executor = AutoExecutor(folder=str(folder), cluster="slurm")
        executor.update_parameters(**options)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(Problem(_WHERE, "submitit refuses it", found=error)) from error
    text: str = executor._executor._make_submission_file_text("true", "look")
    return text


def _called(command: Sequence[str]) -> list[str] | str:
    """Return the words that a command prints, or the reason why it failed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not answer in {_SECONDS} seconds"
    if done.returncode == 0:
        return done.stdout.split()
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1] if lines else f"{command[0]} ended with code {done.returncode}"
