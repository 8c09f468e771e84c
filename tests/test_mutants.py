"""The changes that benchmarks/mutants.py makes, and the tables it draws them from."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.mutants import modules
from benchmarks.mutants_changes import Change, changes_of, read_defaults
from benchmarks.mutants_sites import Defaults
from benchmarks.mutants_table import EQUIVALENT, MODULES

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("module", MODULES)
def test_each_path_of_the_table_exists(module: str) -> None:
    assert list(ROOT.glob(module)), f"no module is {module}"
    for test in MODULES[module]:
        found = [path for path in (ROOT / "tests").glob(test) if path.name.startswith("test_")]
        assert found, f"{module}: no test file is tests/{test}"


def test_each_module_is_held_by_test_files() -> None:
    listed = dict(modules())
    assert "sweeps/verdict/decide.py" in listed
    assert all(files for files in listed.values())


def test_equivalent_changes_are_of_modules_of_the_table_and_have_a_reason() -> None:
    listed = dict(modules())
    for name, reason in EQUIVALENT.items():
        assert name.partition(":")[0] in listed, name
        assert reason, name


def _all(source: str, defaults: Defaults | None = None) -> set[tuple[str, str]]:
    """Return kind and changed line of each change that some seed makes."""
    known = defaults or Defaults([])
    made = (changes_of("made/up.py", source, known, seed, {}) for seed in range(60))
    return {(change.kind, change.after) for changes in made for change in changes}


@pytest.mark.parametrize(
    ("line", "kind", "after"),
    [
        ("return x < y", "comparison", "return x <= y"),
        ("return x < y", "comparison", "return x > y"),
        ("return x is not y", "comparison", "return x is y"),
        ("return x and y", "and/or", "return x or y"),
        ("return x and y", "operand lost", "return (y)"),
        ("return not x", "not lost", "return (x)"),
        ("return x - y", "sign", "return x + y"),
        ("return abs(x)", "sign", "return (x)"),
        ("return -x", "sign", "return (x)"),
        ("return x[0]", "constant", "return x[1]"),
        ("return x * 2.5", "constant", "return x * 5.0"),
        ("return max(x, y)", "min/max", "return min(x, y)"),
        ("return sorted(x, key=len)", "order lost", "return list(x)"),
        ("x.append(y)", "call deleted", "pass"),
        ("if x: raise ValueError", "check deleted", "pass"),
        ("if x: return y", "early return dropped", "pass"),
        ("return x.sum(axis=0)", "argument left out", "return x.sum()"),
    ],
)
def test_a_line_is_changed_in_this_way(line: str, kind: str, after: str) -> None:
    assert (kind, after) in _all(f"def f(x, y):\n    {line}\n")


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: int | None) -> int | None:\n    '''Return 1 + 1.'''\n",
        "def f(x):\n    raise ValueError(f'{x + 1} of {2}')\n",
        "def f(x):\n    print(x + 1)\n",
        "def f(x):\n    assert x > 1\n",
        "def f(x):\n    with x as y:\n        return y.result(timeout=3)\n",
        "def f(folder):\n    return folder / 'name'\n",
        "def f(x, rank=0):\n    del rank\n    return x\n",
        "__all__ = ['f'][:1]\n",
        "Value = float | int\n",
        "POLL_SECONDS = 2.0\n",
        "class C:\n    def __repr__(self):\n        return self.x + 1\n",
    ],
)
def test_what_no_result_depends_on_is_left_alone(source: str) -> None:
    assert _all(source) == set()


def test_an_argument_is_left_out_where_all_of_that_name_have_another_default() -> None:
    source = "def f(x):\n    return g(x, a=x, b=x)\n"
    trees = [ast.parse("def g(x, a=1, b=2): ..."), ast.parse("def g(x, *, a=3, b): ...")]
    left_out = {
        after for kind, after in _all(source, Defaults(trees)) if kind == "argument left out"
    }
    assert left_out == {"return g(x, b=x)"}


SOURCE = "def f(x):\n    return x + 1\n\n\ndef g(x):\n    return x < 1\n"


def _made(source: str, seed: int, equivalent: dict[str, str] | None = None) -> list[Change]:
    return list(changes_of("made/up.py", source, Defaults([]), seed, equivalent or {}))


@pytest.mark.parametrize("seed", range(5))
def test_each_function_gives_one_change_and_its_draw_is_its_own(seed: int) -> None:
    made = {change.function: change for change in _made(SOURCE, seed)}
    assert sorted(made) == ["f", "g"]
    moved = _made("A = 7\n\n\n" + SOURCE.replace("x < 1", "x < 1 + 2"), seed)
    assert {change.name for change in moved if change.function == "f"} == {made["f"].name}


@pytest.mark.parametrize("seed", range(5))
def test_an_equivalent_change_gives_its_place_to_another_of_the_function(seed: int) -> None:
    first = next(change for change in _made(SOURCE, seed) if change.function == "f")
    second = next(
        change for change in _made(SOURCE, seed, {first.name: "made up"}) if change.function == "f"
    )
    assert second.name != first.name


def test_every_change_of_a_module_compiles_and_is_one_line_of_it() -> None:
    defaults = read_defaults(ROOT, ("ablations/mixture",))
    path = "ablations/mixture/sampler.py"
    source = (ROOT / path).read_text()
    changes = list(changes_of(path, source, defaults, 0, {}))
    assert len(changes) > 10
    assert len({change.function for change in changes}) == len(changes)
    for change in changes:
        compile(change.source, path, "exec")
        assert change.before in " ".join(source.splitlines()[change.line - 1].split())


@pytest.mark.slow
def test_a_run_counts_what_the_tests_notice(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    command = [sys.executable, str(ROOT / "benchmarks/mutants.py"), "--count=3", "--seed=3"]
    done = subprocess.run(
        [*command, "--module=ablations/mixture/mixture.py", f"--record={record}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 3 changes noticed" in done.stdout
    assert len(record.read_text().splitlines()) == 3
