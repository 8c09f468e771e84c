"""Generated code is isolated, passes by its values alone, and costs other programs nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ablations.evaluation.sandbox.sandbox import Kernel, Limits, passes
from tests.oracles.honest import HONEST
from tests.oracles.hostile import COSTLY, FORGING, GIVEN, HOSTILE, REACHING, TESTS
from tests.oracles.outside import Outside

SHORT = Limits(wall_seconds=2.0, cpu_seconds=1)
OLD = Kernel(namespaces=False, landlock=1)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    with Outside(tmp_path / "outside") as world:
        yield world


@pytest.fixture
def boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the temporary folder that the sandbox uses, empty."""
    folder = tmp_path / "boxes"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_pass(name: str) -> None:
    program, tests = HONEST[name]
    assert passes(program, tests)


@pytest.mark.parametrize("name", ["math", "a class", "errors"])
def test_wrong_expectations_do_not_hold(name: str) -> None:
    program, tests = HONEST[name]
    assert not passes(program, f"{tests}\nassert 1 == 2", limits=SHORT)


def test_there_are_enough_programs() -> None:
    assert len(HONEST) >= 30
    assert len(HOSTILE) == len(REACHING) + len(FORGING) + len(COSTLY) >= 80


def test_the_hostile_programs_tests_hold_for_the_right_answer_alone() -> None:
    assert passes("def answer(x): return 11 * x * x", TESTS, given=GIVEN)
    assert not passes("def answer(x): return 11 * x * x or 1", TESTS, given=GIVEN)


@pytest.mark.parametrize(
    "name",
    [*REACHING, *FORGING, *(pytest.param(name, marks=pytest.mark.slow) for name in COSTLY)],
)
def test_hostile_programs_neither_reach_nor_pass_nor_cost(
    name: str, outside: Outside, boxes: Path
) -> None:
    assert not passes(outside.fill(HOSTILE[name]), TESTS, given=GIVEN, limits=SHORT)
    assert outside.damage() == []
    assert list(boxes.iterdir()) == []
    if name in COSTLY:
        assert passes(*HONEST["math"])


ON_OLD_KERNELS = [
    *(name for name in REACHING if "truncate" in name or "segment" in name or "link" in name),
    *(name for name in COSTLY if any(word in name for word in ("flood", "fold", "odd", "many"))),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ON_OLD_KERNELS, "cost: deleted files"])
def test_older_kernels_stop_them_too(name: str, outside: Outside, boxes: Path) -> None:
    program = outside.fill(HOSTILE[name])
    assert not passes(program, TESTS, given=GIVEN, limits=SHORT, kernel=OLD)
    assert outside.damage() == []
    assert list(boxes.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        *("read", "overwrite", "truncate by path", "truncate while reading"),
        *("list", "move out", "change modes", "make a folder", "fork", "subprocess"),
        *("memory file", "network", "own processors", "parent's nice"),
    ],
)
def test_the_attempts_succeed_without_the_sandbox(name: str, outside: Outside) -> None:
    program = outside.fill(REACHING[f"reach: {name}"]).replace(str(os.getpid()), "os.getpid()")
    done = subprocess.run([sys.executable, "-c", f"{program}\nassert answer(2) == 44"])
    assert done.returncode == 0


@pytest.mark.parametrize("name", [name for name in FORGING if "equal to everything" in name])
def test_the_forgeries_hold_where_program_and_tests_share_a_process(name: str) -> None:
    helper = "import math\ndef near(a, b): return abs(a - b) < 1e-9\n"
    exec(f"{FORGING[name]}\n{helper}{TESTS}", {"__name__": "forged"})


@pytest.mark.parametrize("kernel", [Kernel(), OLD], ids=["own", "old"])
def test_a_program_with_too_many_threads_is_ended_ahead_of_the_clock(kernel: Kernel) -> None:
    began = time.monotonic()
    limits = Limits(wall_seconds=60.0)
    assert not passes(COSTLY["cost: threads"], TESTS, limits=limits, kernel=kernel)
    assert time.monotonic() - began < 50


SWAPPED = """
import sys
frame = sys._getframe()
while frame:
    player = frame.f_locals.get('player')
    if player:
        lies = {'abs': lambda v: 0, 'near': lambda a, b: True}
        player._operations['names'] = lambda wanted: {'f': f, '__builtins__': lies, **lies}
    frame = frame.f_back
def f(x): return 5
"""


