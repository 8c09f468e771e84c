"""Generated code is locked in: it can compute, and nothing else."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ablations.errors import EvaluationError
from ablations.evaluation import sandbox
from ablations.evaluation.sandbox import Limits, passes

SHORT = Limits(wall_seconds=20.0, cpu_seconds=1)


def test_right_code_passes() -> None:
    assert passes("import math, re, collections\nassert math.gcd(6, 4) == 2")


def test_threads_and_its_own_folder_are_allowed() -> None:
    assert passes(
        "import threading\n"
        "t = threading.Thread(target=lambda: open('a', 'w').write('x')); t.start(); t.join()\n"
        "assert open('a').read() == 'x'"
    )


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 == 2",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "raise SystemExit",
        "this is no python",
        "\0",
        "import os, signal; os.abort()",
    ],
)
def test_wrong_code_and_early_exits_do_not_pass(program: str) -> None:
    assert not passes(program, SHORT)


FORBIDDEN = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\n    while True: os.fork()",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "unix socket": "import socket; socket.socketpair()",
    "kill the parent": "import os; os.kill(os.getppid(), 9)",
    "kill everything": "import os; os.kill(-1, 9)",
    "write outside": "open('{outside}/new', 'w')",
    "read outside": "open('{outside}/secret').read()",
    "delete outside": "import os; os.remove('{outside}/secret')",
    "rename outside": "import os; os.rename('{outside}/secret', 'mine')",
    "change modes": "import os; os.chmod('{outside}/secret', 0o777)",
    "change times": "import os; os.utime('{outside}/secret', (0, 0))",
    "list outside": "import os; os.listdir('{outside}')",
    "raise its limits": "import resource as r; r.setrlimit(r.RLIMIT_CPU, (9, 9))",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_reaches_outside_is_refused(what: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    tried = FORBIDDEN[what].format(outside=tmp_path)
    program = (
        f"try:\n    {tried}\nexcept (OSError, ValueError):\n    pass\nelse:\n    raise SystemExit"
    )
    assert passes(program)
    assert secret.read_text() == "s"
    assert secret.stat().st_mtime > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret"]


def test_memory_is_limited() -> None:
    assert passes("try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    pass\nelse:\n    exit()")


def test_a_large_file_is_refused() -> None:
    assert not passes("f = open('big', 'wb')\nf.write(bytes(2 << 20))\nf.flush()")


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    assert passes("import os\nassert 'SOME_TOKEN' not in os.environ")


def test_an_endless_loop_ends_by_processor_time() -> None:
    assert not passes("while True: pass", SHORT)


def test_a_sleeping_program_ends_by_the_clock() -> None:
    began = time.monotonic()
    assert not passes("import time; time.sleep(60)", Limits(wall_seconds=1.0))
    assert time.monotonic() - began < 30


def test_no_descriptor_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    passes("pass")
    assert len(os.listdir("/proc/self/fd")) == before


def test_code_is_not_run_where_it_cannot_be_locked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    source = Path(sandbox._CHILD).read_text()
    unable = source.replace("_ARCHITECTURES.get(platform.machine())", "None")
    assert unable != source
    child = tmp_path / "child.py"
    child.write_text(unable)
    monkeypatch.setattr(sandbox, "_CHILD", child)
    with pytest.raises(EvaluationError, match="was not run"):
        passes(f"open({str(ran)!r}, 'w')")
    assert not ran.exists()
    assert sys.executable
