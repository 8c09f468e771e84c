"""Run generated code in a locked-in process and decide whether it passes its tests.

    passes(program, tests) ──spawn──▶ judge: executes the tests, compares values, writes the verdict
                                        │ ▲
                                names,  │ │  values
                                calls   ▼ │
                                      player: executes the program; never sees the tests

A program passes when every statement of the tests ends without an exception. Tests run in the judge, a
process of their own, so nothing that the program does to its interpreter, its descriptors or its exit
status makes a pass; it earns one by the values that it returns. Both processes are locked in
(``sandbox_lock``). Where the kernel cannot do that, nothing is run and the error names the reason. It
keeps careless and hostile code in; a program that knows a fault of the kernel may get out, so
score untrusted models inside a container or a virtual machine as well.
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
_START_SECONDS = 60.0  # until both processes are locked in: 0.1 s, more on a crowded machine


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
    total_bytes: int = 8 << 20
    """All files that it may write."""
    total_files: int = 1000
    """Files and folders that it may make."""
    open_files: int = 32
    """Files open at once, 16 or more."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Parts of the kernel to do without, for tests of older ones."""

    namespaces: bool = True
    """Use an own file system, of fixed size, where unprivileged users may mount one."""
    landlock: int = 0
    """Newest Landlock version to use; 0 uses what there is."""


def passes(
    program: str,
    tests: str,
    *,
    given: str = "",
    limits: Limits | None = None,
    kernel: Kernel | None = None,
) -> bool:
    """Return True if ``tests`` hold for ``program`` inside the limits.

    ``given`` is the part of the program that the task wrote. Modules and helper functions of it that
    the tests use are taken from there, not from the program, which may have replaced them.

    Raises:
        EvaluationError: this machine cannot lock the processes in; nothing was run.
    """
    limits, kernel = limits or Limits(), kernel or Kernel()
    _check(kernel)
    return _in_folder([program, tests, given], limits, kernel)


_PROBE = "import collections, functools, hashlib, math, re, typing\ndef f(x): return math.gcd(x, 6)"


@functools.cache
def _check(kernel: Kernel) -> None:
    """Run one right program, once a process: a machine on which it fails would score 0 for every model.

    Raises:
        EvaluationError: it does not pass, or cannot be locked in.
    """
    patient = Limits(wall_seconds=60.0)
    if not _in_folder([_PROBE, "assert f(4) == 2", ""], patient, kernel):
        raise EvaluationError(
            f"generated code was not run: a right program does not pass with {sys.executable}. Its "
            f"standard library has to lie below {sys.base_prefix} or /usr, and to import in "
            f"{patient.memory_bytes:,} bytes"
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
            return _verdict(child, texts, limits.wall_seconds)
        finally:
            _end(child)


def _verdict(child: subprocess.Popen[bytes], texts: list[str], seconds: float) -> bool:
    """Read what the judge reports; no program runs before ``ready``."""
    assert child.stdin is not None
    assert child.stdout is not None
    line = _line(child.stdout.fileno(), time.monotonic() + _START_SECONDS)
    if line.startswith("unable "):
        raise EvaluationError(
            f"generated code was not run, since nothing can lock it in: {line[7:]}. Score on Linux 5.13 or "
            "newer (x86_64, aarch64) with Landlock among its security modules (boot option lsm=landlock,…), "
            "outside of a container that forbids landlock_create_ruleset or prctl; or leave pass_at_1 out"
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
    """Read to the end of a line; what is there already where time or the other side ends."""
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
    """Let the judge end and reap its player: it does when its input closes. Else kill both."""
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
    """Remove a folder that a hostile program filled; what cannot be removed stays, without an error.

    Folders are taken apart from the top: what lies in one is moved up, so that no path gets long and no
    depth counts. Links are removed and not followed.
    """
    top = os.fsencode(folder)
    prefix, number = os.urandom(8).hex().encode(), 0  # no name that the program could take
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
