"""The program that generated code runs inside of: it locks itself in, then executes its standard input.

Run by path (``python -I -S sandbox_child.py …``) with the standard library alone; never imported by the rest.
Three layers, each of which the code cannot take back:

    setrlimit   processor time, address space, file size, open files, core dumps
    landlock    files: read the interpreter's own, write only in the given folder
    seccomp     no new process, no exec, no socket, no signal to others, no change of modes or owners

Exit status 3 says that a layer could not be put on, and the code was not run.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

__all__: list[str] = []

NOT_LOCKED = 3

# ------------------------------------------------------------------------------------- landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_READ = 0b1101  # execute (shared libraries are mapped so), read files, list folders
_ALL_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}


def restrict_files(libc: ctypes.CDLL, folder: str) -> bool:
    """Reading is left for the interpreter's own files, writing for ``folder``."""
    abi = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if abi < 1:
        return False
    everything = _ALL_BY_ABI[min(abi, 3)]
    ruleset = libc.syscall(_CREATE_RULESET, struct.pack("Q", everything), 8, 0)
    if ruleset < 0:
        return False
    own = {sys.base_prefix, sys.prefix, "/usr", "/lib", "/lib64", "/dev/urandom", "/dev/null"}
    allowed = [(path, _READ) for path in own] + [(folder, everything)]
    for path, access in allowed:
        if os.path.exists(path) and not _allow(libc, ruleset, path, access):
            return False
    return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, access: int) -> bool:
    if not os.path.isdir(path):
        access &= 0b111  # the rights that a file can have
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    done = libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    os.close(descriptor)
    return bool(done == 0)


# -------------------------------------------------------------------------------------- seccomp

# Call, its number on x86_64, on aarch64 (- where it has none).
_REFUSED = """
    fork 57 -                vfork 58 -                execve 59 221             execveat 322 281
    kill 62 129              tkill 200 130             tgkill 234 131            rt_sigqueueinfo 129 138
    rt_tgsigqueueinfo 297 240  pidfd_open 434 434      pidfd_send_signal 424 424 prlimit64 302 261
    ptrace 101 117           process_vm_readv 310 270  process_vm_writev 311 271 perf_event_open 298 241
    socket 41 198            socketpair 53 199         connect 42 203            bind 49 200
    chmod 90 -               fchmod 91 52              fchmodat 268 53           fchmodat2 452 452
    chown 92 -               lchown 94 -               fchown 93 55              fchownat 260 54
    utime 132 -              utimes 235 -              futimesat 261 -           utimensat 280 88
    setxattr 188 5           lsetxattr 189 6           fsetxattr 190 7           io_uring_setup 425 425
    mount 165 40             unshare 272 97            setns 308 268             userfaultfd 323 282
    add_key 248 217          request_key 249 218       keyctl 250 219            bpf 321 280
"""
_ARCHITECTURES = {"x86_64": (0, 0xC000003E, 56), "aarch64": (1, 0xC00000B7, 220)}
"""Machine → column of the table above, audit number, number of ``clone``."""

_CLONE3 = 435
_CLONE_THREAD = 0x00010000
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000


def restrict_calls(libc: ctypes.CDLL) -> bool:
    """Refuse (EPERM) the system calls that reach outside of this process."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    column, architecture, clone = known
    numbers = _REFUSED.split()[1 + column :: 3]
    refused = [int(number) for number in numbers if number != "-"]
    filters = _filter(architecture, clone, refused)
    code = b"".join(struct.pack("HBBI", *line) for line in filters)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(filters), ctypes.addressof(buffer))
    return bool(libc.prctl(22, 2, program, 0, 0) == 0)


def _filter(architecture: int, clone: int, refused: list[int]) -> list[tuple[int, int, int, int]]:
    """Classic BPF over (number, architecture, arguments): threads pass, processes do not."""
    lines = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, 0x40000000),  # the x32 numbers of the same calls
        (_RETURN, 0, 0, _REFUSE),
        (
            _EQUAL,
            0,
            1,
            _CLONE3,
        ),  # its flags are behind a pointer; the C library falls back to clone
        (_RETURN, 0, 0, _ABSENT),
        (_EQUAL, 0, 4, clone),
        (_LOAD, 0, 0, 16),
        (_BITS, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _REFUSE),
        (_RETURN, 0, 0, _ALLOW),
    ]
    for number in refused:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


# ----------------------------------------------------------------------------------------- main


def lock_in(folder: str, cpu: int, memory: int, file_bytes: int, files: int) -> bool:
    """Put all layers on; False where the kernel has not got one of them."""
    libc = ctypes.CDLL(None, use_errno=True)
    # An empty network of its own, where unprivileged users may have one; sockets are refused anyway.
    libc.unshare(0x10000000 | 0x40000000 | 0x08000000)
    libc.prctl(1, 9, 0, 0, 0)  # killed when the parent ends
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges: what the two filters ask for
        return False
    for what, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    return restrict_files(libc, folder) and restrict_calls(libc)


def main() -> None:
    """Execute standard input; write the given word to the given descriptor if it ran to its end."""
    folder, cpu, memory, file_bytes, files, descriptor, word = sys.argv[1:8]
    program = sys.stdin.read()
    os.chdir(folder)
    if not lock_in(folder, int(cpu), int(memory), int(file_bytes), int(files)):
        os._exit(NOT_LOCKED)
    sys.argv = [""]
    exec(compile(program, "<generated>", "exec"), {"__name__": "__main__"})
    os.write(int(descriptor), word.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
