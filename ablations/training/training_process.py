"""The processes that train and score, and the wait for them.

    caller ──▶ warm server (torch and nanotron imported) ──fork──▶ worker: one rank
           ──▶ warm server (torch imported) ──fork──▶ torchrun ──▶ worker 0 … worker n-1: several ranks
    another host ──▶ warm server ──fork──▶ torchrun ──▶ worker n … : the same task, over the first host's port

Training changes process-global state (environment, process groups, torch functions patched while a
model is built), so it never happens in the caller's process. Servers (:mod:`ablations.processes`) outlive
the call, but not the caller. No process outlives a caller that was killed: each is given its parent's id,
looks for it before it begins and while it works, and ends when it is gone. A new worker waits for the
run's lock, which the kernel frees. Several ranks answer through a file in a temporary folder, which has a
lock too: if it is free, the caller was killed, and the next caller removes the folder.

With several hosts the first one calls :func:`run_in_worker`, and each other one :func:`help_workers`. The
ranks of the others read the task from the store of the first torchrun, and answer through a file in the
folder of the task's log, which all hosts share. A rank that lost its connection answers that it died.

A rank of torchrun is ``python -m ablations.training.training_process rank``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import shutil
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ablations.processes.child import ChildEnv, ending_with, portable
from ablations.processes.ended import Result, how_ended
from ablations.processes.warm_server import wait_for_ends, warm_server
from ablations.training.hosts import MEETING_SECONDS, Hosts

__all__ = ["Task", "help_workers", "run_in_worker", "run_side_by_side"]

_POLL_SECONDS = 0.05
_PREFIX = "ablations-task-"
_LOCK = "caller.lock"
_FRESH_SECONDS = 60.0

_MODULE = "ablations.training.training_process"
_TORCHRUN = "torch.distributed.run"

_OF_STORE = "store"
"""In place of a file: the task is in the store of the first host's torchrun."""

_ANSWER = ".answer-"
_ANSWER_SECONDS = 5.0
_DAYS = 30 * 86_400.0
"""Longest time that torchrun waits for the first host; the caller decides earlier."""

_PARENT = "ABLATIONS_WORKER_PARENT"
"""Variable with the id of the process that started a rank."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Call of ``function(argument)``, a module-level function by its name, in a worker."""

    module: str
    function: str
    argument: Any
    ranks: int = 1
    """Number of ranks, on all hosts together."""
    hosts: Hosts | None = None
    """Hosts that share the ranks; None = this one has them all."""
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
        with _task_folder() as folder, _answer_file(task, folder) as answer:
            request = folder / "task.pkl"
            request.write_bytes(pickle.dumps((task, answer)))
            count = task.ranks // (task.hosts.count if task.hosts else 1)
            ranks = _Ranks(count, task.hosts, str(request), MEETING_SECONDS)
            result = _in_child(_TORCHRUN, ranks.run, task.log, poll)
            given = _answered(task, answer)
            if given is not None:
                result = given
            elif result.died is None:
                # torchrun's own end, when a rank gave no answer or the other hosts were not there.
                lost = f" ({result.error})" if task.hosts is not None and result.error else ""
                result = Result(died=f"{how_ended(1)}{lost}")
    poll()
    return replace(result, died=f"its worker {result.died}") if result.died else result


def run_side_by_side(tasks: Sequence[Task], poll: Callable[[], None]) -> Result:
    """Run tasks of one rank each at the same time; call ``poll`` while they work, and once after.

    An exception in the caller meanwhile, and a task that fails, end all of them.

    Returns:
        Their values in the order of the tasks, or the first failure.
    """
    children = []
    try:
        for task in tasks:
            server = warm_server([task.module], task.log)
            children.append(server.start(task.call, env=ChildEnv(log=task.log)))
        failed: Result | None = None
        while failed is None and not all(child.ended for child in children):
            ended = wait_for_ends(children, _POLL_SECONDS)
            poll()
            results = [child.result() for child in ended]
            failed = next((one for one in results if one.error or one.died), None)
    finally:
        for child in children:
            if not child.ended:
                child.kill()
    poll()
    if failed is None:
        return Result(value=[child.result().value for child in children])
    return replace(failed, died=f"its worker {failed.died}") if failed.died else failed


def _answered(task: Task, answer: Path) -> Result | None:
    """Return the answer of the ranks; None if there is none.

    A rank that fails leaves its group before it answers, so the others may be faster to report that they
    lost it. Their report counts if no rank gives another reason.
    """
    report = answer.with_name(f"{answer.name}.lost")
    end = time.monotonic() + (_ANSWER_SECONDS if task.hosts is not None and report.exists() else 0)
    while not answer.exists() and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
    if answer.exists():
        result: Result = pickle.loads(answer.read_bytes())
        return result
    if not report.exists():
        return None
    lost: Result = pickle.loads(report.read_bytes())
    if task.hosts is None:
        return lost
    return Result(died=f"lost the connection to another rank ({lost.error})")


