"""Run generated code in an isolated process and return True if it passes its tests.

    passes(program, tests) ──spawn──▶ judge: executes the tests, compares values, writes the result
                                        │ ▲
                                names,  │ │  values
                                calls   ▼ │
                                      player: executes the program; never sees the tests

A program passes if every statement of the tests ends without an exception. Tests run in the judge, which
is a process of its own. Nothing that the program does to its interpreter, its descriptors or its exit
status makes it pass; only the values that it returns count. Both processes are isolated (module ``lock``).
If the kernel cannot do that, nothing is run and the error gives the reason. The sandbox contains careless
and hostile code, but a program that exploits a fault of the kernel may escape, so score untrusted models
inside a container or a virtual machine as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ablations.errors import EvaluationError
from ablations.evaluation.sandbox import child

__all__ = ["Limits", "passes"]

_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    f"from {child.__name__} import main; del sys.path[0]; main(sys.argv[2:])"
)
_ROOT = Path(__file__).resolve().parents[3]
_START_SECONDS = 60.0  # until both processes are isolated: 0.1 s, more on a busy machine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one program."""

    wall_seconds: float = 6.0
    """Seconds from start to end; ends a program that sleeps."""
    cpu_seconds: int = 3
    """Seconds of processor time; ends a program that loops."""
    memory_bytes: int = 512 << 20
    """Bytes of address space, including the interpreter's own."""
    file_bytes: int = 1 << 20
    """Bytes of the largest file that it may write, in its own temporary folder."""
    total_bytes: int = 8 << 20
    """Bytes of all files that it may write."""
    total_files: int = 1000
    """Number of files and folders that it may make."""
    open_files: int = 32
    """Number of files open at once, 16 or more."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Features of the kernel to use; tests of older kernels leave some out."""

    namespaces: bool = True
    """Use a file system of its own, of fixed size, if unprivileged users may mount one."""
    landlock: int = 0
    """Newest Landlock version to use; 0 = that of the kernel."""


def passes(
    program: str,
    tests: str,
    *,
    given: str = "",
    limits: Limits | None = None,
    kernel: Kernel | None = None,
) -> bool:
    """Return True if ``program`` passes ``tests`` within the limits.

    ``given`` is the part of the program that the task wrote. Modules and helper functions of it that
    the tests use are taken from there, not from the program, which may have replaced them.

    Raises:
        EvaluationError: this machine cannot isolate the processes; nothing was run.
    """
    limits, kernel = limits or Limits(), kernel or Kernel()
    _check(kernel)
    return _in_folder([program, tests, given], limits, kernel)


_PROBE = "import collections, functools, hashlib, math, re, typing\ndef f(x): return math.gcd(x, 6)"


@functools.cache
def _check(kernel: Kernel) -> None:
    """Run one correct program, once per process: if it fails, every model would score 0 on this machine.

    Raises:
        EvaluationError: it does not pass, or cannot be isolated.
    """
    limits = Limits(wall_seconds=60.0)
    if not _in_folder([_PROBE, "assert f(4) == 2", ""], limits, kernel):
        raise EvaluationError(
            f"generated code was not run: a correct program does not pass with {sys.executable}. Its "
            f"standard library has to lie below {sys.base_prefix} or /usr, and to import in "
            f"{limits.memory_bytes:,} bytes"
        )


def _in_folder(texts: list[str], limits: Limits, kernel: Kernel) -> bool:
    folder = tempfile.mkdtemp(prefix="generated-")
    try:
        return _run(texts, folder, limits, kernel)
    finally:
        _remove(folder)


