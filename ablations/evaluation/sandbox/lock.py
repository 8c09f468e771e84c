"""Isolate the calling process: limits, files by Landlock, system calls by a seccomp allow-list.

Only the standard library is used, because the child runs without site-packages. Every layer works
without privileges, lasts for the rest of the process, and cannot be undone:

    setrlimit   processor time, address space, file size, open files, core dumps
    capset      no capabilities, even for a caller that is root
    landlock    read the interpreter's own files, write only in the given folder
    seccomp     the system calls named here, with the arguments allowed here; all others fail

Sources: kernel documentation ``userspace-api/landlock`` and ``userspace-api/seccomp_filter``;
numbers of the calls: ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64).
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # imported by no child: 4 ms
    from collections.abc import Iterable

__all__ = [
    "CannotHold",
    "Library",
    "apply_limits",
    "library",
    "mount_folder",
    "restrict_calls",
    "restrict_files",
]


Library = ctypes.CDLL


class CannotHold(Exception):  # noqa: N818  (a state of the kernel, shown with its reason)
    """Layer that this kernel cannot apply, with the reason."""


def library() -> ctypes.CDLL:
    """Return the C library with ``errno`` kept."""
    return ctypes.CDLL(None, use_errno=True)


def _error() -> str:
    return os.strerror(ctypes.get_errno())


# --------------------------------------------------------------------------------------- limits


def apply_limits(libc: Library, cpu: int, memory: int, file_bytes: int, open_files: int) -> None:
    """Set the limits of this process and give up its capabilities.

    ``cpu`` is in seconds; ``memory`` and ``file_bytes`` are in bytes.

    Raises:
        CannotHold: the kernel refuses to switch new privileges off.
    """
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: killed when the process that forked it ends
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS: what the two filters ask for
        raise CannotHold(f"new privileges cannot be switched off ({_error()})")
    for what, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = resource.getrlimit(what)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (allowed, allowed))
    header = struct.pack("=Ii", 0x20080522, 0)
    libc.syscall(_CAPSET[os.uname().machine], header, bytes(24))


_CAPSET = {"x86_64": 126, "aarch64": 91}


def mount_folder(libc: Library, folder: str, size: int, entries: int) -> bool:
    """Mount an empty file system of ``size`` bytes and ``entries`` inodes over ``folder``.

    Only this process and its children see it, and it disappears with the last of them. Return False if
    unprivileged user namespaces are switched off; the folder is then an ordinary one.
    """
    user, group = os.getuid(), os.getgid()
    if libc.unshare(0x10000000 | 0x00020000) != 0:  # CLONE_NEWUSER | CLONE_NEWNS
        return False
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return False
    # MS_REC | MS_PRIVATE: the mount stays out of every other namespace.
    if libc.mount(b"none", b"/", None, 0x4000 | 0x40000, None) != 0:
        return False
    options = f"size={size},nr_inodes={entries},mode=700".encode()
    flags = 2 | 4 | 8  # MS_NOSUID | MS_NODEV | MS_NOEXEC
    return bool(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, options) == 0)


# ------------------------------------------------------------------------------------- landlock

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_READ = 0b1101  # execute (shared libraries are mapped so), read files, list folders
_ON_FILES = 0b111
# Rights by ABI: 1 has 13, 2 adds moves between folders, 3 truncation, 5 device controls.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}


def restrict_files(
    libc: Library, folder: str, *, write: bool = True, abi: int | None = None
) -> None:
    """Allow reading of the interpreter's own files, and writing in ``folder`` (reading without ``write``).

    ``abi`` restricts as a kernel with that Landlock version does. Versions 1 and 2 do not cover truncation;
    ``restrict_calls`` refuses every call that truncates a file which is not open for writing.

    Raises:
        CannotHold: the kernel has no Landlock, or it is switched off.
    """
    has = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if has < 1:
        raise CannotHold(f"Landlock, which protects the files, is not available ({_error()})")
    abi = min(has, abi or has)
    everything = (1 << _RIGHTS[min(abi, 5)]) - 1
    attributes = [everything]
    if abi >= 4:
        attributes.append(0b11)  # bind and connect by TCP
    if abi >= 6 and write:
        # Abstract sockets and signals stay in this domain. Not for the judge, which ends the program.
        attributes.append(0b11)
    size = 8 * len(attributes)
    ruleset = libc.syscall(
        _CREATE_RULESET, struct.pack(f"={len(attributes)}Q", *attributes), size, 0
    )
    if ruleset < 0:
        raise CannotHold(f"Landlock refuses a set of rules ({_error()})")
    for path in _own_paths():
        _allow(libc, ruleset, path, _READ)
    _allow(libc, ruleset, folder, everything if write else _READ)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise CannotHold(f"Landlock refuses to restrict this process ({_error()})")
    os.close(ruleset)


def _own_paths() -> list[str]:
    """Return the interpreter's folders; of a prefix that contains more, only its own subfolders."""
    paths = {"/usr", "/lib", "/lib64", "/dev/urandom", "/dev/null"}
    for prefix in (sys.base_prefix, sys.prefix):
        shared = prefix in ("/", os.path.expanduser("~"))
        paths |= {f"{prefix}/{part}" for part in ("bin", "lib", "lib64")} if shared else {prefix}
    return sorted(path for path in paths if os.path.exists(path))


