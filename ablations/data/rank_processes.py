"""Ranks of a preparation in processes of their own, several at a time.

Each rank is a child of a warm server (:mod:`ablations.processes`). A pool would wait without end for a
rank whose process was killed; here the preparation fails with its signal. No rank outlives the process
that asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ablations.errors import WorkError
from ablations.processes.child import portable
from ablations.processes.warm_server import Child, wait_for_ends, warm_server

__all__ = ["run_side_by_side"]

_PRELOAD = ["ablations.data.pipeline"]


def run_side_by_side(work: Callable[[int], Any], ranks: Sequence[int], workers: int) -> None:
    """Call ``work`` with each rank, in at most ``workers`` processes at a time.

    Args:
        work: Function that can be pickled; its return value is dropped.
        ranks: Arguments of the calls.
        workers: Largest number of processes at a time, at least 1.

    Raises:
        WorkError: a process ended without an answer, for example because it was killed.
        Exception: the first error that a rank raised. In both cases the other processes are ended.
    """
    server = warm_server(_PRELOAD)
    waiting = list(ranks)
    running: dict[Child, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                rank = waiting.pop(0)
                running[server.start(_run, work, rank)] = rank
            for child in wait_for_ends(list(running)):
                _require_done(child, running.pop(child))
    finally:
        for child in running:
            child.kill()


def _require_done(child: Child, rank: int) -> None:
    """Raise the error of a rank that has ended, if it did not end well."""
    result = child.result()
    if result.error is not None:
        raise result.error
    if result.died is not None:
        raise WorkError(
            f"rank {rank} {result.died}, perhaps because memory ran out; the same command goes on with "
            "the ranks that are not done"
        )


def _run(work: Callable[[int], Any], rank: int) -> None:
    """Do one rank in its process."""
    try:
        work(rank)
    except Exception as error:
        raise portable(error, WorkError) from None
