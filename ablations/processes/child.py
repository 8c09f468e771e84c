"""Body of a child: its own session, log, cores and threads, the watch over its parent, one answer."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from ablations.processes.ended import Result

__all__ = ["ChildEnv", "become_child", "ending_with", "exported_threads", "portable", "use_path"]

_PARENT_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class ChildEnv:
    """Surroundings of a child."""

    log: Path | None = None
    """File that the output of the child and its children is appended to; None = the server's output."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that differ from the server's."""
    cores: Sequence[int] | None = None
    """CPU threads that it is bound to, and counts as the machine's; None = the server's."""
    outlives_server: bool = False
    """True if the child goes on after its server or caller is gone."""


def become_child(talk: Connection, server: int, outlives_server: bool) -> NoReturn:
    """Do one call in a process that was just forked from ``server``: read it, answer it, exit.

    Args:
        talk: Gives the :class:`ChildEnv`, the caller's folder, ``sys.path`` and ``sys.argv``, and the
            pickled call; takes the pickled :class:`Result`.
    """
    code = 1
    try:
        # A session of its own: Ctrl-C at the caller does not reach it, and its children end with it.
        os.setsid()
        with contextlib.nullcontext() if outlives_server else ending_with(server):
            code = _answer(talk)
    except EOFError:
        pass  # the caller is gone before it asked
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _answer(talk: Connection) -> int:
    """Do the call that waits in ``talk`` and answer it; return the exit code."""
    env: ChildEnv
    env, folder, path, sys.argv, call = talk.recv()
    code = 0
    try:
        os.chdir(folder)
        _enter(env)
        use_path(path)
        function, arguments = pickle.loads(call)
        answer = pickle.dumps(Result(value=function(*arguments)))
    except BaseException as error:
        if env.log is not None:
            traceback.print_exc()
        status = error.code if isinstance(error, SystemExit) else 1
        code = status if isinstance(status, int) else 1
        answer = pickle.dumps(Result(error=portable(error)))
    # A caller that is gone reads what the call left on disk when it runs again.
    with contextlib.suppress(BrokenPipeError):
        talk.send_bytes(answer)
    return code


def _enter(env: ChildEnv) -> None:
    """Put the log, the variables and the cores of a child in force."""
    if env.log is not None:
        env.log.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(env.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for target in (1, 2):
            os.dup2(log, target)
        os.close(log)
    os.environ.update(env.variables)
    if env.cores is not None:
        os.sched_setaffinity(0, env.cores)
        # OpenMP read its environment when the server imported torch: too late for OMP_NUM_THREADS.
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(exported_threads() or len(env.cores))


def use_path(path: Sequence[str]) -> None:
    """Import as the caller does, and after that from what the environment of this process names."""
    sys.path[:] = [*path, *(each for each in sys.path if each not in path)]


def exported_threads() -> int | None:
    """Return the positive number that ``OMP_NUM_THREADS`` begins with, None if there is none."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) or None if asked.isdecimal() else None


def portable(
    error: BaseException, instead: Callable[[str], BaseException] = RuntimeError
) -> BaseException:
    """Return the error, or one made by ``instead`` of its type and text if it cannot be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return instead(f"{type(error).__name__}: {error}")
    return error


@contextlib.contextmanager
def ending_with(parent: int) -> Iterator[None]:
    """End this process when ``parent`` is gone, at once if it is gone already.

    The id is passed in, because a process that asks for its parent's id after that parent died gets
    another one's.
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
