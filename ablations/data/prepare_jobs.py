"""The lock of a source that Slurm jobs prepare: it lasts as long as they do.

    ranks    an array, one task for each shard          prepare-<source>-<mark>
    finish   one job after all of them: the store       finish-<source>-<mark>
             before the ranks, the search for duplicates, if the source has one

The names contain a mark of the store's folder. So the queue itself is the lock: while it lists a job of
these names, nobody else may prepare the source. A process that dies between two submissions leaves
nothing behind that the next one would not find. ``submitted.json`` names the jobs for people, and tells that
the queue has to be asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from pathlib import Path

from ablations.errors import HeldError, Problem
from ablations.files import read_json
from ablations.sbatch import job_word

__all__ = ["SUBMITTED", "job_name", "living_jobs", "require_no_jobs"]

SUBMITTED = "submitted.json"
"""File in the folder of a source's jobs: their names, and their ids once they are known."""

_SECONDS = 60
_NEVER = "DependencyNeverSatisfied"
_ENDED = (
    *("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL"),
    *("DEADLINE", "OUT_OF_MEMORY", "REVOKED"),
)
"""States of jobs that ended and are not queued again; the queue lists them for some minutes."""


def job_name(stage: str, source: str, store: Path) -> str:
    """Return the name of the job of one stage of a source, for one store folder."""
    mark = hashlib.sha256(str(store.absolute()).encode()).hexdigest()[:8]
    return f"{stage}-{job_word(source)}-{mark}"


def _submitted_names(source: str, store: Path, folder: Path) -> list[str]:
    """Return the names of the jobs that were submitted, as the note of them states."""
    names = [job_name(stage, source, store) for stage in ("prepare", "finish")]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        names += read_json(folder / SUBMITTED).get("names", [])
    return list(dict.fromkeys(names))


def require_no_jobs(source: str, store: Path, folder: Path) -> None:
    """Refuse while jobs of an earlier submission are queued or run; take those away that can never start.

    Args:
        source: Name of the source.
        store: Folder of its store.
        folder: Folder of its jobs.

    Raises:
        HeldError: jobs prepare the source, or the queue does not answer.
    """
    if not (folder / SUBMITTED).exists():
        return
    jobs = _queued(source, store, folder)
    stuck = [job for job, state in jobs.items() if state == _NEVER]
    if living := {job: state for job, state in jobs.items() if state != _NEVER}:
        named = ", ".join(f"{job} ({state.lower()})" for job, state in living.items())
        raise HeldError(
            Problem(
                str(store),
                "Slurm jobs are preparing this source",
                found=named,
                do=f"wait for them, or end them and give the same command again: scancel "
                f"{' '.join(sorted({job.partition('_')[0] for job in jobs}))}",
            )
        )
    if stuck:
        subprocess.run(["scancel", *stuck], timeout=_SECONDS, check=False, capture_output=True)
    (folder / SUBMITTED).unlink(missing_ok=True)


def living_jobs(source: str, store: Path, folder: Path) -> bool:
    """Return whether jobs of the source may be queued or run; no error if the queue does not answer."""
    if not (folder / SUBMITTED).exists():
        return False
    with contextlib.suppress(HeldError):
        return any(state != _NEVER for state in _queued(source, store, folder).values())
    return True


def _queued(source: str, store: Path, folder: Path) -> dict[str, str]:
    """Return id → state of the source's jobs that have not ended; of those that cannot start, the reason.

    Raises:
        HeldError: the queue does not answer.
    """
    names = ",".join(_submitted_names(source, store, folder))
    command = ["squeue", "--noheader", "--states=all", f"--name={names}", "--format=%i|%T|%r"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HeldError(
            Problem(
                str(store),
                "was submitted to Slurm, and the queue does not answer",
                found=error,
                do=f"ask where squeue works; if no job is left, remove {folder / SUBMITTED}",
            )
        ) from error
    rows = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 2]
    return {
        job.strip(): _NEVER if reason.strip() == _NEVER else state.strip()
        for job, state, reason in rows
        if state.strip() not in _ENDED
    }
