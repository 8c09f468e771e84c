"""The processes that train and score, and the wait for them.

    caller ──▶ warm server (torch and nanotron imported) ──fork──▶ worker: one rank
           ──▶ warm server (torch imported) ──fork──▶ torchrun ──▶ worker 0 … worker n-1: several ranks

Training changes process-global state (environment, process groups, torch functions patched while a
model is built), so it never happens in the caller's process. Servers (:mod:`ablations.processes`) outlive
the call, but not the caller. No process outlives a caller that was killed: each is given its parent's id,
looks for it before it begins and while it works, and ends when it is gone. A new worker waits for the
run's lock, which the kernel frees. Several ranks answer through a file in a temporary folder, which has a
lock too: if it is free, the caller was killed, and the next caller removes the folder.

A rank of torchrun is ``python -m ablations.training.training_process rank``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablations.processes.child import ChildEnv, ending_with, portable
from ablations.processes.ended import Result, how_ended
from ablations.processes.warm_server import wait_for_ends, warm_server

__all__ = ["Task", "run_in_worker"]

_POLL_SECONDS = 0.05
_PREFIX = "ablations-task-"
_LOCK = "caller.lock"
_FRESH_SECONDS = 60.0

_MODULE = "ablations.training.training_process"

_PARENT = "ABLATIONS_WORKER_PARENT"
"""Variable with the id of the process that started a rank."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Call of ``function(argument)``, a module-level function by its name, in a worker."""

    module: str
    function: str
    argument: Any
    ranks: int = 1
    log: Path
    """File that the worker's output is appended to."""

    def call(self) -> Any:
        """Import the module and call the function in this process."""
        return getattr(importlib.import_module(self.module), self.function)(self.argument)


def run_in_worker(task: Task, poll: Callable[[], None] | None = None) -> Result:
    """Run a task in processes of its own; call ``poll`` while they work, and once after.

    An exception in the caller meanwhile (Ctrl-C) ends every process of the task.
    """
    poll = poll or (lambda: None)
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_left(folder)
    if task.ranks == 1:
        result = _in_child(task.module, task.call, task.log, poll)
    else:
        with _task_folder() as folder:
            ranks = _Ranks(task.ranks, folder / "task.pkl", folder / "answer.pkl")
            ranks.request.write_bytes(pickle.dumps(task))
            result = _in_child("torch.distributed.run", ranks.run, task.log, poll)
            if ranks.answer.exists():
                result = pickle.loads(ranks.answer.read_bytes())
            elif result.died is None:
                result = Result(died=how_ended(1))  # torchrun's, when a rank gave no answer
    poll()
    return replace(result, died=f"its worker {result.died}") if result.died else result


def _in_child(
    module: str, function: Callable[[], Any], log: Path, poll: Callable[[], None]
) -> Result:
    """Call ``function`` in a child of the server that has imported ``module``."""
    child = warm_server([module], log).start(function, env=ChildEnv(log=log))
    try:
        while not wait_for_ends([child], _POLL_SECONDS):
            poll()
    except BaseException:
        child.kill()
        raise
    return child.result()


# --------------------------------------------------------------------------------- several ranks


@dataclass(frozen=True)
class _Ranks:
    """Ranks of a task that are processes of torchrun."""

    count: int
    request: Path
    answer: Path
    """File for the first failure of any rank, or the first rank's value."""

    def run(self) -> None:
        """Run torchrun in this process, which is its own."""
        from torch.distributed.run import main

        from ablations.training.placement import threads_of_a_rank

        os.environ[_PARENT] = str(os.getpid())
        # torchrun would set it to 1 for several ranks, as if the user had asked for it.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_a_rank(self.count)))
        words = ["--standalone", f"--nproc-per-node={self.count}", "--max-restarts=0", "-m"]
        main([*words, _MODULE, "rank", str(self.request), str(self.answer)])


@contextlib.contextmanager
def _task_folder() -> Iterator[Path]:
    """Make a temporary folder for one task, with a lock that is held while this process works."""
    from filelock import FileLock

    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, FileLock(Path(name) / _LOCK):
        yield Path(name)


def _remove_left(folder: Path) -> None:
    """Remove a task's folder unless its caller lives, or has just made it and not locked it yet."""
    from filelock import FileLock, Timeout

    with contextlib.suppress(OSError, Timeout):
        if time.time() - folder.stat().st_mtime > _FRESH_SECONDS:
            with FileLock(folder / _LOCK).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _run_rank(request: Path, answer: Path) -> int:
    """Do the task as one of several ranks; return the exit code."""
    with ending_with(int(os.environ[_PARENT])):
        task: Task = pickle.loads(request.read_bytes())
        try:
            result = Result(value=task.call())
        except BaseException as error:
            traceback.print_exc()
            result = Result(error=portable(error))
        if result.error is not None or os.environ["RANK"] == "0":
            _write_answer(answer, result)
        return 0 if result.error is None else 1


def _write_answer(answer: Path, result: Result) -> None:
    """Write the answer whole, unless another rank has answered already."""
    own = answer.with_suffix(f".{os.getpid()}")
    own.write_bytes(pickle.dumps(result))
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(own, answer)


if __name__ == "__main__":
    sys.exit(_run_rank(*map(Path, sys.argv[2:])))
