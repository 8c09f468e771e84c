"""Warm servers: children that answer, die, outlive their server or end with it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ablations.processes.child import ChildEnv, portable
from ablations.processes.ended import how_ended
from ablations.processes.warm_server import Child, WarmServer, wait_for_ends


def double(number: int) -> int:
    return 2 * number


def leave(code: object) -> None:
    sys.exit(code)  # type: ignore[arg-type]


def sleep_and_write(path: Path, seconds: float) -> None:
    path.with_suffix(".begun").touch()
    time.sleep(seconds)
    path.write_text("done")


def big(size: int) -> bytes:
    return b"x" * size


def surroundings() -> tuple[int, int, str | None, str, list[str], list[str]]:
    variable = os.environ.get("SOME_VARIABLE")
    return os.getpid(), os.getsid(0), variable, os.getcwd(), sys.path, sys.argv


@pytest.fixture
def server() -> Iterator[WarmServer]:
    server = WarmServer(["a_module_that_does_not_exist"])
    yield server
    server.close()


def wait_until(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def has_imported(name: str) -> bool:
    return name in sys.modules


@pytest.mark.parametrize("starts_cuda", [False, True])
def test_a_server_whose_modules_start_cuda_begins_again_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts_cuda: bool
) -> None:
    # torch answers True in a child of a process that has started CUDA.
    code = f"import torch\ntorch.cuda._is_in_bad_fork = lambda: {starts_cuda}\n"
    (tmp_path / "module_of_a_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    server = WarmServer(["module_of_a_test"])
    try:
        children = [server.start(has_imported, "module_of_a_test") for _ in range(2)]
        assert [child.result().value for child in children] == [not starts_cuda] * 2
        assert server.start(double, 3).result().value == 6
    finally:
        server.close()


def test_children_run_side_by_side_and_answer_their_own_call(server: WarmServer) -> None:
    children = [server.start(double, number) for number in range(4)]
    assert [child.result().value for child in children] == [0, 2, 4, 6]
    assert len({child.pid for child in children}) == 4
    assert [child.code for child in children] == [0] * 4


def test_a_child_has_its_session_and_variables_and_the_callers_folder_path_and_command(
    server: WarmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start(double, 1).result()
    monkeypatch.chdir(tmp_path)  # a run's paths may be relative, and its record has its command
    monkeypatch.syspath_prepend("/added/after/the/server/began")
    child = server.start(surroundings, env=ChildEnv(variables={"SOME_VARIABLE": "1"}))
    pid, session, variable, folder, path, command = child.result().value
    assert (folder, command) == (str(tmp_path), sys.argv)
    assert (pid, session, variable) == (child.pid, child.pid, "1")
    assert path[0] == "/added/after/the/server/began"


@pytest.mark.parametrize(("code", "expected"), [(3, 3), ("text", 1)])
def test_an_exit_is_an_error_with_its_code(server: WarmServer, code: object, expected: int) -> None:
    child = server.start(leave, code)
    assert isinstance(child.result().error, SystemExit)
    assert child.code == expected


def test_a_value_that_cannot_be_pickled_is_an_error(server: WarmServer) -> None:
    result = server.start(memoryview, b"x").result()
    assert "memoryview" in str(result.error)


def test_an_answer_larger_than_a_socket_holds_arrives(server: WarmServer) -> None:
    assert len(server.start(big, 3_000_000).result().value) == 3_000_000


def test_a_killed_child_is_seen_with_its_signal(server: WarmServer, tmp_path: Path) -> None:
    child = server.start(sleep_and_write, tmp_path / "a", 60)
    wait_until(tmp_path / "a.begun")
    assert wait_for_ends([child], 0.01) == []
    child.kill()
    assert child.result().died == "was killed by SIGKILL"


@pytest.mark.parametrize("outlives", [False, True])
def test_a_child_outlives_its_server_only_if_asked(
    server: WarmServer, tmp_path: Path, outlives: bool
) -> None:
    env = ChildEnv(outlives_server=outlives)
    child = server.start(sleep_and_write, tmp_path / "a", 2.0, env=env)
    wait_until(tmp_path / "a.begun")
    server.close()
    result = child.result()
    assert (tmp_path / "a").exists() == outlives
    assert result.died == (None if outlives else how_ended(None))


def test_a_server_that_was_killed_is_started_again(server: WarmServer) -> None:
    first = server.start(os.getppid).result().value
    os.kill(first, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first)], timeout=0)
    deadline = time.monotonic() + 30
    while server.start(double, 1).result().value != 2:
        assert time.monotonic() < deadline
    assert server.start(os.getppid).result().value != first


def test_a_child_that_could_not_be_forked_has_died_and_is_no_danger() -> None:
    from multiprocessing.connection import Pipe

    talk, theirs = Pipe()
    theirs.close()
    child = Child(None, talk)
    assert child.result().died == how_ended(None)
    child.kill()  # not the group of this process


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
        (None, "lost the server that it was forked from"),
    ],
)
def test_an_end_in_words(code: int | None, words: str) -> None:
    assert how_ended(code) == words


def test_an_error_that_can_be_pickled_stays_itself() -> None:
    error = ValueError("odd")
    assert portable(error) is error
