"""Parts of the sandbox: the kernel's refusals, the wire, the list of system calls, the cleaning."""

from __future__ import annotations

import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablations.errors import EvaluationError
from ablations.evaluation.sandbox import lock, sandbox
from ablations.evaluation.sandbox.wire import Broken, Decoder, Encoder

# ------------------------------------------------------------------- kernels that lack a layer

REFUSE = """
import ctypes, errno, os, struct, sys
from ablations.evaluation.sandbox import lock
from ablations.evaluation.sandbox.sandbox import passes
number, argument, error = map(int, sys.argv[1:])
lines = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 16)]
lines += [(0x15, 0, 1, argument) if argument >= 0 else (0x15, 0, 0, 0)]
lines += [(0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("HBBI", *line) for line in lines)
buffer = ctypes.create_string_buffer(code, len(code))
libc = lock.library()
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer)), 0, 0) == 0
print(passes("open('ran', 'w')\\ndef f(): return 1", "assert f() == 1"))
"""
# Numbers of landlock_create_ruleset, prctl and unshare on x86_64.
PRCTL_SECCOMP = 22


def under(number: int, argument: int, error: int) -> subprocess.CompletedProcess[str]:
    """Run a program while a call (with that first argument, unless -1) fails, as on an older kernel."""
    command = [sys.executable, "-c", REFUSE, str(number), str(argument), str(error)]
    return subprocess.run(command, capture_output=True, text=True)


x86_only = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86_64")


@x86_only
@pytest.mark.parametrize(
    ("number", "argument", "error", "reason"),
    [(444, -1, 38, "Landlock"), (444, -1, 95, "Landlock"), (157, PRCTL_SECCOMP, 22, "seccomp")],
    ids=["no Landlock", "Landlock switched off", "no seccomp"],
)
def test_nothing_runs_where_a_layer_is_missing(
    number: int, argument: int, error: int, reason: str
) -> None:
    done = under(number, argument, error)
    assert done.returncode == 1
    assert (
        f"EvaluationError: generated code was not run, because this machine cannot isolate it: {reason}"
        in (done.stderr)
    )
    assert "lsm=landlock" in done.stderr


@x86_only
def test_the_sandbox_works_without_user_namespaces() -> None:
    done = under(272, -1, 1)
    assert (done.stdout, done.returncode) == ("True\n", 0)


def test_a_judge_that_does_not_start_names_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_ROOT", "/nowhere")
    with pytest.raises(EvaluationError, match=r"exit status 1: ModuleNotFoundError: .*ablations"):
        sandbox.passes("pass", "pass", kernel=sandbox.Kernel(landlock=3))


def test_a_processor_without_a_list_of_calls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_ARCHITECTURES", {})
    with pytest.raises(lock.CannotHold, match="no list of system calls"):
        lock.restrict_calls(lock.library())


# ------------------------------------------------------------------------------------- system calls

HEADERS = ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm-generic/unistd.h")


@pytest.mark.skipif(not all(map(os.path.exists, HEADERS)), reason="no kernel headers")
def test_numbers_are_those_of_the_kernels_headers() -> None:
    x86, generic = (
        {
            name: int(number)
            for name, number in re.findall(
                r"#define __NR(?:3264)?_(\w+) (\d+)", Path(h).read_text()
            )
        }
        for h in HEADERS
    )
    generic["newfstatat"] = generic["fstatat"]  # its name on 64 bits
    words = lock.ALLOWED_CALLS.split()
    for name, one, other in zip(words[::3], words[1::3], words[2::3], strict=True):
        assert x86[name] == int(one)
        assert generic[name] == int(other) if other != "-" else name not in generic
    for machine, table in (("x86_64", x86), ("aarch64", generic)):
        partly = lock._PARTLY[machine]
        assert {name: table[name] for name in partly} == partly
        assert lock._WAIT4[machine] == table["wait4"]
        assert lock._CAPSET[machine] == table["capset"]


FURTHER = """
    ptrace execve execveat fork vfork mount unshare setns socket connect sendmsg shmget
    truncate chmod sched_setaffinity sched_setscheduler setpriority ioprio_set setrlimit
    memfd_create bpf io_uring_setup pidfd_open process_vm_writev rt_sigqueueinfo setpgid
    setsid linkat mknodat
"""


@pytest.mark.parametrize("name", FURTHER.split())
def test_what_reaches_further_is_not_on_the_list(name: str) -> None:
    assert name not in lock.ALLOWED_CALLS.split()
    assert name not in lock._PARTLY["x86_64"]


# -------------------------------------------------------------------------------------------- wire

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 127, 128, -129, 1 << 200, 0.1, math.inf, 2j, "", "é\ud800", b"\0", (), []),
    {"a": [1, (2, {3}), frozenset({4})]},
    range(1, 9, 2),
    bytearray(b"x"),
    ValueError,
    int,
)


def encode(value: Any) -> bytes:
    return Encoder(lambda part: b"N")(value)


def decode(data: bytes) -> Any:
    return Decoder(theirs=lambda number: number, ours=lambda number: number)(data)


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_arrive_as_they_left(value: Any) -> None:
    arrived = decode(encode(value))
    assert arrived == value
    assert type(arrived) is type(value)


def test_damaged_bytes_are_no_value_and_run_nothing() -> None:
    rng = random.Random(7)
    whole = encode(list(VALUES))
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            decode(bytes(data[: rng.randint(1, len(data))]))
        except Broken:
            continue


@pytest.mark.parametrize(
    "data",
    [b"", b"?", b"i\xff\xff\xff\xff", b"NN", b"l\1\0\0\0" * 5000 + b"N", b"o\2\0\0\0ost\0\0\0\0"],
)
def test_bytes_that_are_no_value_are_refused(data: bytes) -> None:
    with pytest.raises(Broken):
        decode(data)


# ---------------------------------------------------------------------------------------- cleaning


def nest(folder: Path, depth: int) -> None:
    """Make ``depth`` folders inside one another; no path is that long."""
    inner = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=inner)
        outer, inner = inner, os.open("d", os.O_RDONLY, dir_fd=inner)
        os.close(outer)
    os.close(inner)


def test_any_folder_can_be_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    folder = tmp_path / "box"
    folder.mkdir()
    nest(folder, 3000)
    for name in (b"\xff\xfe", b"\n", b"-rf", b"a" * 255):
        inner = os.path.join(os.fsencode(folder), name)
        os.mkdir(inner)
        os.symlink(os.fsencode(kept), os.path.join(inner, b"link"))
        os.mkdir(os.path.join(inner, b"closed"), 0)
        os.chmod(inner, 0)
    os.symlink(tmp_path, folder / "up")
    os.mkfifo(folder / "fifo")
    sandbox._remove(str(folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert kept.read_text() == "kept"


def test_what_cannot_be_removed_is_no_error(tmp_path: Path) -> None:
    sandbox._remove(str(tmp_path / "missing"))
    (tmp_path / "file").write_text("")
    sandbox._remove(str(tmp_path / "file"))
