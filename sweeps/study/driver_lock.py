"""Lock of a study: at most one driver at a time; see :mod:`ablations.record.lease`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ablations.errors import Problem
from ablations.record.lease import hold

__all__ = ["drive"]


@contextlib.contextmanager
def drive(folder: Path, study: str) -> Iterator[None]:
    """Hold the lock of the study in ``folder``.

    Raises:
        HeldError: another driver is alive, or took over the study while this one was stopped; the
            message names its process and host.
    """

    def refusal(holder: str) -> Problem:
        return Problem(
            f"study {study!r}",
            "another driver is running it",
            found=holder,
            do="wait for it, stop it, or name a new study=",
        )

    with hold(folder / "driver.lock", folder / "driver.json", refusal):
        yield
