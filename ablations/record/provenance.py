"""Find the circumstances of a run for its record: versions, commit, the queue's job."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["git_commit", "queue_job", "versions"]

_VERSIONED = ("torch", "nanotron", "lighteval", "transformers", "datatrove", "hydra-core", "numpy")


def queue_job() -> dict[str, str]:
    """Return the queue's job that this process is, and where its output goes; empty outside submitit."""
    if not os.environ.get("SUBMITIT_EXECUTOR"):
        return {}
    # Imported here: submitit is there, since it started the process.
    import submitit

    job = submitit.JobEnvironment()
    return {"queue": job.cluster, "job": str(job.job_id), "log": str(job.paths.stdout)}


def versions() -> dict[str, str]:
    """Return the versions of Python, of the platform and of the packages that decide a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("ablations", *_VERSIONED):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def git_commit() -> str | None:
    """Return the commit of the checkout that the package runs from, with ``+`` where it was changed since."""
    here = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
