"""Record the failure of a run that raised an exception of any type.

ImportError in scoring ─▶ worker.log    the traceback
                       ─▶ events.jsonl, result.json, manifest.json    failed, with the reason
                       ─▶ WorkError     what the command reports; exit code 1
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ablations.errors import AblationError, WorkError

__all__ = ["preempted", "reason_of", "recorded"]


def reason_of(error: BaseException) -> str:
    """Return the message of one of the platform's own errors; of any other, its type too."""
    if isinstance(error, AblationError):
        return str(error)
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def preempted(error: BaseException) -> bool:
    """Return whether the cluster preempted the job: submitit requeues it and exits.

    This is not a failure of the run, which continues in the next job. The frame of submitit's signal handler
    in the traceback distinguishes this exit from any other.
    """
    if not isinstance(error, SystemExit):
        return False
    frames = traceback.walk_tb(error.__traceback__)
    names = [str(frame.f_globals.get("__name__", "")) for frame, _ in frames]
    return any(name.split(".")[0] == "submitit" for name in names)


def recorded(folder: Path, error: BaseException, fail: Callable[[str], None]) -> AblationError:
    """Record that the run in ``folder`` ended with ``error``; return the error to report.

    The platform's own errors keep their kind. Any other (a package that cannot be imported, a full
    disk) becomes a :class:`WorkError`, and its traceback goes to ``worker.log``.

    Args:
        folder: The run folder.
        error: What was raised.
        fail: Writes the reason into the record.
    """
    reason = reason_of(error)
    # A full disk may be the error itself: what cannot be recorded must not hide the reason.
    with suppress(OSError):
        if not isinstance(error, AblationError):
            with (folder / "worker.log").open("a") as log:
                traceback.print_exception(error, file=log)
        fail(reason)
    if isinstance(error, AblationError):
        return error
    return WorkError(f"{reason}; see {folder / 'worker.log'}")
