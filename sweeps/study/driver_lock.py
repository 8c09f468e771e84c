"""One driver a study: see :mod:`ablations.record.lease` for the lock and the lease behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ablations.errors import Problem
from ablations.record.lease import hold

__all__ = ["drive"]


@contextlib.contextmanager
def drive(folder: Path, study: str) -> Iterator[None]:
    """Be the one driver of the study in ``folder``.

    Raises:
        HeldError: another driver is alive, or took the study over while this one was stopped; the
            message names it.
    """

    def refusal(who: str) -> Problem:
        return Problem(
            f"study {study!r}",
            "another driver is running it",
            found=who,
            do="wait for it, stop it, or name a new study=",
        )

    with hold(folder / "driver.lock", folder / "driver.json", refusal):
        yield
