from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from ablations.errors import ConfigError, Problem
from ablations.processes import warm_server
from ablations.training import training_process
from ablations.training.training_process import Task, run_in_worker, run_side_by_side

WORK = """
import os, sys, time
from ablations.errors import ConfigError, Problem

def work(argument):
    print("hello from the worker")
    if argument == "refuse":
        raise ConfigError(Problem("here", "not like this"))
    if argument == "unpicklable":
        error = ValueError("odd")
        error.stream = sys.stdout
        raise error
    if argument == "die":
        os.kill(os.getpid(), 9)
    if argument == "exit":
        os._exit(3)
    if argument == "sleep":
        time.sleep(60)
    return os.getpid()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_work.py").write_text(WORK)
    paths = [str(tmp_path), str(Path(training_process.__file__).parents[2])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    warm_server.close_servers()
    return "some_work"


def task(module: str, tmp_path: Path, argument: object = None) -> Task:
    return Task(
        module=module, function="work", argument=argument, log=tmp_path / "training_process.log"
    )


def test_a_worker_is_another_process_and_logs(module: str, tmp_path: Path) -> None:
    result = run_in_worker(task(module, tmp_path))
    assert result.value not in (None, os.getpid())
    assert "hello from the worker" in (tmp_path / "training_process.log").read_text()


def test_workers_share_a_warm_server(module: str, tmp_path: Path) -> None:
    parents = set()
    for _ in range(2):
        run_in_worker(task(module, tmp_path))
        parents.add(
            tuple(
                server._process.pid for server in warm_server._servers.values() if server._process
            )
        )
    assert len(parents) == 1


def test_a_refusal_arrives_as_it_was_raised(module: str, tmp_path: Path) -> None:
    result = run_in_worker(task(module, tmp_path, "refuse"))
    assert isinstance(result.error, ConfigError)
    assert result.error.problems == (Problem("here", "not like this"),)


def test_an_error_that_cannot_travel_is_told_in_words(module: str, tmp_path: Path) -> None:
    result = run_in_worker(task(module, tmp_path, "unpicklable"))
    assert "odd" in str(result.error)


@pytest.mark.parametrize(("how", "words"), [("die", "SIGKILL"), ("exit", "exit code 3")])
def test_a_worker_that_died_is_told_how(module: str, tmp_path: Path, how: str, words: str) -> None:
    assert words in (run_in_worker(task(module, tmp_path, how)).died or "")
    assert run_in_worker(task(module, tmp_path)).value


def test_an_interrupted_caller_ends_its_worker(module: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt() -> None:
        # The server of this task, and those of other tests in this process, stay warm.
        server = warm_server.warm_server([module])._process
        assert server is not None
        seen.extend(child.pid for child in psutil.Process(server.pid).children(recursive=True))
        if seen:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in_worker(task(module, tmp_path, "sleep"), interrupt)
    assert not _alive_after(seen, seconds=5)


def test_nobody_outlives_a_caller_that_was_killed(module: str, tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from ablations.training.training_process import Task, run_in_worker, run_side_by_side
        run_in_worker(Task(module="{module}", function="work", argument="sleep",
                           log=Path({str(tmp_path)!r}) / "training_process.log"))
        """
    )
    caller = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 30
    children: list[int] = []
    while len(children) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
        children = [child.pid for child in psutil.Process(caller.pid).children(recursive=True)]
    assert len(children) >= 2
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert not _alive_after(children, seconds=5)


SLOW_IMPORT = """
import os, time
from pathlib import Path
Path(os.environ["MARKS"], "importing").touch()
time.sleep(1.0)

def work(argument):
    Path(os.environ["MARKS"], "worked").touch()
    time.sleep(60)
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_caller_killed_while_its_server_imports_leaves_nobody(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    del module  # for its path
    (tmp_path / "slow_import.py").write_text(SLOW_IMPORT)
    monkeypatch.setenv("MARKS", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from ablations.training.training_process import Task, run_in_worker, run_side_by_side
        run_in_worker(Task(module="slow_import", function="work", argument=None, ranks={ranks},
                           log=Path({str(tmp_path)!r}) / "training_process.log"))
        """
    )
    caller = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    deadline = time.monotonic() + 60
    # torchrun imports torch first, and is met there.
    begun = tmp_path / ("importing" if ranks == 1 else "training_process.log")
    children: list[int] = []
    while not (begun.exists() and children) and time.monotonic() < deadline:
        time.sleep(0.01)
        children = [child.pid for child in psutil.Process(caller.pid).children(recursive=True)]
    assert children
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert not _alive_after(children, seconds=30)
    time.sleep(1.2)
    assert not (tmp_path / "worked").exists()


def test_a_server_whose_parent_is_gone_before_it_begins_does_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-m", "ablations.processes.warm_server", "1", "[]", "no_such_module"],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_the_folder_of_a_killed_caller_is_removed_by_the_next(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_process.tempfile, "gettempdir", lambda: str(tmp_path))
    long_ago = time.time() - 3600
    for name in ("dead", "alive", "new"):
        (tmp_path / f"ablations-task-{name}").mkdir()
    with FileLock(tmp_path / "ablations-task-alive" / "caller.lock"):
        for name in ("dead", "alive"):
            os.utime(tmp_path / f"ablations-task-{name}", (long_ago, long_ago))
        assert run_in_worker(task(module, tmp_path)).value
        left = {path.name for path in tmp_path.glob("ablations-task-*")}
    assert left == {"ablations-task-alive", "ablations-task-new"}


def test_threads_may_train_at_once(module: str, tmp_path: Path) -> None:
    pids: list[int] = []
    threads = [
        threading.Thread(target=lambda: pids.append(run_in_worker(task(module, tmp_path)).value))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pids)) == 3


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it may end between any two looks
        return False


def _alive_after(pids: list[int], seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [pid for pid in pids if _lives(pid)]
        if not alive:
            return []
        time.sleep(0.05)
    return alive


def test_a_module_that_cannot_be_imported_is_the_error_of_the_task(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / "some_work.py").write_text("import a_package_that_is_not_here")
    for name, missing in ((module, "a_package_that_is_not_here"), ("no_such_module",) * 2):
        result = run_in_worker(task(name, tmp_path))
        assert isinstance(result.error, ImportError)
        assert missing in str(result.error)
        assert missing in (tmp_path / "training_process.log").read_text()


def test_tasks_side_by_side_answer_in_their_order(module: str, tmp_path: Path) -> None:
    looks: list[int] = []
    tasks = [task(module, tmp_path) for _ in range(3)]
    result = run_side_by_side(tasks, lambda: looks.append(0))
    assert len(set(result.value)) == 3
    assert looks


@pytest.mark.parametrize(
    ("how", "words"), [("die", "its worker was killed by SIGKILL"), ("refuse", "not like this")]
)
def test_a_task_that_fails_ends_those_beside_it(
    module: str, tmp_path: Path, how: str, words: str
) -> None:
    began = time.monotonic()
    tasks = [task(module, tmp_path, "sleep"), task(module, tmp_path, how)]
    result = run_side_by_side(tasks, lambda: None)
    assert words in (result.died or str(result.error))
    assert time.monotonic() - began < 30


def test_an_interrupted_caller_ends_all_tasks(module: str, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt() -> None:
        server = warm_server.warm_server([module])._process
        assert server is not None
        seen.extend(child.pid for child in psutil.Process(server.pid).children(recursive=True))
        if len(seen) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_side_by_side([task(module, tmp_path, "sleep")] * 2, interrupt)
    assert not _alive_after(seen, seconds=5)
