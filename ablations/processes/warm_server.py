"""A process that imports modules once and forks a child for each call; both its sides.

A request brings the server one end of a socket. On it the caller gets the child's pid (from the server),
sends the call, and gets the answer (from the child) and the return code (from the server). The server ends
when the caller closes its side or is gone, and with it every child that does not outlive it.

The server is started with ``python -m ablations.processes.warm_server``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from ablations.processes.child import ChildEnv, become_child, ending_with, use_path
from ablations.processes.ended import Result, how_ended

__all__ = ["Child", "WarmServer", "close_servers", "wait_for_ends", "warm_server"]

_POLL_SECONDS = 0.05
"""Between two looks of the server at its parent and its children."""


# ------------------------------------------------------------------------- in the caller's process


class Child:
    """A process that a server forked, as its caller sees it."""

    def __init__(self, pid: int | None, talk: Connection) -> None:
        self.pid = pid
        """None if the server ended before it could fork."""
        self.code: int | None = None
        """Return code, negative for a signal; None while it runs, or if its server ended first."""
        self.ended = False
        self.talk = talk
        self._answer: Result | None = None

    def signal(self, number: int) -> None:
        """Send a signal to everything in its session."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it and everything in its session, at once."""
        if self.pid is not None and not self.ended:  # it may not have its session yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.signal(signal.SIGKILL)

    def receive(self) -> None:
        """Take the answer or the return code, whichever is next."""
        try:
            message = self.talk.recv()
        except (EOFError, OSError):
            message = None
        if isinstance(message, Result):
            self._answer = message
        else:
            self.code, self.ended = message, True
            self.talk.close()

    def result(self) -> Result:
        """Wait for its end; return its answer, or how it died."""
        while not wait_for_ends([self]):
            pass
        return self._answer or Result(died=how_ended(self.code))


def wait_for_ends(children: Sequence[Child], timeout: float | None = None) -> list[Child]:
    """Wait for a message of a running child, at most ``timeout`` seconds; return those that have ended."""
    running = {child.talk: child for child in children if not child.ended}
    for talk in wait(list(running), timeout) if running else ():
        running[talk].receive()  # type: ignore[index]
    return [child for child in children if child.ended]


class WarmServer:
    """A server of this process, started with its first child; several threads may start children.

    Args:
        modules: Modules that it imports before it forks. One that cannot be imported is left out: a
            child that needs it raises the error.
        log: File that its output is appended to; None = the output of this process.
    """

    def __init__(self, modules: Sequence[str], log: Path | None = None) -> None:
        self.modules = tuple(modules)
        self._log = log
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ends: list[Callable[[], object]] = []
        # Made first, so that it is called last: after those of a pool that waits for its children.
        weakref.finalize(self, _end, self._ends)

    def start(
        self, function: Callable[..., Any], *arguments: Any, env: ChildEnv | None = None
    ) -> Child:
        """Start a child that calls a function that can be pickled; return when it is forked."""
        env = env or ChildEnv()
        folder, call = os.getcwd(), pickle.dumps((function, arguments))
        talk, theirs = Pipe()
        with theirs, self._lock:
            requests = self._running()
            with contextlib.suppress(OSError):  # it ended just now: the next line sees that
                socket.send_fds(requests, [bytes([env.outlives_server])], [theirs.fileno()])
        pid: int | None = None
        with contextlib.suppress(EOFError, OSError):
            pid = talk.recv()
            talk.send((env, folder, sys.path, sys.argv, call))
        return Child(pid, talk)

    def close(self) -> None:
        """End the server; children that do not outlive it end by themselves."""
        _end(self._ends)

    def _running(self) -> socket.socket:
        """Return the socket for requests, of a new server if there is none or it has ended."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._socket, theirs = socket.socketpair()
            command = [sys.executable, "-m", "ablations.processes.warm_server", str(os.getpid())]
            with theirs, self._log.open("ab") if self._log else contextlib.nullcontext() as output:
                self._process = subprocess.Popen(
                    [*command, json.dumps(sys.path), *self.modules],
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C does not reach it
                )
            self._ends += [self._socket.close, self._process.wait, self._process.kill]
        return self._socket


def _end(ends: list[Callable[[], object]]) -> None:
    while ends:
        ends.pop()()


_servers: dict[tuple[str, ...], WarmServer] = {}
_servers_lock = threading.Lock()


def warm_server(modules: Sequence[str], log: Path | None = None) -> WarmServer:
    """Return this process's server with these modules; ``log`` is used if it is a new one."""
    with _servers_lock:
        return _servers.setdefault(tuple(modules), WarmServer(modules, log))


