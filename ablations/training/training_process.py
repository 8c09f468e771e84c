"""The processes that train, and the watch over them.

    caller ──pipe──▶ server (torch and nanotron imported, idle) ──fork──▶ worker: one rank
           ──exec──▶ torchrun ──▶ worker 0 … worker n-1: several ranks

Training changes process-global state (environment, process groups, torch functions patched while a
model is built), so it never happens in the caller's process. One rank is forked from a warm server,
which saves the 2 CPU-seconds of importing torch for every run after a process's first; it outlives
the call, not the caller. Nobody outlives a caller that was killed: each process is given its
parent's id, looks for it before it begins and while it works, and ends when it is gone. A new worker
waits for the run's lock, which the kernel frees. The folder of a task has a lock too: one whose lock is
free was left by a killed caller, and the next caller removes it.

This module is also what those processes run: ``python -m ablations.training.training_process``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Task", "WorkerResult", "ending_with", "run_in_worker"]

_POLL_SECONDS = 0.05
_PARENT_POLL_SECONDS = 0.2
_PREFIX = "ablations-task-"
_LOCK = "caller.lock"
_FRESH_SECONDS = 60.0

_PARENT = "ABLATIONS_WORKER_PARENT"
"""Variable that tells a rank which process started it."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker does: call ``function(argument)``, a module-level function by its name."""

    module: str
    function: str
    argument: Any
    ranks: int = 1
    log: Path
    """File that the worker's output is appended to."""


@dataclass(frozen=True, kw_only=True)
class WorkerResult:
    """How a worker ended."""

    value: Any = None
    """What the function returned."""
    error: BaseException | None = None
    """What it raised."""
    died: str | None = None
    """How the process ended when it neither returned nor raised."""


def run_in_worker(task: Task, poll: Callable[[], None] | None = None) -> WorkerResult:
    """Run a task in processes of its own; ``poll`` is called while they work, and once after.

    An exception in the caller meanwhile (Ctrl-C) ends every process of the task.
    """
    with _task_folder() as folder:
        request = folder / "task.pkl"
        answer = folder / "answer.pkl"
        request.write_bytes(pickle.dumps(task))
        launch = _forked if task.ranks == 1 else _torchrun
        status: int | None = None
        # A server that ended: one that could not import its module has answered first.
        with contextlib.suppress(BrokenPipeError), launch(task, request, answer) as ended:
            while (status := ended()) is None:
                if poll:
                    poll()
                time.sleep(_POLL_SECONDS)
        if poll:
            poll()
        if answer.exists():
            value, error = pickle.loads(answer.read_bytes())
            return WorkerResult(value=value, error=error)
        if status is None:
            return WorkerResult(died=f"the server of its workers ended; {task.log} may say why")
        return WorkerResult(died=_how(status))