def help_workers(hosts: Hosts, ranks: int, log: Path, poll: Callable[[], None]) -> Result:
    """Run this host's ranks of a task that the first host runs; call ``poll`` while they work.

    Args:
        hosts: The hosts; this one is not the first.
        ranks: Number of ranks on this host.
        log: File that the output of its ranks is appended to.
        poll: May raise, which ends the ranks: the first host may have no task any more.

    Returns:
        A value of None if all ranks of this host ended well, else how they ended.
    """
    return _in_child(_TORCHRUN, _Ranks(ranks, hosts, _OF_STORE, _DAYS).run, log, poll)


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
    """Ranks of a task on this host, which are processes of torchrun."""

    count: int
    hosts: Hosts | None
    request: str
    """File with the task and the path of its answer: any rank's first failure, or the first rank's value."""
    patience: float
    """Seconds to wait for the other hosts."""

    def run(self) -> None:
        """Run torchrun in this process, which is its own."""
        from torch.distributed.run import main

        from ablations.training.placement import threads_of_a_rank

        os.environ[_PARENT] = str(os.getpid())
        # torchrun would set it to 1 for several ranks, as if the user had asked for it.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_a_rank(self.count)))
        words = [*self._meeting(), f"--nproc-per-node={self.count}", "--max-restarts=0", "-m"]
        main([*words, _MODULE, "rank", self.request])

    def _meeting(self) -> list[str]:
        """Return the options of torchrun that say where the hosts meet.

        A static rendezvous numbers the ranks by host; c10d would number them by the names of the hosts.
        """
        if self.hosts is None:
            return ["--standalone"]
        return [
            f"--nnodes={self.hosts.count}",
            f"--node-rank={self.hosts.index}",
            f"--master-addr={self.hosts.address}",
            f"--master-port={self.hosts.port}",
            f"--rdzv-id={self.hosts.name}",
            f"--rdzv-conf=timeout={self.patience:.0f}",
        ]


@contextlib.contextmanager
def _answer_file(task: Task, folder: Path) -> Iterator[Path]:
    """Give the path of a task's answer, which every host can write; remove what earlier tasks left."""
    if task.hosts is None:
        yield folder / "answer.pkl"
        return
    shared = task.log.parent.absolute()
    shared.mkdir(parents=True, exist_ok=True)
    try:
        for left in shared.glob(f"{_ANSWER}*"):
            left.unlink(missing_ok=True)
        yield shared / f"{_ANSWER}{uuid.uuid4().hex}"
    finally:
        for left in shared.glob(f"{_ANSWER}*"):
            left.unlink(missing_ok=True)


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


def _run_rank(request: str) -> int:
    """Do the task as one of several ranks; return the exit code."""
    with ending_with(int(os.environ[_PARENT])):
        task, answer = _task_of(request)
        try:
            result = Result(value=task.call())
        except BaseException as error:
            traceback.print_exc()
            result = Result(error=portable(error))
            if _is_lost_connection(error):
                answer = answer.with_name(f"{answer.name}.lost")
        if result.error is not None or os.environ["RANK"] == "0":
            _write_answer(answer, result)
        return 0 if result.error is None else 1


def _task_of(request: str) -> tuple[Task, Path]:
    """Return the task and the path of its answer: from the first host's file, or from torchrun's store."""
    plain = Path(request).read_bytes() if request != _OF_STORE else b""
    if int(os.environ["GROUP_WORLD_SIZE"]) > 1:
        from torch._C._distributed_c10d import TCPStore

        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=MEETING_SECONDS),
        )
        key = f"task of {os.environ['TORCHELASTIC_RUN_ID']}"
        if os.environ["RANK"] == "0":
            store.set(key, plain)  # type: ignore[arg-type]
        plain = plain or store.get(key)
    task, answer = pickle.loads(plain)
    return task, answer


def _is_lost_connection(error: BaseException) -> bool:
    """Return whether another rank is gone, as gloo, NCCL and torch's store report it."""
    from torch.distributed import DistError

    text = str(error)
    by_gloo = isinstance(error, RuntimeError) and ("gloo" in text or "by peer" in text)
    return isinstance(error, DistError) or by_gloo


def _write_answer(answer: Path, result: Result) -> None:
    """Write the answer whole, unless another rank has answered already."""
    own = answer.with_name(f"{answer.name}.{socket.gethostname()}.{os.getpid()}")
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        own.write_bytes(pickle.dumps(result))
        os.link(own, answer)
    own.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(_run_rank(sys.argv[2]))
