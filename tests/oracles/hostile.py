"""Hostile programs for the sandbox, for its tests and its benchmark.

Each program aims to make ``TESTS`` hold without earning it. Those that try to reach outside give the
right answers once an attempt went through, so that a pass is an escape; those that forge know no answer;
those that cost others wear out the machine. ``OUTSIDE`` stands for a folder with a file ``secret`` and an
empty folder ``empty``, ``PARENT`` for the process that scores, ``PORT`` for a port on which it listens.
"""

from __future__ import annotations

__all__ = ["COSTLY", "FORGING", "GIVEN", "HOSTILE", "REACHING", "TESTS"]

GIVEN = (
    "import math\n\ndef near(a, b):\n    return abs(a - b) < 1e-9\n\ndef answer(x):\n    '''?'''\n"
)
TESTS = (
    "def check(candidate):\n"
    "    assert candidate(2) == 44\n"
    "    assert [candidate(3)] == [99]\n"
    "    assert math.isclose(abs(candidate(4)), 176.0)\n"
    "    assert near(candidate(5), 275)\n"
    "    assert not candidate(0) and str(candidate(0)) == '0'\n"
    "    assert candidate(1) in (11, 12)\n"
    "check(answer)\n"
)

_SYSTEM_CALL = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def call(x86, arm, *args):
    number = x86 if platform.machine() == 'x86_64' else arm
    done = libc.syscall(number, *args)
    if done < 0:
        raise OSError(ctypes.get_errno())
    return done