def close_servers() -> None:
    """End the servers of this process."""
    with _servers_lock:
        while _servers:
            _servers.popitem()[1].close()


# ------------------------------------------------------------------------- in the server's process


def serve(parent: str, path: str, *modules: str) -> None:
    """Fork a child for each request on standard input, until the caller closes it or is gone.

    Args:
        parent: Pid of the caller.
        path: The caller's ``sys.path`` as JSON.
        modules: Modules to import first.
    """
    requests = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    # Let torch count GPUs by their driver's library: counting by CUDA would start it in this process.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    with ending_with(int(parent)):  # importing takes seconds
        use_path(json.loads(path))
        for name in modules:
            with contextlib.suppress(Exception):  # raised again in a child that needs the module
                importlib.import_module(name)
    # Python 3.12 warns at each fork of a process with threads; those of torch's libraries are idle.
    warnings.filterwarnings("ignore", r".*use of fork\(\)", DeprecationWarning)
    if not _children_can_use_cuda():
        os.dup2(requests.fileno(), 0)
        command = [sys.executable, "-m", "ablations.processes.warm_server", parent, path]
        os.execv(sys.executable, command)
    children: dict[int, tuple[Connection, bool]] = {}
    try:
        while os.getppid() == int(parent):
            ready, _, _ = select.select([requests], [], [], _POLL_SECONDS)
            _send_codes(children)
            # Skip a request whose caller has died: the next caller asks again.
            if ready and (os.getppid() != int(parent) or not _fork(requests, children)):
                break
    finally:
        for pid, (_, outlives) in children.items():
            if not outlives:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _children_can_use_cuda() -> bool:
    """Return False if a module started CUDA when it was imported: a forked process cannot start it again.

    The process that started it cannot tell, so a child looks.
    """
    if (torch := sys.modules.get("torch")) is None:
        return True
    pid = os.fork()
    if pid == 0:
        os._exit(int(torch.cuda._is_in_bad_fork()))
    return os.waitpid(pid, 0)[1] == 0


def _fork(requests: socket.socket, children: dict[int, tuple[Connection, bool]]) -> bool:
    """Fork a child for the next request; return False if the caller closed the socket."""
    outlives, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
    if not outlives:
        return False
    os.set_inheritable(descriptors[0], False)
    talk, server = Connection(descriptors[0]), os.getpid()
    pid = os.fork()
    if pid == 0:
        requests.close()
        for other, _ in children.values():  # a caller sees the end of its child by the last close
            other.close()
        become_child(talk, server, outlives_server=bool(outlives[0]))
    children[pid] = talk, bool(outlives[0])
    with contextlib.suppress(OSError):  # the caller is gone
        talk.send(pid)
    return True


def _send_codes(children: dict[int, tuple[Connection, bool]]) -> None:
    """Send the return code of each child that has ended."""
    for pid in list(children):
        done, how = os.waitpid(pid, os.WNOHANG)
        if done:
            talk, _ = children.pop(pid)
            with talk, contextlib.suppress(OSError):  # the caller is gone
                talk.send(os.waitstatus_to_exitcode(how))


if __name__ == "__main__":
    serve(*sys.argv[1:])