def _allow(libc: Library, ruleset: int, path: str, access: int) -> None:
    if not os.path.isdir(path):
        access &= _ON_FILES
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    done = libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)
    os.close(descriptor)
    if done != 0:
        raise CannotHold(f"Landlock refuses a rule ({_error()})")


# -------------------------------------------------------------------------------------- seccomp

# Call, its number on x86_64, on aarch64 (- = none). Each of them acts on this process, its memory, its
# descriptors, or on paths that Landlock protects.
ALLOWED_CALLS = """
    read 0 63  write 1 64  close 3 57  lseek 8 62  pread64 17 67  pwrite64 18 68  readv 19 65
    writev 20 66  preadv 295 69  pwritev 296 70  stat 4 -  lstat 6 -  fstat 5 80
    newfstatat 262 79  statx 332 291  statfs 137 43  fstatfs 138 44  access 21 -  faccessat 269 48
    faccessat2 439 439  readlink 89 -  readlinkat 267 78  getdents 78 -  getdents64 217 61
    getcwd 79 17  chdir 80 49  fchdir 81 50  mkdir 83 -  mkdirat 258 34  rmdir 84 -  unlink 87 -
    unlinkat 263 35  rename 82 -  renameat 264 38  renameat2 316 276  symlink 88 -  symlinkat 266 36
    ftruncate 77 46  fsync 74 82  fdatasync 75 83  umask 95 166  flock 73 32  dup 32 23  dup2 33 -
    dup3 292 24  pipe 22 -  pipe2 293 59  select 23 -  pselect6 270 72  poll 7 -  ppoll 271 73
    epoll_create1 291 20  epoll_ctl 233 21  epoll_wait 232 -  epoll_pwait 281 22  mmap 9 222
    mprotect 10 226  munmap 11 215  mremap 25 216  brk 12 214  madvise 28 233  mincore 27 232
    rt_sigaction 13 134  rt_sigprocmask 14 135  rt_sigreturn 15 139  rt_sigpending 127 136
    rt_sigsuspend 130 133  rt_sigtimedwait 128 137  sigaltstack 131 132  pause 34 -  alarm 37 -
    getitimer 36 102  setitimer 38 103  restart_syscall 219 128  nanosleep 35 101
    clock_nanosleep 230 115  clock_gettime 228 113  clock_getres 229 114  gettimeofday 96 169
    time 201 -  times 100 153  getcpu 309 168  getpid 39 172  gettid 186 178  getppid 110 173
    getuid 102 174  geteuid 107 175  getgid 104 176  getegid 108 177  getresuid 118 148
    getresgid 120 150  getgroups 115 158  getpgrp 111 -  uname 63 160  sysinfo 99 179
    getrlimit 97 163  getrusage 98 165  sched_getaffinity 204 123  sched_yield 24 124
    sched_get_priority_max 146 125  sched_get_priority_min 147 126  futex 202 98
    set_robust_list 273 99  get_robust_list 274 100  set_tid_address 218 96  rseq 334 293
    getrandom 318 278  exit 60 93  exit_group 231 94
"""