@contextlib.contextmanager
def _task_folder() -> Iterator[Path]:
    """A temporary folder of one task, after those of killed callers are removed."""
    from filelock import FileLock

    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{_PREFIX}*"):
        _remove_left(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name, FileLock(Path(name) / _LOCK):
        yield Path(name)


def _remove_left(folder: Path) -> None:
    """Remove a task's folder unless its caller lives, or has just made it and not locked it yet."""
    from filelock import FileLock, Timeout

    with contextlib.suppress(OSError, Timeout):
        if time.time() - folder.stat().st_mtime > _FRESH_SECONDS:
            with FileLock(folder / _LOCK).acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _how(status: int) -> str:
    """A return code in words."""
    if status >= 0:
        return f"its worker ended with exit code {status}"
    return f"its worker was ended by {signal.Signals(-status).name}"


Ended = Callable[[], int | None]
"""The return code, negative for a signal, or None while running."""


# --------------------------------------------------------------------------------- several ranks


@contextlib.contextmanager
def _torchrun(task: Task, request: Path, answer: Path) -> Iterator[Ended]:
    command = [*_this_module("torchrun"), str(task.ranks), str(request), str(answer)]
    with task.log.open("ab") as log:
        # A session of its own: a group that can be ended whole, and that Ctrl-C does not reach.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process.poll
    finally:
        if process.poll() is None:
            # torchrun puts each rank in the same session; kill -9 of it alone would leave them.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# ------------------------------------------------------------------------------------- one rank


def _this_module(command: str) -> tuple[str, ...]:
    """The command line of another process of this module; it is told who its parent is."""
    return sys.executable, "-m", "ablations.training.training_process", command, str(os.getpid())


class _Server:
    """A process that has the imports behind it and forks a worker for each request."""

    def __init__(self, module: str, log: Path) -> None:
        self.module = module
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*_this_module("serve"), module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, task: Task, request: Path, answer: Path) -> int:
        """The pid of a new worker."""
        line = {"request": str(request), "answer": str(answer), "log": str(task.log)}
        reply = self._ask(line)
        return int(reply["pid"])

    def status(self, pid: int) -> int | None:
        """The worker's return code, None while it works."""
        reply = self._ask({"wait": pid})
        return None if reply["status"] is None else int(reply["status"])

    def close(self) -> None:
        """End the server, and any worker of it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        reply = process.stdout.readline()
        if not reply:
            raise BrokenPipeError
        answer: dict[str, Any] = json.loads(reply)
        return answer


_idle: list[_Server] = []
_idle_lock = threading.Lock()


def _take_server(task: Task) -> _Server:
    with _idle_lock:
        for server in list(_idle):
            if server.module == task.module or not server.alive:
                _idle.remove(server)
                if server.alive:
                    return server
                server.close()
    return _Server(task.module, task.log)


@atexit.register
def close_servers() -> None:
    """End the idle servers of this process."""
    with _idle_lock:
        while _idle:
            _idle.pop().close()


@contextlib.contextmanager
def _forked(task: Task, request: Path, answer: Path) -> Iterator[Ended]:
    server = _take_server(task)
    pid: int | None = None
    try:
        pid = server.fork(task, request, answer)
        yield lambda: server.status(pid)
    except BaseException:
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.close()
        raise
    with _idle_lock:
        _idle.append(server)


# -------------------------------------------------------------------- inside the other processes


def _serve(parent: str, module: str) -> None:
    """Answer requests until the caller closes the pipe or is gone; no worker outlives the server."""
    try:
        with ending_with(int(parent)):  # importing takes seconds
            __import__(module)
    except Exception as error:
        _answer_without(error)
        raise
    children: dict[int, int | None] = {}
    try:
        while os.getppid() == int(parent):
            ready, _, _ = select.select([sys.stdin], [], [], _PARENT_POLL_SECONDS)
            if not ready:
                continue
            line = sys.stdin.readline()
            if not line or os.getppid() != int(parent):
                break
            _reply(json.loads(line), children)
    except BrokenPipeError:
        pass  # the caller has gone, and cannot be answered
    finally:
        for pid, status in children.items():
            if status is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _answer_without(error: Exception) -> None:
    """Answer the request that is waiting with what importing its module raised."""
    if line := sys.stdin.readline():
        _leave(Path(json.loads(line)["answer"]), (None, _portable(error)))


def _reply(line: dict[str, Any], children: dict[int, int | None]) -> None:
    if "wait" in line:
        pid = line["wait"]
        if children.get(pid) is None:
            done, status = os.waitpid(pid, os.WNOHANG)
            children[pid] = os.waitstatus_to_exitcode(status) if done else None
        print(json.dumps({"status": children[pid]}), flush=True)
        return
    server = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_worker(line, server)
    children[pid] = None
    print(json.dumps({"pid": pid}), flush=True)


def _become_worker(line: dict[str, Any], server: int) -> None:
    """In the fork: leave the server's pipes, send output to the log, work, exit."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(line["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        code = _work(server, Path(line["request"]), Path(line["answer"]))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(parent: int, request: Path, answer: Path) -> int:
    """Do the task; leave its value or its error in ``answer``, the first failure of any rank's."""
    with ending_with(parent):
        return _worked(request, answer)


def _worked(request: Path, answer: Path) -> int:
    task: Task = pickle.loads(request.read_bytes())
    first = os.environ.get("RANK", "0") == "0"
    try:
        function = getattr(sys.modules.get(task.module) or _imported(task.module), task.function)
        value = function(task.argument)
    except BaseException as error:
        _leave(answer, (None, _portable(error)))
        import traceback

        traceback.print_exc()
        return 1
    if first:
        _leave(answer, (value, None))
    return 0


def _imported(module: str) -> Any:
    import importlib

    return importlib.import_module(module)


def _portable(error: BaseException) -> BaseException:
    """The error, or one that says the same, if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _leave(answer: Path, content: tuple[Any, BaseException | None]) -> None:
    """Write the answer whole; an answer that is there already stands."""
    own = answer.with_suffix(f".{os.getpid()}")
    own.write_bytes(pickle.dumps(content))
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(own, answer)


@contextlib.contextmanager
def ending_with(parent: int) -> Iterator[None]:
    """End this process when ``parent`` is gone, at once if it is gone already.

    The id is passed in: a process that asks for its parent's after that died is told of another.
    """
    if os.getppid() != parent:
        os._exit(1)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_PARENT_POLL_SECONDS):
            if os.getppid() != parent:
                os._exit(1)

    watcher = threading.Thread(target=watch, daemon=True, name="end-with-parent")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _run_torchrun(parent: str, ranks: str, request: str, answer: str) -> None:
    with ending_with(int(parent)):  # importing torch takes seconds
        from ablations.training.placement import threads_of_a_rank

        os.environ[_PARENT] = str(os.getpid())
        # torchrun would set it to 1 for several ranks, and no rank could tell that nobody asked.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads_of_a_rank(int(ranks))))
        from torch.distributed.run import main

        main(
            [
                "--standalone",
                f"--nproc-per-node={ranks}",
                "--max-restarts=0",
                "-m",
                "ablations.training.training_process",
                "rank",
                request,
                answer,
            ]
        )


def _main(arguments: list[str]) -> int:
    command, *rest = arguments
    if command == "serve":
        _serve(*rest)
    elif command == "torchrun":
        _run_torchrun(*rest)
    else:
        return _work(int(os.environ[_PARENT]), Path(rest[0]), Path(rest[1]))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
