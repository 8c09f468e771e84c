"""Ranks of a preparation in processes of their own, several at a time.

One process a rank, forked from a server that has the imports behind it. A pool would wait for ever for a rank
whose process was killed; here its end is seen, and the preparation fails with its signal. No rank
outlives the process that asked for it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from ablations.errors import WorkError

__all__ = ["run_side_by_side"]

_PRELOAD = ["ablations.data.pipeline"]


def run_side_by_side(work: Callable[[int], Any], ranks: Sequence[int], workers: int) -> None:
    """Call ``work`` with each rank, in at most ``workers`` processes at a time.

    Args:
        work: Can be pickled; what it returns is dropped.
        ranks: What to call it with.
        workers: Processes at once, at least 1.

    Raises:
        WorkError: a process ended without a word, as one that was killed does.
        Exception: what the first rank that failed raised. In both cases the other processes are ended.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    waiting = list(ranks)
    running: dict[int, tuple[Any, Connection, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                rank = waiting.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_run, args=(work, rank, there), daemon=True)
                process.start()
                there.close()
                running[process.sentinel] = process, here, rank
            for sentinel in wait(list(running)):
                assert isinstance(sentinel, int)
                process, here, rank = running.pop(sentinel)
                process.join()
                _require_done(process.exitcode, here, rank)
    finally:
        for process, _, _ in running.values():
            process.kill()
            process.join()


def _require_done(code: int | None, answer: Connection, rank: int) -> None:
    """Raise what a rank that is over ended with, if it did not end well."""
    with answer:
        if code == 0:
            return
        with contextlib.suppress(EOFError, OSError):
            if answer.poll():
                raise pickle.loads(answer.recv_bytes())
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = signal.Signals(-code).name
    raise WorkError(
        f"rank {rank} was ended by {how}, perhaps for want of memory; the same command goes on with "
        "the ranks that are not done"
    )


def _run(work: Callable[[int], Any], rank: int, answer: Connection) -> None:
    """In the rank's process: work, send what was raised, end with the process that asked."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True, name="end-with-parent").start()
    try:
        work(rank)
    except BaseException as error:
        with contextlib.suppress(OSError):
            answer.send_bytes(_portable(error))
        raise SystemExit(1) from None


def _portable(error: BaseException) -> bytes:
    """The error pickled, or one that tells the same where it cannot be."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:
        return pickle.dumps(WorkError(f"{type(error).__name__}: {error}"))
    return content