# Architecture → column of the table above, audit number.
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Calls that are allowed with some arguments only, by architecture.
_PARTLY = {
    "x86_64": {
        "open": 2,
        "openat": 257,
        "clone": 56,
        "clone3": 435,
        "fcntl": 72,
        "ioctl": 16,
        "prlimit64": 302,
        "prctl": 157,
        "kill": 62,
        "tgkill": 234,
    },
    "aarch64": {
        "openat": 56,
        "clone": 220,
        "clone3": 435,
        "fcntl": 25,
        "ioctl": 29,
        "prlimit64": 261,
        "prctl": 167,
        "kill": 129,
        "tgkill": 131,
    },
}
_WAIT4 = {"x86_64": 61, "aarch64": 260}
_CLONE_THREAD = 0x00010000
_O_TRUNC = 0x200  # the same on both architectures
# Duplicates, flags, record locks: not the owner that signals go to, leases, or the size of a pipe.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
# Terminal or not, FIONREAD, close on exec.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_PRCTL = (15, 16)  # name of a thread
_LOAD, _EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000

Line = tuple[int, int, int, int]


def restrict_calls(libc: Library, child: int | None = None) -> None:
    """Refuse (EPERM) every system call that is not on the list, permanently.

    Signals may be sent to this process and to ``child`` only, and ``child`` may be waited for.

    Raises:
        CannotHold: the processor is not in the table, or the kernel has no seccomp filters.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise CannotHold(f"no list of system calls for the processor {machine!r}")
    column, audit = _ARCHITECTURES[machine]
    numbers = ALLOWED_CALLS.split()[1 + column :: 3]
    allowed = [int(number) for number in numbers if number != "-"]
    own = [os.getpid()]
    if child is not None:
        own.append(child)
        allowed.append(_WAIT4[machine])
    lines = _filter(audit, allowed, _PARTLY[machine], own)
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    if libc.prctl(22, 2, program, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise CannotHold(f"seccomp refuses a filter ({_error()})")


def _filter(audit: int, allowed: list[int], partly: dict[str, int], own: list[int]) -> list[Line]:
    """Build the classic BPF program over (number, architecture, six arguments of 64 bits)."""
    lines: list[Line] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, audit), _end(_KILL), (_LOAD, 0, 0, 0)]
    for number in allowed:
        lines += [(_EQUAL, 0, 1, number), _end(_ALLOW)]
    blocks: dict[str, list[Line]] = {
        "open": _open(1),
        "openat": _open(2),
        # Threads, no processes. The flags of clone3 are behind a pointer: libc falls back to clone.
        "clone": [_argument(0), (_ANY_BIT, 0, 1, _CLONE_THREAD), _end(_ALLOW), _end(_REFUSE)],
        "clone3": [_end(_ABSENT)],
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prctl": _one_of(0, _PRCTL),
        # Its own limits, to read: no other process (argument 0), no new limits (argument 2).
        "prlimit64": [*_zero(0), *_zero(2), *_zero(2, half=4), _end(_ALLOW)],
        "kill": _one_of(0, own),
        "tgkill": _one_of(0, own),
    }
    for name, number in partly.items():
        lines += [(_EQUAL, 0, len(blocks[name]), number), *blocks[name]]
    return [*lines, _end(_REFUSE)]


def _end(action: int) -> Line:
    return (_RETURN, 0, 0, action)


def _argument(index: int, half: int = 0) -> Line:
    """Load the low half of an argument, or the high half if ``half`` is 4 (little-endian processors)."""
    return (_LOAD, 0, 0, 16 + 8 * index + half)


def _zero(index: int, half: int = 0) -> list[Line]:
    """Continue only if the argument is 0."""
    return [_argument(index, half), (_EQUAL, 1, 0, 0), _end(_REFUSE)]


def _one_of(index: int, values: Iterable[int]) -> list[Line]:
    lines = [_argument(index)]
    for value in values:
        lines += [(_EQUAL, 0, 1, value), _end(_ALLOW)]
    return [*lines, _end(_REFUSE)]


def _open(index: int) -> list[Line]:
    """Refuse flags that truncate a file without the right to write (Landlock before version 3)."""
    return [
        _argument(index),
        (_AND, 0, 0, 3),
        (_EQUAL, 0, 1, 3),  # neither reading nor writing, and truncation works
        _end(_REFUSE),
        (_EQUAL, 0, 2, 0),
        _argument(index),
        (_ANY_BIT, 1, 0, _O_TRUNC),
        _end(_ALLOW),
        _end(_REFUSE),
    ]