@pytest.mark.parametrize("tests", ["assert abs(f(3) - 9) < 1", "assert near(f(3), 9)"])
def test_names_that_the_tests_did_not_ask_for_are_not_taken(tests: str) -> None:
    given = "def near(a, b): return abs(a - b) < 1\ndef f(x):\n    '''?'''\n"
    assert not passes(SWAPPED, tests, given=given)
    assert passes("def f(x): return x * x", tests, given=given)


def test_what_tests_print_is_not_the_result() -> None:
    program = "def f(): return '\\npass\\n'"
    assert not passes(program, "print(f(), flush=True)\nassert False")
    assert passes(program, "print(f(), flush=True)")


def test_all_files_together_are_limited() -> None:
    program = (
        "def fill():\n    k = 0\n    try:\n        while True:\n"
        "            with open(str(k), 'wb') as f: f.write(bytes(1 << 18))\n            k += 1\n"
        "    except OSError: return k"
    )
    limits = Limits(total_bytes=2 << 20)
    assert passes(program, "assert 7 <= fill() <= 8", limits=limits)


def test_a_large_file_is_refused() -> None:
    program = "def f(n):\n    with open('f', 'wb', 0) as g: return g.write(bytes(n))"
    assert passes(program, f"assert f({1 << 20}) == {1 << 20}")
    assert not passes(program, f"assert f({2 << 20}) == {2 << 20}")


def test_memory_is_limited() -> None:
    program = (
        "def f():\n    try: return len(bytearray(1 << 30))\n    except MemoryError: return 'no'"
    )
    assert passes(program, "assert f() == 'no'")


def test_the_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    program = "import os\ndef f(): return [k for k in os.environ if not k.startswith('LC_')]"
    assert passes(program, "assert f() == []")


def test_helpers_of_the_task_are_not_the_programs() -> None:
    given = "import math\ndef near(a, b): return abs(a - b) < 0.1\ndef f(x):\n    '''?'''\n"
    tests = "assert near(f(2), 4)"
    assert passes(given + "    return x * x", tests, given=given)
    forged = given + "    return 0\ndef near(a, b): return True"
    assert not passes(forged, tests, given=given)
    assert passes(forged, tests)  # a test whose helper is the program's own is no test


def test_classes_of_the_task_are_the_programs() -> None:
    given = (
        "class N:\n    def __init__(self, v): self.v = v\ndef make(): return N(2)\nroot = make()\n"
    )
    assert passes(given + "def f(n): return n.v", "assert f(root) == 2 == f(N(2))", given=given)


@pytest.mark.parametrize("head", ["", "def f(:\n", "raise ValueError\n", "def f(x):\n"])
def test_a_head_that_cannot_run_alone_changes_nothing(head: str) -> None:
    assert passes("def f(x): return x", "assert f(1) == 1", given=head)


@pytest.mark.parametrize("program", ["this is no python", "\0", "f", "import nothing_of_that_name"])
def test_programs_that_cannot_run_do_not_pass(program: str) -> None:
    assert not passes(program, "pass")


def test_program_and_tests_may_be_long() -> None:
    text = "x" * 3_000_000
    assert passes(f"def f(): return {text!r}", f"assert f() == {text!r}")


def test_a_sleeping_program_ends_by_the_clock() -> None:
    began = time.monotonic()
    program = "import time\ndef f(): time.sleep(60)"
    assert not passes(program, "f()", limits=Limits(wall_seconds=0.5))
    assert time.monotonic() - began < 30


def test_nothing_is_left_open_or_running() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = len(os.listdir("/proc/self/fd")), children.read_text()
    passes("pass", "pass")
    assert (len(os.listdir("/proc/self/fd")), children.read_text()) == before


def test_both_processes_end_with_a_caller_that_is_killed(tmp_path: Path) -> None:
    program = "open('began', 'w'); import time; time.sleep(60)"
    code = (
        "from ablations.evaluation.sandbox.sandbox import *\n"
        "from ablations.evaluation.sandbox.sandbox import Kernel\n"
        f"passes({program!r}, 'pass', limits=Limits(wall_seconds=60), kernel=Kernel(namespaces=False))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        _until(lambda: list(tmp_path.glob("*/began")))
        assert _mentioning(str(tmp_path))
    finally:
        caller.kill()
        caller.wait()
    _until(lambda: not _mentioning(str(tmp_path)))


def _until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def _mentioning(text: str) -> list[str]:
    """Return the processes with ``text`` in their command line; zombies have none."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found
