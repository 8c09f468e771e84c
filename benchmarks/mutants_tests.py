"""Run tests on a scratch copy of the project, for benchmarks/mutants.py: in forked children, few and fast.

Which tests a change concerns is measured: once for each test file, on the unchanged project, every function
of the modules that decide results tells when it is reached. A test that starts processes may reach anything
in them: it is tried last. A test that fails on the unchanged project is never tried.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import hashlib
import importlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.mutants_changes import Change, owners
from benchmarks.mutants_table import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ablations", "sweeps", "analysis")
WARM = (
    *("pytest", "hypothesis", "hypothesis.strategies", "numpy", "yaml", "rich.console", "filelock"),
    *("psutil", "hydra", "hydra._internal.utils", "omegaconf", "pydantic", "jinja2", "tokenizers"),
    *("datatrove.data", "torch", "pandas", "pyarrow.parquet", "scipy.stats", "scipy.optimize"),
    *("sklearn.linear_model", "sklearn.gaussian_process", "lightgbm", "cmaes", "optuna"),
    *("plotly.graph_objects", "safetensors.torch", "transformers.models.llama.modeling_llama"),
    *("lighteval.metrics.dynamic_metrics", "lighteval.models.abstract_model"),
    "lighteval.tasks.lighteval_task",
)
"""Modules that children find imported: third parties alone."""

TEST_SECONDS = 60.0
"""Longest a single test may take, on a busy machine too; those that are not slow take a few seconds."""

CHANGE_SECONDS = 30.0
"""Most seconds of tests for one change, as they were measured: its nearest tests, the fast ones first."""

OUTSIDE_SECONDS = 5.0
"""Longest a test may take that only perhaps reaches a change, in a process that it starts."""

_SUBREAPER = 36
"""Linux' PR_SET_CHILD_SUBREAPER: what a test leaves behind becomes a child of this process."""

_SITE = "import builtins\nbuiltins.__reached__ = lambda number: None\n"


@dataclass(frozen=True)
class Result:
    """Outcome of the tests of one change."""

    noticed: str | None
    """The first test that failed; None where all passed."""
    tests: int
    """Tests that were to be run."""
    seconds: float


def warm() -> None:
    """Import what tests import of third parties, once for all children, and leave the process as it was."""
    os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in WARM:
            importlib.import_module(name)
    import torch

    torch.set_grad_enabled(True)  # lighteval may switch it off
    ours = [name for name in sys.modules if name.partition(".")[0] in (*PACKAGES, "tests")]
    assert not ours, f"of the project: {ours}"
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