def _run(texts: list[str], folder: str, limits: Limits, kernel: Kernel) -> bool:
    numbers = (
        limits.cpu_seconds,
        limits.memory_bytes,
        limits.file_bytes,
        limits.open_files,
        limits.total_bytes,
        limits.total_files,
        int(kernel.namespaces),
        kernel.landlock,
    )
    # -I hides the caller's PYTHONDONTWRITEBYTECODE. Without bytecode our modules cost 15 ms a program.
    flags = ["-I", "-S", "-B"] if sys.dont_write_bytecode else ["-I", "-S"]
    command = [sys.executable, *flags, "-c", _START, str(_ROOT), folder]
    with subprocess.Popen(
        [*command, *map(str, numbers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={},
        bufsize=0,
        start_new_session=True,
    ) as child:
        try:
            return _result(child, texts, limits.wall_seconds)
        finally:
            _end(child)


def _result(child: subprocess.Popen[bytes], texts: list[str], seconds: float) -> bool:
    """Read the judge's result; no program runs before ``ready``."""
    assert child.stdin is not None
    assert child.stdout is not None
    line = _line(child.stdout.fileno(), time.monotonic() + _START_SECONDS)
    if line.startswith("unable "):
        raise EvaluationError(
            f"generated code was not run, because this machine cannot isolate it: {line[7:]}. Score on Linux "
            "5.13 or newer (x86_64, aarch64) with Landlock among its security modules (boot option "
            "lsm=landlock,…), outside of a container that forbids landlock_create_ruleset or prctl; or "
            "leave pass_at_1 out"
        )
    if line != "ready":
        raise EvaluationError(f"generated code was not run: {_why_it_did_not_start(child)}")
    deadline = time.monotonic() + seconds
    encoded = [text.encode("utf-8", "replace") for text in texts]
    with contextlib.suppress(BrokenPipeError):  # ended already, by a limit
        data = memoryview(b"".join(struct.pack("<Q", len(text)) + text for text in encoded))
        while data and select.select([], [child.stdin], [], _left(deadline))[1]:
            data = data[os.write(child.stdin.fileno(), data[: select.PIPE_BUF]) :]
    return _line(child.stdout.fileno(), deadline) == "pass"


def _why_it_did_not_start(child: subprocess.Popen[bytes]) -> str:
    try:
        _, written = child.communicate(timeout=1.0)
    except subprocess.TimeoutExpired:
        return f"its judge did not start within {_START_SECONDS:.0f} s"
    lines = written.decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "no message")
    return f"its judge ended at the start with exit status {child.returncode}: {last}"


def _line(descriptor: int, deadline: float) -> str:
    """Read a line, or the part of it that arrives before the deadline or the end of the stream."""
    read = bytearray()
    while not read.endswith(b"\n") and len(read) < 2000:
        if not select.select([descriptor], [], [], _left(deadline))[0]:
            break
        part = os.read(descriptor, 1)
        if not part:
            break
        read += part
    return read.decode("utf-8", "replace").strip()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close the judge's input, upon which it ends and reaps the player; if it does not, kill both."""
    assert child.stdin is not None
    with contextlib.suppress(OSError):
        child.stdin.close()
    try:
        child.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


# ------------------------------------------------------------------------------------- cleaning


def _remove(folder: str) -> None:
    """Remove a folder that a hostile program filled; anything that cannot be removed stays, without an error.

    Folders are removed from the top: the content of each is moved up, so that no path gets long at any
    depth. Links are removed and not followed.
    """
    top = os.fsencode(folder)
    prefix, number = os.urandom(8).hex().encode(), 0  # a name that the program cannot guess
    try:
        while names := os.listdir(top):
            left = len(names)
            for name in names:
                path = os.path.join(top, name)
                with contextlib.suppress(OSError):
                    if not stat.S_ISDIR(os.lstat(path).st_mode):
                        os.unlink(path)
                        left -= 1
                        continue
                    number = _raise(path, os.path.join(top, prefix), number)
                    os.rmdir(path)
                    left -= 1
            if left == len(names):  # nothing could be removed
                return
        os.rmdir(top)
    except OSError:
        return


def _raise(path: bytes, target: bytes, number: int) -> int:
    """Remove the files of a folder and rename its folders to ``target`` and a number; return the last one."""
    os.chmod(path, 0o700)
    for name in os.listdir(path):
        inner = os.path.join(path, name)
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(inner).st_mode):
                os.chmod(inner, 0o700)
                number += 1
                os.rename(inner, target + b"%d" % number)
            else:
                os.unlink(inner)
    return number
