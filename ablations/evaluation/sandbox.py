"""Runs generated code in a locked-down child and says whether it passed.

    passes(program) ──spawn──▶ sandbox_child: new session, empty environment, its own temporary folder,
                               limits, no files but its own, no network, no processes ──exec──▶ program

A program passes when it runs to its end within the limits: the child then writes a word that the
program was not told, so that ``sys.exit(0)`` ahead of the tests is no pass. Where the kernel cannot
lock the child in (Linux 5.13 with Landlock and seccomp can), nothing is run and the task is missing,
with this as its reason. It keeps careless code in; a hostile one may know a kernel exploit, so
score untrusted models inside a container as well.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import EvaluationError
from ablations.evaluation.sandbox_child import NOT_LOCKED

__all__ = ["Limits", "passes"]

_CHILD = Path(__file__).with_name("sandbox_child.py")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use."""

    wall_seconds: float = 6.0
    """From start to end; catches a program that sleeps."""
    cpu_seconds: int = 3
    """Processor time; catches a program that loops."""
    memory_bytes: int = 512 << 20
    """Address space, the interpreter's own included."""
    file_bytes: int = 1 << 20
    """Largest file it may write, in its own temporary folder."""
    open_files: int = 32
    """Files open at once."""


def passes(program: str, limits: Limits | None = None) -> bool:
    """Whether ``program`` runs to its end inside the limits.

    Raises:
        EvaluationError: this machine cannot lock the child in; nothing was run.
    """
    limits = limits or Limits()
    word = secrets.token_hex(16)
    read, write = os.pipe()
    try:
        with tempfile.TemporaryDirectory(prefix="generated-") as folder:
            status = _run(program, folder, write, word, limits)
        os.close(write)
        write = -1
        if status == NOT_LOCKED:
            raise EvaluationError(
                "generated code was not run: this kernel offers no Landlock or seccomp to lock it in"
            )
        return status == 0 and os.read(read, 64) == word.encode()
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)


def _run(program: str, folder: str, pipe: int, word: str, limits: Limits) -> int:
    """Exit status of the child; negative where a signal or the clock ended it."""
    numbers = (limits.cpu_seconds, limits.memory_bytes, limits.file_bytes, limits.open_files, pipe)
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", str(_CHILD), folder, *map(str, numbers), word],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        pass_fds=(pipe,),
        start_new_session=True,
    )
    try:
        child.communicate(program.encode("utf-8", "replace"), timeout=limits.wall_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return child.returncode