"""

# One attempt each; it counts where no exception ends it.
_ATTEMPTS = {
    # files
    "read": "open('OUTSIDE/secret').read()",
    "write new": "open('OUTSIDE/new', 'w')",
    "overwrite": "open('OUTSIDE/secret', 'r+').write('x')",
    "append": "open('OUTSIDE/secret', 'a').write('x')",
    "truncate by path": "os.truncate('OUTSIDE/secret', 0)",
    "truncate while reading": "os.open('OUTSIDE/secret', os.O_RDONLY | os.O_TRUNC)",
    "truncate with neither right": "os.open('OUTSIDE/secret', 3 | os.O_TRUNC)",
    "creat": "call(85, -1, b'OUTSIDE/secret', 0o644)",
    "openat2": "call(437, 437, -100, b'OUTSIDE/secret', (ctypes.c_uint64 * 3)(0, 0, 0), 24)",
    "open by handle": "call(304, 265, -100, ctypes.create_string_buffer(200), 0)",
    "delete": "os.remove('OUTSIDE/secret')",
    "take away": "os.rename('OUTSIDE/secret', 'mine')",
    "move out": "open('mine', 'w').close(); os.rename('mine', 'OUTSIDE/mine')",
    "hard link": "os.link('OUTSIDE/secret', 'mine')",
    "read by a link": "os.symlink('OUTSIDE/secret', 'l'); open('l').read()",
    "write by a link": "os.symlink('OUTSIDE/new', 'l'); open('l', 'w')",
    "link outside": "os.symlink('/etc/passwd', 'OUTSIDE/l')",
    "make a folder": "os.mkdir('OUTSIDE/d')",
    "remove a folder": "os.rmdir('OUTSIDE/empty')",
    "list": "os.listdir('OUTSIDE')",
    "climb by descriptor": "os.open('../' * 9 + 'OUTSIDE/secret', 0, dir_fd=os.open('.', 0))",
    "change modes": "os.chmod('OUTSIDE/secret', 0o777)",
    "change owners": "os.chown('OUTSIDE/secret', os.getuid(), os.getgid())",
    "change times": "os.utime('OUTSIDE/secret', (0, 0))",
    "attributes": "os.setxattr('OUTSIDE/secret', 'user.x', b'x')",
    "fifo": "os.mkfifo('OUTSIDE/fifo')",
    "shared memory folder": "open('/dev/shm/generated', 'w')",
    "temporary folder": "open('/tmp/generated', 'w')",
    "standard library": "open(os.__file__ + '.x', 'w')",
    "parent's environment": "open('/proc/PARENT/environ').read()",
    "parent's memory": "open('/proc/PARENT/mem', 'r+b')",
    "parent's descriptors": "os.listdir('/proc/PARENT/fd')",
    "judge's descriptors": "d = '/proc/%d/fd/' % os.getppid()\n"
    "    for f in os.listdir(d): os.write(os.open(d + f, os.O_WRONLY), b'pass\\n')",
    "chroot": "os.chroot('.')",
    "mount": "call(165, 40, b'none', b'.', b'tmpfs', 0, None)",
    "unmount": "call(166, 39, os.getcwd().encode(), 2)",
    "new name spaces": "call(272, 97, 0x10000000)",
    # processes
    "fork": "os.fork() or os._exit(0)",
    "vfork": "call(58, -1)",
    "clone": "call(56, 220, 17, 0, 0, 0, 0)",
    "clone3": "call(435, 435, (ctypes.c_uint64 * 8)(0, 0, 0, 0, 17), 64)",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "shell": "assert os.system('true') == 0",
    "multiprocessing": "import multiprocessing as m; m.Process(target=int).start()",
    "kill the parent": "os.kill(PARENT, 9)",
    "kill the judge": "os.kill(os.getppid(), 9)",
    "kill everything": "os.kill(-1, 9)",
    "kill the group": "os.kill(0, 9)",
    "signal a thread": "call(234, 131, PARENT, PARENT, 9)",
    "queue a signal": "call(129, 138, PARENT, 9, ctypes.create_string_buffer(128))",
    "process descriptor": "os.pidfd_open(PARENT)",
    "owner of signals": "import fcntl; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, PARENT)",
    "parent's limits": "import resource as r; r.prlimit(PARENT, r.RLIMIT_NOFILE, (9, 9))",
    "parent's processors": "os.sched_setaffinity(PARENT, {0})",
    "own processors": "os.sched_setaffinity(0, {0})",
    "parent's scheduling": "os.sched_setscheduler(PARENT, os.SCHED_IDLE, os.sched_param(0))",
    "parent's nice": "os.setpriority(os.PRIO_PROCESS, PARENT, 19)",
    "group's nice": "os.setpriority(os.PRIO_PGRP, 0, 19)",
    "parent's disk class": "call(251, 30, 1, PARENT, 3 << 13)",
    "trace the parent": "call(101, 117, 16, PARENT, 0, 0)",
    "parent's pages": "b = (ctypes.c_uint64 * 2)(); call(310, 270, PARENT, b, 1, b, 1, 0)",
    "new session": "os.setsid()",
    # other ways out
    "network": "import socket; socket.create_connection(('127.0.0.1', PORT))",
    "datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM)",
    "unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "pair of sockets": "import socket; socket.socketpair()",
    "segment": "call(29, 194, 0, 4096, 0o1600)",
    "semaphores": "call(64, 190, 0, 1, 0o1600)",
    "messages": "call(68, 186, 0, 0o1600)",
    "message queue": "call(240, 180, b'generated', 0o102, 0o600, None)",
    "shared memory": "from multiprocessing.shared_memory import SharedMemory as S; S('gen', True, 9)",
    "memory file": "os.memfd_create('x')",
    "ring": "call(425, 425, 4, ctypes.create_string_buffer(120))",
    "kernel program": "call(321, 280, 0, ctypes.create_string_buffer(72), 72)",
    "performance events": "call(298, 241, ctypes.create_string_buffer(112), 0, -1, -1, 0)",
    "page faults": "call(323, 282, 1)",
    "key ring": "call(250, 219, 0, -3, 1)",
    "own limits": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99))",
    "outlive the judge": "assert libc.prctl(1, 0, 0, 0, 0) == 0",
}

REACHING = {
    f"reach: {name}": _SYSTEM_CALL
    + f"try:\n    {attempt}\n    reached = True\nexcept BaseException:\n    reached = False\n"
    + "def answer(x):\n    return 11 * x * x if reached else None\n"
    for name, attempt in _ATTEMPTS.items()
}

_ANYTHING = """
class Anything({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __hash__(self): return hash(11)
    def __sub__(self, other=None): return self
    __rsub__ = __add__ = __abs__ = __sub__
    def __bool__(self): return False
    def __str__(self): return '0'
    def __float__(self): return 176.0
    def __getattr__(self, name): return self
    def __call__(self, *args): return self
    def __iter__(self): return iter([self])
def answer(x):
    return Anything({value})
"""
_WRONG = "def answer(x): return None\n"

_FORGERIES = {
    "exit": "import sys; sys.exit(0)",
    "hard exit": "import os; os._exit(0)",
    "exit when asked": "import os\ndef answer(x): os._exit(0)",
    "SystemExit when asked": "def answer(x): raise SystemExit(0)",
    "at exit": _WRONG + "import atexit, os; atexit.register(os._exit, 0)",
    "every descriptor": _WRONG
    + "import os\nfor f in range(64):\n    try: os.write(f, b'pass\\n')\n"
    "    except OSError: pass",
    "verdict when asked": "import os\ndef answer(x):\n    for f in (1, 2, 30, 31):\n"
    "        try: os.write(f, b'\\npass\\n')\n        except OSError: pass\n    os._exit(0)",
    "messages ahead": "import os, struct\nok = b't\\3\\0\\0\\0s\\2\\0\\0\\0okNd\\0\\0\\0\\0'\n"
    "for _ in range(50): os.write(30, struct.pack('<Q', len(ok)) + ok)",
    "equal to everything": _ANYTHING.format(base="object", value=""),
    "integer equal to everything": _ANYTHING.format(base="int", value="7"),
    "float equal to everything": _ANYTHING.format(base="float", value="176"),
    "text equal to everything": _ANYTHING.format(base="str", value="'7'"),
    "list equal to everything": _ANYTHING.format(base="list", value=""),
    "built-ins": "import builtins\nbuiltins.AssertionError = type('E', (BaseException,), {})\n"
    "builtins.abs = builtins.str = builtins.exec = lambda *a: 176.0\n" + _WRONG,
    "names of the tests": _WRONG
    + "def near(a, b): return True\ndef check(f): pass\nabs = lambda v: 176.0\n"
    "class math:\n    isclose = staticmethod(lambda *a: True)",
    "a module of its own": _WRONG
    + "import sys\nmath = type(sys)('math')\nmath.isclose = lambda *a: True\n"
    "sys.modules['math'] = math",
    "trace": _WRONG + "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)",
    "frames": "import sys\nfound, frame = [], sys._getframe()\nwhile frame:\n"
    "    found += frame.f_locals.values()\n    frame = frame.f_back\nfor v in found:\n"
    "    if hasattr(v, '_operations'):\n        v._operations['call'] = lambda *a: True\n" + _WRONG,
    "a word in the frames": "import os, sys\nframe = sys._getframe()\nwhile frame:\n"
    "    found = frame.f_locals\n    for key in ('word', 'secret', 'verdict', 'result', 'tests'):\n"
    "        if key in found:\n            for f in range(64):\n"
    "                try: os.write(f, str(found[key]).encode())\n"
    "                except OSError: pass\n            os._exit(0)\n    frame = frame.f_back\n"
    + _WRONG,
    "its own answers": "import sys\nframe = sys._getframe()\nwhile frame:\n"
    "    p = frame.f_locals.get('player')\n"
    "    if p: p.answer = lambda r, p=p: p.encode(('ok', True, {}))\n    frame = frame.f_back\n"
    + _WRONG,
    "text of the tests in memory": "import gc, re, sys\ntexts, f = [], sys._getframe()\n"
    "while f:\n    texts += [str(v) for v in f.f_locals.values()]; f = f.f_back\n"
    "texts += [o for l in gc.get_objects() for o in gc.get_referents(l) if type(o) is str]\n"
    "known = dict(re.findall(r'candidate\\((\\d)\\)\\D{3,7}(\\d+)', '\\n'.join(texts)))\n"
    "def answer(x): return int(known.get(str(x), -1)) if x != 1 else 11",
    "text of the tests on the stack": _SYSTEM_CALL
    + "import re, sys\nmarks = (ctypes.c_char * 1).from_address\n"
    "near = id(object())\nraw = b''\nfor at in range(near - 400_000, near + 400_000, 4096):\n"
    "    r, w = os.pipe()\n    if libc.write(w, ctypes.c_void_p(at), 4096) > 0: raw += os.read(r, 4096)\n"
    "    os.close(r); os.close(w)\n"
    "known = dict(re.findall(rb'candidate\\((\\d)\\)\\D{3,7}(\\d+)', raw))\n"
    "def answer(x): return int(known.get(b'%d' % x, -1)) if x != 1 else 11",
    "standard input": "import sys, re, os\ntry: text = open(0, 'rb').read()\nexcept OSError: text = b''\n"
    "known = dict(re.findall(rb'candidate\\((\\d)\\)\\D{3,7}(\\d+)', text))\n"
    "def answer(x): return int(known.get(b'%d' % x, -1)) if x != 1 else 11",
    "thread": "import threading, os, time\ndef later():\n    time.sleep(0.05); os._exit(0)\n"
    "threading.Thread(target=later).start()\ndef answer(x): time.sleep(1)",
    "open string": "def answer(x): return None\n'''",
    "open bracket": "def answer(x): return None\nx = [",
    "continued line": "def answer(x): return None\nx = 1 if True else \\",
    "crash when asked": "import ctypes\ndef answer(x): ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "not unable": "import os, struct\nm = b'unable to lock'\nos.write(30, struct.pack('<Q', len(m)) + m)",
    "garbage": "import os\nos.write(30, b'\\xff' * 9)\n" + _WRONG,
    "nested reply": "import os, struct\nm = b't\\3\\0\\0\\0s\\2\\0\\0\\0ok'\n"
    "m += b'l\\1\\0\\0\\0' * 9000 + b'N'\n"
    "os.write(30, struct.pack('<Q', len(m)) + m)\n" + _WRONG,
    "unknown class": "import os, struct\nm = b't\\3\\0\\0\\0s\\2\\0\\0\\0ok'\n"
    "m += b'o\\x09\\0\\0\\0os.systemt\\1\\0\\0\\0s\\0\\0\\0\\0N'\n"
    "os.write(30, struct.pack('<Q', len(m)) + m)\n" + _WRONG,
}
FORGING = {f"forge: {name}": program for name, program in _FORGERIES.items()}

_COSTS = {
    "flood": "k = 0\nwhile True:\n    try: open(str(k), 'wb').write(bytes(1 << 20))\n"
    "    except OSError: pass\n    k += 1",
    "nested folders": "import os\nfor _ in range(3000):\n    try: os.mkdir('d'); os.chdir('d')\n"
    "    except OSError: break\nraise SystemExit",
    "nested and endless": "import os\nwhile True:\n    try: os.mkdir('d'); os.chdir('d')\n"
    "    except OSError: pass",
    "unreadable folders": "import os\nos.umask(0)\nos.mkdir('a', 0o700)\nos.mkdir('a/b', 0)\n"
    "os.mkdir('c', 0)\nopen('f', 'w').close()",
    "odd names": "import os\n"
    "for n in (b'\\xff\\xfe', b'\\n', b'-rf', b' ', b'a' * 255, b'\\x1b[2J', b'$(id)'):\n"
    "    os.mkdir(n); open(os.path.join(n, n), 'w').close(); os.symlink(b'..', os.path.join(n, b'l'))",
    "many files": "import os\nk = 0\nwhile True:\n    try: os.mkdir(str(k))\n"
    "    except OSError: pass\n    k += 1",
    "deleted files": "import os\nf = []\nwhile True:\n    try:\n        f.append(open('x', 'wb', 0))\n"
    "        f[-1].write(bytes(1 << 20)); os.remove('x')\n    except OSError: pass",
    "loop of links": "import os\nos.symlink('b', 'a'); os.symlink('a', 'b'); os.symlink('.', 'c')",
    "a fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "threads": "import threading, time\nthreading.stack_size(32768)\nwhile True:\n"
    "    try: threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    "    except RuntimeError: time.sleep(9)",
    "memory": "x = []\nwhile True:\n    try: x.append(bytearray(1 << 24))\n    except MemoryError: pass",
    "a loop": "while True: pass",
    "a loop when asked": "def answer(x):\n    while True: pass",
    "sleep": "import time; time.sleep(60)",
    "sleep when asked": "import time\ndef answer(x): time.sleep(60)",
    "output": "while True: print('x' * 9999)",
    "a huge value": "def answer(x): return 'x' * (80 << 20)",
    "an endless value": "def answer(x):\n    while True: yield x",
    "a huge number": "def answer(x): return 1 << (1 << 28)",
    "recursion": "def answer(x): return answer(x)\nimport sys; sys.setrecursionlimit(1 << 30)",
    "stopped": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "deaf": "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "silent": "import os\nos.closerange(3, 64)\nwhile True: pass",
    "never reads": "import os, struct, time\nos.write(30, struct.pack('<Q', 1 << 20))\ntime.sleep(60)",
}
COSTLY = {f"cost: {name}": program for name, program in _COSTS.items()}

HOSTILE = {**REACHING, **FORGING, **COSTLY}