class Scratch:
    """A copy of the project in which changes are made and tests run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tree = folder / "outer" / "tree"
        self._made = 0
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        done = subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE)
        for name in filter(None, done.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.tree / name)
        for beside in ("data", "../shared"):
            if (ROOT / beside).exists():
                (self.tree / beside).symlink_to((ROOT / beside).resolve())

    def write(self, module: str, source: str) -> None:
        """Write another text of a module.

        Python compares a compiled module's size and time in whole seconds with its source: each text has a
        time of its own.
        """
        self._made += 1
        (self.tree / module).write_text(source)
        os.utime(self.tree / module, (self._made, self._made))

    @contextlib.contextmanager
    def changed(self, change: Change) -> Iterator[None]:
        """Hold the change while the block runs."""
        before = (self.tree / change.module).read_text()
        self.write(change.module, change.source)
        try:
            yield
        finally:
            self.write(change.module, before)

    def pytest(self, tests: Sequence[str], *options: str, reach: bool = False) -> list[list[Any]]:
        """Run the tests in a child; return its notes (:class:`_Watch`), the last of which is how it ended.

        That is ["ended", exit code], ["ended", None] for a process that died, and ["late", None].
        """
        notes, output = self._folder / "notes", self._folder / "output"
        notes.write_text("")
        arguments = [*("-q", "-n", "0", "-m", "not slow and not gpu", "-p", "no:cacheprovider")]
        # The plugins were imported before pytest could rewrite their assertions.
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *options]
        arguments += [f"--basetemp={self._folder / 'tests'}", *tests]
        child = os.fork()
        if child == 0:
            _become_pytest(self.tree, arguments, _Watch(notes, reach), output)
        in_time = _wait(child, notes)
        for path in (self.tree / ".hypothesis", self._folder / "tests"):
            shutil.rmtree(
                path, ignore_errors=True
            )  # no example and no file of one change for the next
        read = [json.loads(line) for line in notes.read_text().splitlines()]
        if not in_time:
            read.append(["late", None])
        elif not read or read[-1][0] != "ended":
            read.append(["ended", None])
        return read

    def output(self) -> str:
        """Return what the last tests printed."""
        return (self._folder / "output").read_text(errors="replace")

    def try_change(self, change: Change, tests: Sequence[str]) -> Result:
        """Run the tests on the changed project up to the first that fails."""
        began = time.monotonic()
        if not tests:
            return Result(None, 0, 0.0)
        with self.changed(change):
            notes = self.pytest(tests, "-x")
        noticed = next((name for kind, name, *_ in notes if kind == "fails"), None)
        kind, code = notes[-1]
        if noticed is None and (kind == "late" or code != 0):
            last = [name for kind, name, *_ in notes if kind == "runs"]
            noticed = f"{last[-1] if last else 'collection'} ({kind}, exit code {code})"
        return Result(noticed, len(tests), time.monotonic() - began)


class _Watch:
    """Notes which test runs and fails, and what it reaches where that is asked for."""

    def __init__(self, notes: Path, reach: bool) -> None:
        self._notes = notes
        self._reach = reach
        self._reached: set[int] = set()
        self._outside = False

    def start(self) -> None:
        """Make the functions of the instrumented modules tell."""
        if self._reach:
            import builtins

            builtins.__reached__ = self._reached.add  # type: ignore[attr-defined]
            sys.addaudithook(self._heard)

    def _heard(self, event: str, _: object) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"):
            self._outside = True

    def note(self, *note: object) -> None:
        with self._notes.open("a") as stream:
            stream.write(json.dumps(note) + "\n")

    def pytest_runtest_logstart(self, nodeid: str, location: object) -> None:
        del location
        self.note("runs", nodeid)

    def pytest_collection_finish(self, session: object) -> None:
        del session
        self._told("at import", "import", 0.0)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.note("fails", report.nodeid)
        self._told(report.nodeid, report.when, report.duration)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.note("fails", report.nodeid)

    def _told(self, name: str, when: str, seconds: float) -> None:
        if self._reach:
            self.note(
                "reached", name, when, sorted(self._reached), self._outside, round(seconds, 3)
            )
            self._reached.clear()
            self._outside = False


def _become_pytest(tree: Path, arguments: list[str], watch: _Watch, output: Path) -> None:
    """Be pytest in the scratch copy; never returns."""
    try:
        os.setsid()
        os.chdir(tree)
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]
        own = [str(tree), str(tree / "sweeps/plugins")]
        kept = [p for p in sys.path if not Path(p).is_relative_to(ROOT) or ".venv" in p]
        sys.path[:] = [*own, *kept]
        os.environ["PYTHONPATH"] = os.pathsep.join(own)
        sys.argv = ["pytest"]
        importlib.invalidate_caches()
        import pytest

        watch.start()
        watch.note("ended", int(pytest.main(arguments, plugins=[watch])))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)


def _wait(child: int, notes: Path) -> bool:
    """Wait for the child and end what it left behind; False where a test took too long."""
    in_time = True
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.time() - notes.stat().st_mtime > TEST_SECONDS:
            in_time = False
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    for _ in range(1000):
        left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not left:
            break
        for one in map(int, left):
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(one, signal.SIGKILL)
                os.waitpid(one, 0)
    return in_time


class Reach:
    """Functions that each test reaches, measured for a test file when it is first asked for.

    Kept in a file where one is given: a test file that was not edited is not measured again.
    """

    def __init__(self, scratch: Scratch, modules: Collection[str], kept: Path | None) -> None:
        self._scratch = scratch
        self._kept = kept
        self._files: dict[str, dict[str, Any]] = {}
        if kept is not None and kept.exists():
            self._files = json.loads(kept.read_text())
        self._names: list[str] = []
        for module in sorted(modules):
            scratch.write(module, self._telling(module))
        (scratch.tree / "sitecustomize.py").write_text(_SITE)

    def tests_of(
        self, change: Change, files: Sequence[str], most: float = CHANGE_SECONDS
    ) -> list[str]:
        """Return the tests that a change concerns, the likely and the fast first.

        A constant or a default concerns every test that reaches something of its module, the module's own
        tests, and those that compare settings.
        """
        found: list[tuple[bool, int, float, str]] = []
        function = f"{change.module}:{change.function}"
        for rank, file in enumerate(files):
            measured = self._measured(file)
            at_import = function not in measured["names"] or function in measured["at import"]
            known = measured["names"]
            asked = {i for i, name in enumerate(known) if _concerns(name, function, at_import)}
            shared = bool(asked & set(measured["shared"])) and not at_import
            for name, test in measured["tests"].items():
                inside = shared or bool(asked & set(test["reached"]))
                outside = test["outside"] and test["seconds"] < OUTSIDE_SECONDS
                compares = at_import and file.endswith(SETTINGS)
                if inside or outside or compares or (at_import and rank == 0):
                    nearest = -1 if compares else rank
                    found.append((not (inside or compares), nearest, test["seconds"], name))
        spent = itertools.accumulate(seconds for _, _, seconds, _ in sorted(found))
        near = zip(sorted(found), spent, strict=True)
        return [one[-1] for one, so_far in near if so_far - one[2] < most]

    def _measured(self, file: str) -> dict[str, Any]:
        text = (self._scratch.tree / file).read_bytes()
        digest = hashlib.sha256(text).hexdigest()
        if self._files.get(file, {}).get("sha256") != digest:
            self._files[file] = {"sha256": digest, **self._measure(file)}
            if self._kept is not None:
                self._kept.write_text(json.dumps(self._files))
        return self._files[file]

    def _measure(self, file: str) -> dict[str, Any]:
        """Run a test file on the instrumented project."""
        print(f"measuring {file}", flush=True)
        notes = self._scratch.pytest([file], reach=True)
        failed = {note[1] for note in notes if note[0] == "fails"}
        if notes[-1] not in (["ended", 0], ["ended", 5], ["ended", 1]):
            raise RuntimeError(
                f"{file} does not run on the unchanged project:\n{self._scratch.output()}"
            )
        tests: dict[str, dict[str, Any]] = {}
        shared: set[int] = set()
        at_import: list[str] = []
        for name, when, reached, outside, seconds in (n[1:] for n in notes if n[0] == "reached"):
            if when == "import":
                at_import = [self._names[number] for number in reached]
                continue
            test = tests.setdefault(name, {"reached": [], "outside": False, "seconds": 0.0})
            test["reached"] = sorted({*test["reached"], *reached})
            test["outside"] |= outside
            test["seconds"] += seconds
            if (
                when == "setup"
            ):  # of the session or the module perhaps: paid by its first test, used by all
                shared |= set(reached)
        for name in sorted(failed):
            print(f"fails on the unchanged project, so it is not used: {name}")
            tests.pop(name, None)
        return {
            "names": self._names,
            "tests": tests,
            "shared": sorted(shared),
            "at import": at_import,
        }

    def _telling(self, module: str) -> str:
        """Return the module's text with a call at the start of each function."""
        source = (ROOT / module).read_text()
        lines = source.splitlines(keepends=True)
        for function, node in reversed(list(owners(ast.parse(source)))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[1:][:1] if ast.get_docstring(node) is not None else node.body[:1]
            if not first or first[0].lineno == node.lineno:
                continue
            line = min(
                [first[0].lineno, *(d.lineno for d in getattr(first[0], "decorator_list", ()))]
            )
            call = f"{' ' * first[0].col_offset}__reached__({len(self._names)})\n"
            self._names.append(f"{module}:{function}")
            lines.insert(line - 1, call)
        return "".join(lines)


def _concerns(name: str, function: str, at_import: bool) -> bool:
    """Return whether a change of ``function`` may show where ``name`` is reached."""
    if at_import:
        return name.partition(":")[0] == function.partition(":")[0]
    return name == function
